"""Super-resolution: SRResNet with an adversarial loss, feature matching and L1 (after Ledig et al.
2017, arXiv 1609.04802; D's features in place of VGG's)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastgan.errors import FastganError
from fastgan.ops.loss_table import LOSSES
from fastgan.recipes.config import ImageSpec, RecipeParts, option
from fastgan.recipes.translation.base import FromImage
from fastgan.recipes.translation.parts import crop_option, side_of


@dataclass(frozen=True, kw_only=True)
class SuperResolution(FromImage):
    recipe: ClassVar[str] = "super-resolution"
    summary: ClassVar[str] = "images 4 times as large: SRResNet, feature matching, L1"

    factor: int = option(4, "how many times larger: 2, 4 or 8")
    degradation: str = option(
        "bicubic",
        "how images are made small: bicubic reduction alone, or as by a camera: blur, noise and "
        "JPEG, twice (Real-ESRGAN)",
        choices=("bicubic", "camera"),
    )
    crop: int = crop_option()
    blocks: int = option(4, "residual blocks of the generator")
    adversarial: float = option(0.01, "weight of the adversarial loss; 0 is L1 alone")
    features: float = option(0.1, "weight of feature matching")
    l1: float = option(1.0, "weight of the L1 distance to the target")
    loss: str = option("relativistic", "adversarial loss", choices=tuple(LOSSES))

    def source_size(self) -> int:
        return super().source_size() // self.factor

    def baselines(self) -> Mapping[str, Callable]:
        from fastgan.models.srresnet import enlarged

        return {"bicubic": lambda step: enlarged(step.batch["source"], self.factor)}

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.srresnet import SRResNet
        from fastgan.models.unet import PatchDiscriminator
        from fastgan.objectives.translation.camera.second_order import Camera
        from fastgan.objectives.translation.degradations import Downscale
        from fastgan.objectives.translation.paired import Translation

        for name, side in (("size", images.size), ("crop", side_of(images, self.crop))):
            if side % self.factor:
                near = max(1, side // self.factor) * self.factor
                raise FastganError(
                    f"{side} pixels do not divide by --factor {self.factor}: use --{name} {near}"
                )
        shape = (images.channels, images.size, images.size)
        camera = self.degradation == "camera"
        return self.built(
            images,
            lambda: {
                "G": SRResNet(images.channels, self.width, self.blocks, self.factor),
                "D": PatchDiscriminator(images.channels, 0, self.width, norm=False),
            },
            Translation(
                Camera(shape, self.factor) if camera else Downscale(self.factor),
                self.loss,
                adversarial=self.adversarial,
                pixel=self.l1,
                features=self.features if self.adversarial else 0.0,
                conditional=False,
                crop=self.crop,
            ),
        )
