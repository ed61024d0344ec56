"""Progressive growing: each resolution is trained and then doubled (Karras et al. 2018, arXiv
1710.10196)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from fastgan.errors import FastganError
from fastgan.ops.loss_table import LOSSES
from fastgan.recipes.config import Config, ImageSpec, RecipeParts, option, run_option

LEVELS = {4 * 2**level: level for level in range(1, 7)}


@dataclass(frozen=True, kw_only=True)
class Progressive(Config):
    recipe: ClassVar[str] = "progressive"
    summary: ClassVar[str] = "grows from 4x4 pixels, new resolutions fade in"

    size: int | None = run_option(32, "side of the images in pixels: 8, 16, 32, 64, 128 or 256")
    steps: int = run_option(12_000, "updates of the generator, of all resolutions together")
    stage_steps: int | None = option(
        None, "steps of each resolution but the last; default: equal parts of --steps"
    )
    fade: float = option(0.5, "share of them in which a new resolution fades in", most=1)
    latent: int = option(128, "numbers in a latent vector")
    width: int = option(16, "channels of the largest map, at least")
    most: int = option(64, "channels of the maps of 4x4 and 8x8; outer ones halve")
    loss: str = option("wasserstein", "adversarial loss", choices=tuple(LOSSES))
    gp: float = option(10.0, "weight of the gradient penalty between reals and fakes")
    r1: float = option(0.0, "gamma of the R1 penalty; 0 is off")
    drift: float = option(1e-3, "weight of the squared logits of reals")
    lr: float = option(1e-3, "learning rate of both networks")
    beta1: float = option(0.0, "Adam's first decay", below=1)
    beta2: float = option(0.99, "Adam's second decay", below=1)

    def settled(self) -> Self:
        """stage_steps becomes a number, so that --resume --steps lengthens the last resolution."""
        if self.size not in LEVELS:
            raise FastganError(
                f"progressive makes images of 8, 16, 32, 64, 128 or 256 pixels, not {self.size}: "
                "use --size 32"
            )
        parts = LEVELS[self.size] + 1
        return replace(self, stage_steps=self.stage_steps or max(self.steps // parts, 1))

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.progressive import Discriminator, Generator, carry
        from fastgan.objectives import Growing
        from fastgan.trainer.optimization.optimizers import adam
        from fastgan.trainer.stages.stage import Stage

        if self.model:
            raise FastganError("recipe progressive grows its own networks: leave --model out")
        stages, each = [], self.settled().stage_steps or 1
        last = LEVELS[images.size]
        for level in range(last + 1):
            shape = (self.width, self.most)
            nets = {
                "G": Generator(level, images.channels, self.latent, *shape),
                "D": Discriminator(level, images.channels, *shape),
            }
            objective = Growing(
                self.loss,
                (self.latent,),
                gp=self.gp,
                r1=self.r1,
                drift=self.drift,
                fade_steps=max(round(self.fade * each), 1) if level else 0,
            )
            stages.append(
                Stage(
                    nets,
                    objective,
                    steps=each if level < last else None,
                    data=self.data,
                    size=4 * 2**level,
                    channels=images.channels,
                    optimizers=adam(self.lr, (self.beta1, self.beta2)),
                    carry=carry,
                )
            )
        return RecipeParts(stages=stages)
