"""Segmentation: a U-Net and SegAN's critic (Xue et al. 2018, arXiv 1706.01805)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fastgan.errors import FastganError
from fastgan.recipes.config import ImageSpec, RecipeParts, option, run_option
from fastgan.recipes.translation.base import FromImage

if TYPE_CHECKING:
    from fastgan.data import Dataset


@dataclass(frozen=True, kw_only=True)
class Segment(FromImage):
    recipe: ClassVar[str] = "segmentation"
    summary: ClassVar[str] = "masks of images: U-Net against a critic of masked images"
    as_sets: ClassVar[bool] = False

    data: str = run_option(
        "composites",
        "a folder with images in a/ and their masks, white where the thing is, in b/ under the "
        "same names; composites are rendered",
    )
    adversarial: float = option(0.03, "weight of the critic's distance; 0 is the U-Net alone")
    cross_entropy: float = option(1.0, "weight of the binary cross-entropy")

    def everything(self, source: str) -> dict[str, Dataset]:
        from fastgan import data
        from fastgan.data import Dataset
        from fastgan.data.rendered import RENDERED
        from fastgan.data.sets.pairs import open_pairs

        if source in RENDERED:
            return {"image": data.open(source, size=self.size)}
        opened = open_pairs(source, "folders", **self.opening())
        masks = opened.array("image")
        bits = ((masks.max(3, keepdims=True) > 127) * 255).astype("uint8")
        if not bits.any():
            raise FastganError(f"{source}: the masks in b/ are black: make the thing white")
        arrays = {"image": bits, "source": opened.array("source")}
        return {"image": Dataset(opened.name, arrays, dict.fromkeys(arrays, "image"))}

    def opening(self) -> dict:
        return {**super().opening(), "channels": None}

    def baselines(self) -> Mapping[str, Callable]:
        return {
            "all background": lambda step: step.batch["image"] * 0 - 1,
            "all thing": lambda step: step.batch["image"] * 0 + 1,
        }

    def measures(self) -> Mapping[str, Callable]:
        from fastgan.metrics.fidelity import iou, l1

        return {"mean IoU": iou, "L1": l1}

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.unet import PatchDiscriminator, UNet
        from fastgan.objectives.translation.segmentation import Segmentation

        given = images.source_channels
        if not given:
            raise FastganError("segmentation needs images in a/ and masks in b/ of --data")
        return self.built(
            images,
            lambda: {
                "G": UNet(images.size, given, 1, self.width, 0.0, repeat=False),
                "D": PatchDiscriminator(given, 0, self.width, norm=False, spectral=True),
            },
            Segmentation(adversarial=self.adversarial, pixel=self.cross_entropy),
        )
