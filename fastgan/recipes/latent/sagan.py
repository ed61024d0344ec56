"""SAGAN and a small BigGAN: class-conditional networks with attention, spectral norm in both, two
learning rates (Zhang et al. 2019, arXiv 1805.08318; Brock et al. 2019, arXiv 1809.11096)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fastgan.ops.loss_table import LOSSES
from fastgan.recipes.config import Config, ImageSpec, RecipeParts, load_networks, option, run_option

if TYPE_CHECKING:
    from fastgan.trainer.reuse.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Sagan(Config):
    recipe: ClassVar[str] = "sagan"
    summary: ClassVar[str] = "attention, conditional batch norm, projection discriminator, hinge"
    split: ClassVar[bool] = False

    size: int | None = run_option(32, "side of the images in pixels: 8, 16, 32, 64 or 128")
    steps: int = run_option(20_000, "updates of the generator")
    latent: int = option(128, "numbers in a latent vector")
    width: int = option(32, "channels of the largest map; inner ones double up to 8 times it")
    attention: int = option(16, "side of the map that is attended; none has side 0")
    n_critic: int = option(1, "updates of the discriminator for one of the generator")
    loss: str = option("hinge", "adversarial loss", choices=tuple(LOSSES))
    lr_g: float = option(1e-3, "learning rate of the generator; the paper's is 1e-4")
    lr_d: float = option(1e-3, "learning rate of the discriminator; the paper's is 4e-4")
    beta1: float = option(0.0, "Adam's first decay", below=1)
    beta2: float = option(0.9, "Adam's second decay", below=1)

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.sagan import Discriminator, Generator
        from fastgan.objectives import Adversarial
        from fastgan.trainer.optimization.optimizers import adam

        self.check_labels(images, "sngan")
        if self.model:
            nets = load_networks(self.model, images, self.latent)
        else:
            shape = (images.size, images.channels, images.classes)
            nets = {
                "G": Generator(*shape, self.latent, self.width, self.attention, self.split),
                "D": Discriminator(*shape, self.width, self.attention),
            }
        return RecipeParts(
            nets=nets,
            objective=Adversarial(
                self.loss, (self.latent,), n_critic=self.n_critic, conditional=True
            ),
            optimizers={
                "G": adam(self.lr_g, (self.beta1, self.beta2)),
                "D": adam(self.lr_d, (self.beta1, self.beta2)),
            },
        )

    def beside_distances(self, subject: Subject) -> dict[str, float]:
        from fastgan.recipes.latent.judging import class_accuracy

        return class_accuracy(subject)


@dataclass(frozen=True, kw_only=True)
class BigGanSmall(Sagan):
    recipe: ClassVar[str] = "biggan-small"
    summary: ClassVar[str] = "sagan whose generator is told a part of z at every resolution"
    split: ClassVar[bool] = True

    steps: int = run_option(100_000, "updates of the generator")
    latent: int = option(80, "numbers in a latent vector, shared by the blocks")
    width: int = option(
        48, "channels of the largest map; inner ones double up to 8 times it", on_cpu=16
    )
    n_critic: int = option(2, "updates of the discriminator for one of the generator")
    lr_g: float = option(5e-5, "learning rate of the generator")
    lr_d: float = option(2e-4, "learning rate of the discriminator")
    beta2: float = option(0.999, "Adam's second decay", below=1)
