"""The original GAN: multilayer perceptrons, SGD with rising momentum (Goodfellow et al. 2014, arXiv
1406.2661)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from fastgan.recipes.config import Config, ImageSpec, RecipeParts, load_networks, option, run_option

if TYPE_CHECKING:
    from fastgan.trainer.reuse.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Gan(Config):
    recipe: ClassVar[str] = "gan"
    summary: ClassVar[str] = "the multilayer perceptrons of 2014, small grey images"

    batch_size: int = run_option(100, "images of a step")
    latent: int = option(100, "numbers in a latent vector")
    hidden_g: int = option(1200, "units of each of the generator's two hidden layers")
    hidden_d: int = option(240, "maxout units of each of the discriminator's two hidden layers")
    pieces: int = option(5, "affine pieces of a maxout unit")
    dropout: float = option(0.5, "share of the discriminator's hidden units dropped", below=1)
    lr: float = option(0.1, "learning rate at the start; the discriminator's is half of it")
    lr_decay: float = option(
        1.000004, "the learning rate is divided by this at every step", least=1, below=2
    )
    lr_min: float = option(1e-6, "the learning rate never falls below this")
    momentum: float = option(0.5, "momentum at the start", below=1)
    momentum_end: float = option(0.7, "momentum at the end of its rise", below=1)
    momentum_steps: int = option(
        150_000, "steps of that rise (250 epochs of 60,000 images at batch 100)"
    )

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.mlp import Discriminator, Generator
        from fastgan.objectives import Adversarial, Exponential, Linear
        from fastgan.trainer.optimization.optimizers import SGD

        if self.model:
            nets = load_networks(self.model, images, self.latent)
        else:
            nets = {
                "G": Generator(images.size, images.channels, self.latent, self.hidden_g),
                "D": Discriminator(
                    images.size, images.channels, self.hidden_d, self.pieces, self.dropout
                ),
            }
        # The original's D minimises half the sum of its two losses, ours the sum: at SGD, half the
        # learning rate is the same, and the whole of it diverges.
        share = {name: 0.5 if name == "D" else 1.0 for name in nets}
        momentum = Linear(self.momentum, self.momentum_end, self.momentum_steps)
        schedules: dict[str, dict[str, Callable[[int], float]]] = {
            name: {
                "lr": Exponential(share[name] * self.lr, self.lr_decay, share[name] * self.lr_min),
                "momentum": momentum,
            }
            for name in nets
        }
        return RecipeParts(
            nets=nets,
            objective=Adversarial("non-saturating", (self.latent,), latent="uniform", reuse=False),
            optimizers={
                name: partial(SGD, lr=share[name] * self.lr, momentum=self.momentum)
                for name in nets
            },
            schedules=schedules,
        )

    def beside_distances(self, subject: Subject) -> dict[str, float]:
        """The share of samples that pass for real: what LAPGAN's article compares the two by."""
        from fastgan.recipes.latent.judging import called_real

        return called_real(subject)
