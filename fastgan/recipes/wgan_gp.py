"""WGAN-GP: residual networks, a critic without normalisation, a gradient penalty (Gulrajani et al.

2017, arXiv 1704.00028, CIFAR-10).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastgan.recipes.base import Built, Config, Images, load_networks, option, run_option


@dataclass(frozen=True, kw_only=True)
class WganGp(Config):
    recipe: ClassVar[str] = "wgan-gp"
    summary: ClassVar[str] = "residual networks, Wasserstein loss with gradient penalty, five steps of the critic"

    size: int | None = run_option(32, "side of the images in pixels: 8, 16, 32, 64 or 128")
    steps: int = run_option(100_000, "updates of the generator")
    latent: int = option(128, "numbers in a latent vector")
    width: int = option(128, "channels of both networks")
    gp: float = option(10.0, "weight of the gradient penalty")
    n_critic: int = option(5, "updates of the critic for one of the generator")
    lr: float = option(2e-4, "learning rate of both networks, falling linearly to 0 over all steps")
    beta1: float = option(0.0, "Adam's first decay")
    beta2: float = option(0.9, "Adam's second decay")

    def build(self, images: Images) -> Built:
        from fastgan.engine.optim import adam
        from fastgan.models.resnet import Discriminator, Generator
        from fastgan.objectives import Adversarial, Linear

        if self.model:
            nets = load_networks(self.model, images, self.latent)
        else:
            nets = {
                "G": Generator(images.size, images.channels, self.latent, self.width),
                "D": Discriminator(images.size, images.channels, self.width, spectral=False),
            }
        return Built(
            nets=nets,
            objective=Adversarial("wasserstein", (self.latent,), gp=self.gp, n_critic=self.n_critic),
            optimizers=dict.fromkeys(nets, adam(self.lr, (self.beta1, self.beta2))),
            schedules={name: {"lr": Linear(self.lr, 0.0, self.steps)} for name in nets},
        )
