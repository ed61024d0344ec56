"""What the recipes on residual networks share: options, Adam's numbers, a learning rate that falls
to 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastgan.recipes.config import Config, ImageSpec, RecipeParts, load_networks, option, run_option

if TYPE_CHECKING:
    from torch import nn

    from fastgan.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class Residual(Config):
    """Base of sngan and wgan-gp: both papers train Miyato's and Gulrajani's CIFAR networks with the
    same schedule."""

    size: int | None = run_option(32, "side of the images in pixels: 8, 16, 32, 64 or 128")
    steps: int = run_option(100_000, "updates of the generator")
    latent: int = option(128, "numbers in a latent vector")
    n_critic: int = option(5, "updates of the discriminator for one of the generator")
    lr: float = option(2e-4, "learning rate of both networks, falling linearly to 0 over all steps")
    beta1: float = option(0.0, "Adam's first decay", below=1)
    beta2: float = option(0.9, "Adam's second decay", below=1)

    def built(
        self, images: ImageSpec, networks: Callable[[], dict[str, nn.Module]], objective: Objective
    ) -> RecipeParts:
        """The recipe's own networks, or those of --model, with the shared optimisers and
        schedules."""
        from fastgan.objectives import Linear
        from fastgan.trainer.optimization.optimizers import adam

        nets = load_networks(self.model, images, self.latent) if self.model else networks()
        return RecipeParts(
            nets=nets,
            objective=objective,
            optimizers=dict.fromkeys(nets, adam(self.lr, (self.beta1, self.beta2))),
            schedules={name: {"lr": Linear(self.lr, 0.0, self.steps)} for name in nets},
        )
