"""LAPGAN: small images first, then the detail of each doubling (Denton et al. 2015, arXiv
1506.05751)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from fastgan.errors import FastganError
from fastgan.recipes.config import Config, ImageSpec, RecipeParts, option, run_option

if TYPE_CHECKING:
    from fastgan.trainer.reuse.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Lapgan(Config):
    recipe: ClassVar[str] = "lapgan"
    summary: ClassVar[str] = "small images, then a network for the detail of each doubling"

    size: int | None = run_option(32, "side of the images in pixels, a multiple of 2^(levels - 1)")
    steps: int = run_option(9_000, "updates of the generators, of all levels together")
    levels: int = option(3, "resolutions; 3 of 32 pixels are 8, 16 and 32")
    stage_steps: int | None = option(
        None, "steps of each level but the last; default: equal parts of --steps"
    )
    latent: int = option(100, "numbers in a latent vector of the smallest level")
    hidden: int = option(400, "units of its two perceptrons' hidden layers")
    width: int = option(32, "channels of the convolutional networks of the other levels")
    lr_first: float = option(1e-3, "learning rate of its perceptrons")
    lr: float = option(2e-4, "learning rate of the networks of the other levels")
    beta1: float = option(0.5, "Adam's first decay", below=1)

    def settled(self) -> Self:
        """stage_steps becomes a number, so that --resume --steps lengthens the last level."""
        return replace(self, stage_steps=self.stage_steps or max(self.steps // self.levels, 1))

    def build(self, images: ImageSpec) -> RecipeParts:
        from torch import nn

        from fastgan.models import mlp
        from fastgan.models.lapgan import DetailDiscriminator, DetailGenerator
        from fastgan.objectives import Adversarial, Detail
        from fastgan.trainer.optimization.optimizers import adam
        from fastgan.trainer.stages.stage import Stage

        if self.model:
            raise FastganError("recipe lapgan builds its own pyramid: leave --model out")
        smallest, rest = divmod(images.size, 2 ** (self.levels - 1))
        if rest or smallest < 4:
            raise FastganError(
                f"{self.levels} levels don't fit {images.size} pixels: use --size "
                f"{max(smallest, 4) * 2 ** (self.levels - 1)} or fewer --levels"
            )
        stages, generators = [], dict[str, nn.Module]()
        for level in range(self.levels):
            side = smallest * 2**level
            judge: nn.Module
            if level:
                generators[f"G{level}"] = DetailGenerator(images.channels, self.width)
                judge = DetailDiscriminator(side, images.channels, self.width)
            else:
                generators["G"] = mlp.Generator(side, images.channels, self.latent, self.hidden)
                judge = mlp.Discriminator(side, images.channels, self.hidden // 2, 2, 0.3)
            stages.append(
                Stage(
                    {**generators, f"D{level or ''}": judge},
                    Detail(level, side, self.latent)
                    if level
                    else Adversarial(latent_shape=(self.latent,), latent="uniform"),
                    steps=self.settled().stage_steps if level < self.levels - 1 else None,
                    data=self.data,
                    size=side,
                    channels=images.channels,
                    optimizers=adam(self.lr if level else self.lr_first, (self.beta1, 0.999)),
                    ema=tuple(generators),
                )
            )
        return RecipeParts(stages=stages)

    def beside_distances(self, subject: Subject) -> dict[str, float]:
        from fastgan.recipes.latent.judging import called_real

        return called_real(subject)
