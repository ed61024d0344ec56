"""Projected GAN: D looks through a network that knows images (Sauer et al. 2021, arXiv
2111.01007)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastgan.errors import FastganError
from fastgan.ops.loss_table import LOSSES
from fastgan.recipes.config import Config, ImageSpec, RecipeParts, option, run_option


@dataclass(frozen=True, kw_only=True)
class Projected(Config):
    recipe: ClassVar[str] = "projected"
    summary: ClassVar[str] = "D looks through a frozen ImageNet network, for few images"
    looks_through: ClassVar[str] = "EffLite0"

    batch_size: int = run_option(16, "images of a step")
    augment: str = run_option(
        "color,translation,cutout", "what changes reals and fakes alike before D sees them"
    )
    latent: int = option(256, "numbers in a latent vector")
    width: int = option(32, "channels of G's map of half of 256 pixels; smaller maps have more")
    heads: int = option(64, "channels of each of D's heads")
    seen: int = option(96, "side in pixels that images are scaled to for D; the paper's is 224")
    loss: str = option("hinge", "adversarial loss", choices=tuple(LOSSES))
    lr: float = option(2e-4, "learning rate of both networks")
    beta1: float = option(0.0, "Adam's first decay", below=1)
    beta2: float = option(0.99, "Adam's second decay", below=1)

    def defaults_for(self) -> tuple[int | None, int | None]:
        return self.size or 64, self.channels

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.fastgan import Generator
        from fastgan.models.frozen.projected import Discriminator
        from fastgan.objectives import Adversarial
        from fastgan.trainer.optimization.optimizers import adam

        self.check_no_model()
        if self.seen < 32:
            raise FastganError(f"--seen {self.seen}: features need at least 32 pixels")
        nets = {
            "D": Discriminator(images.size, images.channels, self.heads, self.seen),
            "G": Generator(images.size, images.channels, self.latent, self.width),
        }
        return RecipeParts(
            nets=nets,
            objective=Adversarial(self.loss, (self.latent, 1, 1)),
            optimizers=dict.fromkeys(nets, adam(self.lr, (self.beta1, self.beta2))),
        )
