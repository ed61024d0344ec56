"""DCGAN: all-convolutional networks with batch normalisation (Radford, Metz, Chintala 2016, arXiv
1511.06434)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastgan.ops.loss_table import LOSSES
from fastgan.recipes.config import Config, ImageSpec, RecipeParts, load_networks, option


@dataclass(frozen=True, kw_only=True)
class Dcgan(Config):
    recipe: ClassVar[str] = "dcgan"
    summary: ClassVar[str] = "convolutions and batch normalisation, 28 to 256 pixels"

    latent: int = option(100, "numbers in a latent vector")
    base_width: int = option(64, "channels of the outermost layers; inner ones double")
    loss: str = option("non-saturating", "adversarial loss", choices=tuple(LOSSES))
    r1: float = option(0.0, "gamma of the R1 penalty; 0 is off")
    lazy_r1: int = option(1, "steps between R1 penalties")
    lr_g: float = option(2e-4, "learning rate of the generator")
    lr_d: float = option(2e-4, "learning rate of the discriminator")
    beta1: float = option(0.5, "Adam's first decay", below=1)
    beta2: float = option(0.999, "Adam's second decay", below=1)

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.dcgan import Discriminator, Generator
        from fastgan.objectives import Adversarial
        from fastgan.trainer.optimization.optimizers import adam

        if self.model:
            nets = load_networks(self.model, images, self.latent)
        else:
            nets = {
                "G": Generator(images.size, images.channels, self.latent, self.base_width),
                "D": Discriminator(images.size, images.channels, self.base_width),
            }
        return RecipeParts(
            nets=nets,
            objective=Adversarial(self.loss, (self.latent, 1, 1), r1=self.r1, lazy_r1=self.lazy_r1),
            optimizers={
                "G": adam(self.lr_g, (self.beta1, self.beta2)),
                "D": adam(self.lr_d, (self.beta1, self.beta2)),
            },
        )
