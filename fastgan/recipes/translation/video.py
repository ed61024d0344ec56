"""Video: four frames in, the next out (Mathieu, Couprie, LeCun 2016, arXiv 1511.05440)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fastgan.ops.loss_table import LOSSES
from fastgan.recipes.config import ImageSpec, RecipeParts, option, run_option
from fastgan.recipes.translation.base import FromImage, open_inputs

if TYPE_CHECKING:
    from fastgan.data import Dataset


@dataclass(frozen=True, kw_only=True)
class Video(FromImage):
    recipe: ClassVar[str] = "video"
    summary: ClassVar[str] = "the next frame of a film: L2, gradient difference, D on the stack"

    data: str = run_option(
        "sprites", "a folder of frames, a sub-folder a clip; sprites are rendered and move"
    )
    past: int = option(4, "frames that are given")
    adversarial: float = option(0.05, "weight of the adversarial loss; 0 trains G alone")
    l2: float = option(1.0, "weight of squared distance and gradient difference")
    gradients: float = option(1.0, "weight of the gradient difference in that; 0 is off")
    loss: str = option("non-saturating", "adversarial loss", choices=tuple(LOSSES))

    def streams(self, held_out: bool = False) -> dict[str, Dataset]:
        from fastgan.data.sets.clips import split_clips, windows

        frames = self.everything(self.data)["image"]
        return {"image": windows(split_clips(frames, self.held_out)[held_out], self.past)}

    def inputs(self, run: str, path: str, mask: str | None) -> dict[str, Dataset]:
        """Each frame after the first ones of a folder, with those before it."""
        import numpy as np

        from fastgan.data import Dataset
        from fastgan.data.sets.clips import windows

        super().inputs(run, path, mask)
        side, channels = self.source_size(), self.source_channels(run) // self.past
        frames = open_inputs(path, (side, side, channels))
        end = np.zeros_like(frames.array("image")[:1])  # what follows the last is not known
        names = [*(frames.names or ()), "end"]
        longer = np.concatenate([frames.array("image"), end])
        opened = Dataset(frames.name, {"image": longer}, {"image": "image"}, names=names)
        found = windows(opened, self.past)
        only = {"image": found.array("source")}
        return {"source": Dataset(frames.name, only, {"image": "image"}, names=found.names)}

    def measure(self, run: str, n: int, seed: int, data: str | None, trust: bool) -> Any:
        from fastgan.data.sets.clips import split_clips, windows
        from fastgan.metrics.fidelity import head
        from fastgan.metrics.recursion import recursion

        frames = self.everything(data or self.data)["image"]
        held = frames if data is not None else split_clips(frames, self.held_out)[1]
        ahead = windows(held, self.past, 10)
        return recursion(run, head({"image": ahead}, n), (1, 5, 10), seed=seed, trust=trust)

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
