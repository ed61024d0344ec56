"""SNGAN: residual networks with spectral normalisation and the hinge loss (Miyato et al. 2018, arXiv 1802.05957, CIFAR-10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastgan.recipes.base import Built, Config, Images, load_networks, option, run_option


@dataclass(frozen=True, kw_only=True)
class Sngan(Config):
    recipe: ClassVar[str] = "sngan"
    summary: ClassVar[str] = "residual networks, spectral norm, hinge loss, five steps of D"

    size: int | None = run_option(32, "side of the images in pixels: 8, 16, 32, 64 or 128")
    steps: int = run_option(100_000, "updates of the generator")
    latent: int = option(128, "numbers in a latent vector")
    width_g: int = option(256, "channels of the generator")
    width_d: int = option(128, "channels of the discriminator")
    loss: str = option(
        "hinge", "adversarial loss", choices=("hinge", "non-saturating", "wasserstein", "least-squares", "relativistic")
    )
    n_critic: int = option(5, "updates of the discriminator for one of the generator")
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
                "G": Generator(images.size, images.channels, self.latent, self.width_g),
                "D": Discriminator(images.size, images.channels, self.width_d, spectral=True),
            }
        return Built(
            nets=nets,
            objective=Adversarial(self.loss, (self.latent,), n_critic=self.n_critic),
            optimizers=dict.fromkeys(nets, adam(self.lr, (self.beta1, self.beta2))),
            schedules={name: {"lr": Linear(self.lr, 0.0, self.steps)} for name in nets},
        )
