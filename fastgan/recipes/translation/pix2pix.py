"""pix2pix: a U-Net draws, a PatchGAN judges the pair, L1 keeps it near the target (Isola et al.
2017, arXiv 1611.07004)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fastgan.data.sets.pairs import LAYOUTS, layout_of, open_pairs, two_colours_paired
from fastgan.errors import FastganError
from fastgan.ops.loss_table import LOSSES
from fastgan.recipes.config import ImageSpec, RecipeParts, option
from fastgan.recipes.translation.base import FromImage
from fastgan.recipes.translation.parts import crop_option, side_of, whole_steps

if TYPE_CHECKING:
    from fastgan.data import Dataset


@dataclass(frozen=True, kw_only=True)
class Pix2Pix(FromImage):
    recipe: ClassVar[str] = "pix2pix"
    summary: ClassVar[str] = "images from images in pairs: U-Net, PatchGAN, L1"
    generated: ClassVar[tuple[str, ...]] = ("two-colours",)

    pairs: str = option(
        "auto",
        "how sources and targets lie in --data: folders a/ and b/, side-by-side in one file, or "
        "edges drawn from any images",
        choices=LAYOUTS,
    )
    reverse: bool = option(False, "from b to a, from right to left")
    l1: float = option(100.0, "weight of the L1 distance to the target")
    loss: str = option("non-saturating", "adversarial loss", choices=tuple(LOSSES))
    dropout: float = option(0.5, "share of units dropped in the decoder's first layers", below=1)
    crop: int = crop_option()

    def layout(self, source: str) -> str:
        return layout_of(source) if self.pairs == "auto" else self.pairs

    def everything(self, source: str) -> dict[str, Dataset]:
        if source in self.generated:
            if self.pairs != "auto":
                raise FastganError(f"{source} are pairs already: leave --pairs out")
            return {"image": two_colours_paired(self.size, self.channels, self.reverse)}
        layout = self.layout(source)
        if layout == "edges":
            return super().everything(source)
        return {"image": open_pairs(source, layout, reverse=self.reverse, **self.opening())}

    def baselines(self) -> Mapping[str, Callable]:
        return {"source as it is": lambda step: step.batch["source"].expand_as(step.batch["image"])}

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.unet import LEVELS, PatchDiscriminator, UNet, halvings
        from fastgan.objectives.translation.degradations import Edges
        from fastgan.objectives.translation.paired import Translation

        given, side = images.source_channels or 1, side_of(images, self.crop)
        whole_steps(images, self.crop, 2 ** min(halvings(side), LEVELS))
        return self.built(
            images,
            lambda: {
                "G": UNet(side, given, images.channels, self.width, self.dropout),
                "D": PatchDiscriminator(images.channels, given, self.width),
            },
            Translation(
                None if images.source_channels else Edges(),
                self.loss,
                adversarial=self.adversarial,
                pixel=self.l1,
                crop=self.crop,
            ),
        )
