"""WGAN-GP: residual networks, a critic without normalisation, a gradient penalty (Gulrajani et al.
2017, arXiv 1704.00028)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastgan.recipes.config import ImageSpec, RecipeParts, option
from fastgan.recipes.residual import Residual


@dataclass(frozen=True, kw_only=True)
class WganGp(Residual):
    recipe: ClassVar[str] = "wgan-gp"
    summary: ClassVar[str] = (
        "residual networks, Wasserstein loss with gradient penalty, five steps of the critic"
    )

    width: int = option(128, "channels of both networks", on_cpu=32)
    gp: float = option(10.0, "weight of the gradient penalty")

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.resnet import Discriminator, Generator
        from fastgan.objectives import Adversarial

        return self.built(
            images,
            lambda: {
                "G": Generator(images.size, images.channels, self.latent, self.width),
                "D": Discriminator(images.size, images.channels, self.width, spectral=False),
            },
            Adversarial("wasserstein", (self.latent,), gp=self.gp, n_critic=self.n_critic),
        )
