"""R3GAN: relativistic pairing with R1 and R2 on residual grouped networks (Huang et al. 2024, arXiv
2501.05441)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastgan.recipes.config import Config, ImageSpec, RecipeParts, load_networks, option, run_option


@dataclass(frozen=True, kw_only=True)
class R3Gan(Config):
    recipe: ClassVar[str] = "r3gan"
    summary: ClassVar[str] = "relativistic loss with R1 and R2, residual grouped networks"

    steps: int = run_option(20_000, "updates of the generator")
    latent: int = option(64, "numbers in a latent vector")
    width: int = option(16, "channels of the largest map; inner ones double")
    blocks: int = option(1, "residual blocks of each map; the article's have 2")
    group: int = option(16, "channels of a group of the 3x3 convolutions")
    heads: int = option(0, "heads of cosine attention on maps up to 16x16 (R3GAN2); 0: none")
    magnitude: bool = option(False, "weights of length 1 (magnitude-preserving, R3GAN2)")
    gamma: float = option(1.0, "weight of R1 and of R2 at the start")
    gamma_end: float = option(0.1, "their weight at the end of its fall")
    perturb: float = option(
        0.0, "R1 and R2 by noise of this size, without second derivatives; 0: exact"
    )
    lr: float = option(2e-4, "learning rate of both networks at the start")
    lr_end: float = option(5e-5, "learning rate at the end of its fall")
    anneal_steps: int = option(20_000, "steps of these falls, half a cosine")
    beta1: float = option(0.0, "Adam's first decay", below=1)
    beta2: float = option(0.99, "Adam's second decay", below=1)

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.r3gan import Discriminator, Generator
        from fastgan.objectives import Adversarial, Cosine
        from fastgan.trainer.optimization.optimizers import adam

        if self.model:
            nets = load_networks(self.model, images, self.latent)
        else:
            shape = (self.width, self.blocks, self.group, self.heads, self.magnitude)
            nets = {
                "G": Generator(images.size, images.channels, self.latent, *shape),
                "D": Discriminator(images.size, images.channels, *shape),
            }
        rate = Cosine(self.lr, self.lr_end, self.anneal_steps)
        return RecipeParts(
            nets=nets,
            objective=Adversarial(
                "relativistic",
                (self.latent,),
                r1=1.0,
                r2=1.0,
                gamma=Cosine(self.gamma, self.gamma_end, self.anneal_steps),
                reuse=False,
                perturb=self.perturb,
            ),
            optimizers=dict.fromkeys(nets, adam(self.lr, (self.beta1, self.beta2))),
            schedules={name: {"lr": rate} for name in nets},
        )
