"""Astronomy: what a galaxy was before atmosphere and noise (GalaxyGAN, Schawinski et al. 2017,
arXiv 1702.00403)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fastgan.ops.loss_table import LOSSES
from fastgan.recipes.config import ImageSpec, RecipeParts, option, run_option
from fastgan.recipes.translation.base import FromImage

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Astronomy(FromImage):
    recipe: ClassVar[str] = "astronomy"
    summary: ClassVar[str] = "galaxies recovered from blur and noise: U-Net, PatchGAN, L1"

    data: str = run_option(
        "galaxies", "images stretched by asinh(10 f) / 3; galaxies are rendered with exact truth"
    )
    sigma: float = option(1.5, "standard deviation of the point spread function in pixels")
    sky: float = option(0.05, "standard deviation of the sky's noise, in units of flux")
    l1: float = option(100.0, "weight of the L1 distance to the target")
    loss: str = option("non-saturating", "adversarial loss", choices=tuple(LOSSES))
    dropout: float = option(0.0, "share of units dropped in the decoder's first layers", below=1)

    def baselines(self) -> Mapping[str, Callable]:
        from fastgan.metrics.baselines import richardson_lucy, smoothed

        found: dict[str, Callable] = {
            "as observed": lambda step: step.batch["source"],
            "smoothed by 1 pixel": lambda step: smoothed(step.batch["source"], 1.0),
        }
        for rounds in (5, 20):
            found[f"Richardson-Lucy, {rounds}"] = lambda step, rounds=rounds: richardson_lucy(
                step.batch["source"], self.sigma, rounds
            )
        return found

    def measures(self) -> Mapping[str, Callable]:
        from fastgan.metrics.fidelity import l1, psnr, ssim
        from fastgan.objectives.translation.degradations import BRIGHTEST, LOWEST, flux

        def linear(images: Tensor, targets: Tensor) -> Tensor:
            span = (BRIGHTEST - LOWEST) / 2
            return psnr(flux(images) / span, flux(targets) / span)

        return {"L1": l1, "PSNR dB": psnr, "SSIM": ssim, "PSNR of flux": linear}

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.unet import PatchDiscriminator, UNet
        from fastgan.objectives.translation.degradations import Telescope
        from fastgan.objectives.translation.paired import Translation

        channels, size = images.channels, images.size
        return self.built(
            images,
            lambda: {
                "G": UNet(size, channels, channels, self.width, self.dropout),
                "D": PatchDiscriminator(channels, channels, self.width),
            },
            Translation(
                Telescope((channels, size, size), self.sigma, self.sky),
                self.loss,
                adversarial=self.adversarial,
                pixel=self.l1,
            ),
        )
