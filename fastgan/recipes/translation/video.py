"""Video: four frames in, the next out (Mathieu, Couprie, LeCun 2016, arXiv 1511.05440)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fastgan.ops.loss_table import LOSSES
from fastgan.recipes.config import ImageSpec, RecipeParts, option, run_option
from fastgan.recipes.translation.base import FromImage

if TYPE_CHECKING:
    from PIL.Image import Image

    from fastgan.data import Dataset

AHEAD = 12
"""Made frames of a film."""


@dataclass(frozen=True, kw_only=True)
class Video(FromImage):
    recipe: ClassVar[str] = "video"
    films: ClassVar[bool] = True
    summary: ClassVar[str] = "the next frame of a film: L2, gradient difference, D on the stack"

    data: str = run_option(
        "sprites", "GIFs, or a sub-folder of frames for each clip; sprites are rendered and move"
    )
    past: int = option(4, "frames that are given")
    adversarial: float = option(0.05, "weight of the adversarial loss; 0 trains G alone")
    l2: float = option(1.0, "weight of squared distance and gradient difference")
    gradients: float = option(1.0, "weight of the gradient difference in that; 0 is off")
    loss: str = option("non-saturating", "adversarial loss", choices=tuple(LOSSES))

    def everything(self, source: str) -> dict[str, Dataset]:
        from fastgan.data.sets.clips import open_clips

        return {"image": open_clips(source, self.past + 1, **self.opening())}

    def parts(self) -> tuple[Dataset, Dataset]:
        """(training, held out), as frames."""
        from fastgan.data.sets.clips import split_clips

        return split_clips(self.everything(self.data)["image"], self.held_out, self.past + 1)

    def streams(self, held_out: bool = False) -> dict[str, Dataset]:
        from fastgan.data.sets.clips import windows

        return {"image": windows(self.parts()[held_out], self.past)}

    def given(self, run: str, path: str) -> Dataset:
        """The frames of --input, as the run's generator knows them."""
        from fastgan.data.sets.clips import open_clips

        channels = self.source_channels(run) // self.past
        return open_clips(path, self.past, size=self.source_size(), channels=channels)

    def inputs(self, run: str, path: str, mask: str | None) -> dict[str, Dataset]:
        """Each frame after the first ones of a clip, with those before it."""
        from fastgan.data import Dataset
        from fastgan.data.sets.clips import file_name, windows

        self.check_no_mask(run, mask)
        found = windows(self.given(run, path), self.past, 0)
        names = [file_name(name) for name in found.names] if found.names else None
        arrays = {"image": found.array("source")}
        made = Dataset(found.name, arrays, {"image": "image"}, names=names, skipped=found.skipped)
        return {"source": made}

    def film(
        self,
        run: str,
        n: int,
        given: str | None,
        data: str | None,
        size: int | None,
        options: Mapping[str, Any],
    ) -> tuple[Sequence[Image], str]:
        from fastgan.data.dataset import left_out
        from fastgan.data.sets.clips import continuations
        from fastgan.metrics.fidelity import head
        from fastgan.metrics.recursion import continued
        from fastgan.monitor.pictures.films import continuation

        if given is not None:
            frames = self.given(run, given)
        else:
            frames = self.everything(data)["image"] if data is not None else self.parts()[1]
        every = continuations(frames, self.past, AHEAD, at_end=given is not None)
        before, made, truth = continued(run, head({"image": every}, n), AHEAD, **options)
        pictures = continuation(before, made, truth if given is None else None, size=size)
        of = f" of {len(every):,}" if len(every) > len(made) else ""
        what = f"{len(made):,}{of} clip{'s' * (len(every) > 1)}"
        line = f"{what}, {AHEAD} frames made after {self.past} given"
        told = frames.skipped if given is not None or data is not None else ()
        return pictures, f"{line}; {left_out(told)}" if told else line

    def measure(self, run: str, n: int, seed: int, data: str | None, trust: bool) -> Any:
        from fastgan.data.sets.clips import clips, windows
        from fastgan.metrics.fidelity import head
        from fastgan.metrics.recursion import recursion

        held = self.everything(data)["image"] if data is not None else self.parts()[1]
        longest = max(last - first for first, last in clips(held))
        times = [t for t in (1, 5, 10) if t <= max(1, longest - self.past)]
        ahead = windows(held, self.past, max(times))
        return recursion(run, head({"image": ahead}, n), times, seed=seed, trust=trust)

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.unet import PatchDiscriminator, UNet
        from fastgan.objectives.translation.frames import NextFrame

        given = self.past * images.channels
        return self.built(
            images,
            lambda: {
                "G": UNet(images.size, given, images.channels, self.width, 0.0),
                "D": PatchDiscriminator(images.channels, given, self.width),
            },
            NextFrame(
                None,
                self.loss,
                adversarial=self.adversarial,
                pixel=self.l2,
                gradients=self.gradients,
            ),
        )
