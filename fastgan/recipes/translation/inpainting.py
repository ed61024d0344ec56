"""Inpainting: a U-Net, or a ResNet of Fourier convolutions, fills holes; adversarial loss, feature
matching and L1 in the hole (after Pathak et al. 2016, arXiv 1604.07379, and Suvorov et al. 2022,
arXiv 2109.07161)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fastgan import arguments
from fastgan.errors import FastganError
from fastgan.ops.loss_table import LOSSES
from fastgan.recipes.config import ImageSpec, RecipeParts, option
from fastgan.recipes.translation.base import FromImage, open_inputs

if TYPE_CHECKING:
    from fastgan.data import Dataset


@dataclass(frozen=True, kw_only=True)
class Inpaint(FromImage):
    recipe: ClassVar[str] = "inpainting"
    summary: ClassVar[str] = "fills holes in images; known pixels stay as they are"
    shares: ClassVar[tuple[float, ...]] = (0.2, 0.3)

    boxes: int = option(2, "random rectangles of a training mask")
    strokes: int = option(2, "random strokes of a training mask")
    adversarial: float = option(0.1, "weight of the adversarial loss; 0 is L1 alone")
    features: float = option(1.0, "weight of feature matching")
    l1: float = option(10.0, "weight of the L1 distance in the hole")
    loss: str = option("non-saturating", "adversarial loss", choices=tuple(LOSSES))
    fourier: int = option(
        0, "blocks of fast Fourier convolutions, in a ResNet in place of the U-Net; 0: the U-Net"
    )

    def inputs(self, run: str, path: str, mask: str | None) -> dict[str, Dataset]:
        import numpy as np

        if mask is None:
            raise FastganError(
                "inpainting needs --mask beside --input: an image (or a folder of as many) that is "
                "white where to fill in"
            )
        side = self.source_size()
        images = open_inputs(path, (side, side, self.source_channels(run) - 1))
        masks = open_inputs(mask, (side, side, 1))
        if len(masks) == 1 and len(images) > 1:
            masks = masks.take(np.zeros(len(images), np.int64))
        arguments.one_or_each(len(masks), "masks", len(images))
        empty = np.flatnonzero(masks.array("image").reshape(len(masks), -1).max(1) < 128)
        if len(empty):
            name = masks.names[empty[0]] if masks.names else mask
            raise FastganError(f"{name}: a mask without a hole: make white what to fill in")
        return {"image": images, "mask": masks}

    def baselines(self) -> Mapping[str, Callable]:
        from fastgan.metrics.baselines import biharmonic, filled

        return {
            "harmonic fill": lambda step: filled(step.batch["image"], self.where()(step)),
            "biharmonic fill": lambda step: biharmonic(step.batch["image"], self.where()(step)),
        }

    def where(self) -> Callable:
        return lambda step: step.batch["source"][:, -1:] > 0

    def build(self, images: ImageSpec) -> RecipeParts:
        from torch import nn

        from fastgan.models.srresnet import FourierResNet
        from fastgan.models.unet import PatchDiscriminator, UNet
        from fastgan.objectives.translation.degradations import Holes
        from fastgan.objectives.translation.inpainting import Inpainting

        def generator() -> nn.Module:
            shape = (images.size, images.channels + 1, images.channels, self.width)
            if self.fourier:
                return FourierResNet(*shape, self.fourier)
            return UNet(*shape, dropout=0.0)

        return self.built(
            images,
            lambda: {
                "G": generator(),
                "D": PatchDiscriminator(images.channels, images.channels + 1, self.width),
            },
            Inpainting(
                Holes(self.boxes, self.strokes),
                self.loss,
                adversarial=self.adversarial,
                pixel=self.l1,
                features=self.features if self.adversarial else 0.0,
            ),
        )
