"""What a sample is: an image, or something else that is written to files and drawn in another
way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fastgan.errors import FastganError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Medium:
    """What an objective's samples are; this class itself: images.

    Another medium overrides the methods below, and stands in `Objective.medium`. It is a dataclass
    of plain values, so that run.json holds it.

    Attributes:
        noun: What several samples are called.
        out: Where `fastgan sample` writes without --out.
        endings: Of files that `encode` makes, besides pictures, which show what `picture` gives.
        single: Such an ending, for a folder with a file for each sample; "": there is none.
        shown: Samples of one picture during training.
    """

    noun: ClassVar[str] = "images"
    out: ClassVar[str] = "samples.png"
    endings: ClassVar[tuple[str, ...]] = ()
    single: ClassVar[str] = ""
    shown: ClassVar[int] = 64

    @property
    def drawn_by_pixel(self) -> bool:
        """Whether samples are images themselves."""
        return type(self) is Medium

    def finished(self, made: Tensor) -> Tensor:
        """Samples, float32 (n, ...), of what `Objective.sample` made, or of the batch's reals;
        images (n, C, H, W) in [0, 1]."""
        return made.float().add(1).div(2).clamp(0, 1).contiguous()

    def watched(self, samples: Tensor) -> Tensor:
        """Samples as float (n, C, H, W), about in [-1, 1], whose distances from each other the
        watch compares with those of reals."""
        return samples * 2 - 1

    def picture(self, samples: Tensor) -> Tensor:
        """Cells (m, C, H, W) in [0, 1] of a grid that shows the samples."""
        return samples

    def picture_of_reals(self, samples: Tensor) -> Tensor:
        """The same for reals."""
        return self.picture(samples)

    def encode(self, samples: Tensor, ending: str) -> bytes:
        """A file of that ending with these samples. Raises FastganError."""
        raise FastganError(f"{self.noun} are written as pictures, not as {ending}")

    def only_images(self, what: str) -> None:
        """Raises FastganError where samples are no images, which `what` needs."""
        if not self.drawn_by_pixel:
            raise FastganError(f"{what} is for images, and this run makes {self.noun}")


IMAGES = Medium()
