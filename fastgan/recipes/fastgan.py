"""FastGAN for few images: skip-layer excitation, a D that can draw what it saw, DiffAugment (Liu et
al. 2021, arXiv 2101.04775)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastgan.ops.loss_table import LOSSES
from fastgan.recipes.config import Config, ImageSpec, RecipeParts, option, run_option


@dataclass(frozen=True, kw_only=True)
class Fastgan(Config):
    recipe: ClassVar[str] = "fastgan"
    summary: ClassVar[str] = "light networks for few images, 32 to 256 pixels"

    batch_size: int = run_option(8, "images of a step")
    augment: str = run_option(
        "color,translation,cutout", "what changes reals and fakes alike before D sees them"
    )
    latent: int = option(256, "numbers in a latent vector")
    width: int = option(
        64, "channels of a map of half of 256 pixels; smaller maps have more", on_cpu=8
    )
    loss: str = option("hinge", "adversarial loss", choices=tuple(LOSSES))
    reconstruction: float = option(1.0, "weight of drawing reals from D's features")
    r1: float = option(0.0, "gamma of the R1 penalty; 0 is off")
    lazy_r1: int = option(1, "steps between R1 penalties")
    lr: float = option(2e-4, "learning rate of all networks")
    beta1: float = option(0.5, "Adam's first decay", below=1)
    beta2: float = option(0.999, "Adam's second decay", below=1)

    def defaults_for(self) -> tuple[int | None, int | None]:
        return self.size or 64, self.channels

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.fastgan import Decoder, Discriminator, Generator
        from fastgan.objectives import Reconstructing
        from fastgan.trainer.optimization.optimizers import adam

        self.check_no_model()
        nets = {
            "G": Generator(images.size, images.channels, self.latent, self.width),
            "D": Discriminator(images.size, images.channels, self.width),
            "R": Decoder(images.channels, self.width),
        }
        objective = Reconstructing(
            self.loss,
            (self.latent, 1, 1),
            r1=self.r1,
            lazy_r1=self.lazy_r1,
            reconstruction=self.reconstruction,
        )
        return RecipeParts(
            nets=nets,
            objective=objective,
            optimizers=dict.fromkeys(nets, adam(self.lr, (self.beta1, self.beta2))),
        )
