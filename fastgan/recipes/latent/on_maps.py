"""A GAN on the maps of an autoencoder (two stages as in latent diffusion, Rombach et al. 2022,
arXiv 2112.10752, section 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from fastgan.errors import FastganError
from fastgan.ops.loss_table import LOSSES
from fastgan.recipes.config import Config, ImageSpec, RecipeParts, option, run_option

if TYPE_CHECKING:
    from fastgan.trainer.reuse.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Latent(Config):
    recipe: ClassVar[str] = "latent"
    summary: ClassVar[str] = "an autoencoder, then a GAN on its maps, for 16 to 128 pixels"

    steps: int = run_option(4000, "updates of the autoencoder and of the generator, together")
    batch_size: int = run_option(16, "images of a step")
    ema_decay: float = run_option(0.995, "decay of the averaged generator")
    stage_steps: int | None = option(
        None, "steps of the autoencoder; default: a quarter of --steps"
    )
    maps: int = option(8, "channels of a map; its side is an eighth of the image's, or 8")
    blur: float = option(0.1, "noise on maps, which have unit variance")
    latent: int = option(64, "numbers in a latent vector")
    width: int = option(32, "channels of the autoencoder's outermost layers; inner ones have twice")
    base: int = option(64, "channels of the largest map in the generator and the discriminator")
    loss: str = option("hinge", "adversarial loss", choices=tuple(LOSSES))
    r1: float = option(0.0, "gamma of the R1 penalty on maps; 0 is off")
    lr_first: float = option(1e-3, "learning rate of the autoencoder, which falls to 0")
    lr_g: float = option(4e-4, "learning rate of the generator")
    lr_d: float = option(4e-4, "learning rate of the discriminator")
    beta1: float = option(0.5, "Adam's first decay for both", below=1)
    beta2: float = option(0.99, "Adam's second decay for both", below=1)

    def settled(self) -> Self:
        """stage_steps becomes a number, so that --resume --steps lengthens the GAN's stage."""
        return replace(self, stage_steps=self.stage_steps or max(self.steps // 4, 1))

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.frozen import autoencoder as models
        from fastgan.objectives import Autoencoding, Linear, OnMaps
        from fastgan.objectives.staged.autoencoding import carry
        from fastgan.trainer.optimization.optimizers import adam
        from fastgan.trainer.stages.stage import Stage

        if self.model:
            raise FastganError("recipe latent builds its own networks: leave --model out")
        side, _ = models.plan(images.size)
        shape = (images.size, images.channels, self.maps, self.width)
        first = self.settled().stage_steps or 1
        falling = {"lr": Linear(self.lr_first, 0.0, first)}
        betas = (self.beta1, self.beta2)
        return RecipeParts(
            stages=[
                Stage(
                    {"encoder": models.Encoder(*shape), "G": models.Decoder(*shape)},
                    Autoencoding((self.maps, side, side), self.blur),
                    steps=first,
                    optimizers=adam(self.lr_first, (0.9, 0.999)),
                    schedules={"encoder": falling, "G": falling},
                    ema=(),
                ),
                Stage(
                    {
                        "encoder": models.FrozenEncoder(*shape),
                        "G": models.Generator(*shape, self.latent, self.base),
                        "D": models.MapDiscriminator(images.size, self.maps, self.base),
                    },
                    OnMaps(self.loss, (self.latent,), r1=self.r1, blur=self.blur),
                    optimizers={"G": adam(self.lr_g, betas), "D": adam(self.lr_d, betas)},
                    carry=carry,
                ),
            ]
        )

    def beside_distances(self, subject: Subject) -> dict[str, float]:
        from fastgan.recipes.latent.judging import reconstruction

        return reconstruction(subject)
