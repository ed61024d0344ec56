"""SNGAN: residual networks with spectral normalisation and the hinge loss (Miyato et al. 2018,
arXiv 1802.05957, CIFAR-10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastgan.ops.loss_table import LOSSES
from fastgan.recipes.config import ImageSpec, RecipeParts, option
from fastgan.recipes.residual import Residual


@dataclass(frozen=True, kw_only=True)
class Sngan(Residual):
    recipe: ClassVar[str] = "sngan"
    summary: ClassVar[str] = "residual networks, spectral norm, hinge loss, five steps of D"

    width_g: int = option(256, "channels of the generator", on_cpu=64)
    width_d: int = option(128, "channels of the discriminator", on_cpu=64)
    loss: str = option("hinge", "adversarial loss", choices=tuple(LOSSES))

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.resnet import Discriminator, Generator
        from fastgan.objectives import Adversarial

        return self.built(
            images,
            lambda: {
                "G": Generator(images.size, images.channels, self.latent, self.width_g),
                "D": Discriminator(images.size, images.channels, self.width_d, spectral=True),
            },
            Adversarial(self.loss, (self.latent,), n_critic=self.n_critic),
        )
