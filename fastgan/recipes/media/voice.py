"""Sounds: short windows of a voice (Donahue et al. 2019, "WaveGAN", arXiv 1802.04208)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fastgan.errors import FastganError
from fastgan.ops.loss_table import LOSSES
from fastgan.recipes.config import Config, ImageSpec, RecipeParts, option, run_option

if TYPE_CHECKING:
    from fastgan.data import Dataset
    from fastgan.data.sounds.windows import Sounds


@dataclass(frozen=True, kw_only=True)
class Voice(Config):
    recipe: ClassVar[str] = "voice"
    summary: ClassVar[str] = "short sounds: WaveGAN's convolutions and phase shuffle, R1"
    generated: ClassVar[tuple[str, ...]] = ("vowels",)
    makes: ClassVar[str] = "sounds"
    without: ClassVar[tuple[str, ...]] = (
        *("size", "channels", "augment", "augment_p", "model", "flip", "evaluate_every"),
    )

    data: str = run_option("vowels", "a folder of WAV files, or vowels, which are drawn here")
    length: int = option(4096, "samples of a sound: 1024, 4096 or 16384")
    rate: int = option(8000, "samples a second, to which files are brought", least=1000)
    steps: int = run_option(3000, "updates of the generator")
    batch_size: int = run_option(32, "sounds of a step")
    held_out: float = option(0.2, "share of the files kept from training", below=0.51)
    latent: int = option(100, "numbers in a latent vector")
    width: int = option(8, "channels of the layer next to the sound; inner ones double")
    shuffle: int = option(2, "samples that the critic's maps are moved by; 0: none", least=0)
    loss: str = option(
        "non-saturating", "adversarial loss", choices=tuple(LOSSES), before="wasserstein"
    )
    gp: float = option(0.0, "weight of the gradient penalty between reals and fakes")
    r1: float = option(0.3, "gamma of the R1 penalty; 0 is off", before=0.0)
    n_critic: int = option(1, "updates of the critic for one of the generator")
    lr: float = option(1e-3, "learning rate of both networks")
    beta1: float = option(0.0, "Adam's first decay", below=1)
    beta2: float = option(0.99, "Adam's second decay", below=1)

    def sounds(self, data: str | None = None) -> Sounds:
        """The windows of --data, or of other files. Raises FastganError."""
        from fastgan.data.sounds.windows import open_sounds

        return open_sounds(data or self.data, self.length, self.rate, strict=self.strict)

    def streams(self, held_out: bool = False) -> dict[str, Dataset]:
        from fastgan.data.sounds.windows import split

        return {"image": split(self.sounds(), self.held_out)[held_out]}

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.data.sounds.windows import Sounds
        from fastgan.media.sounds import Sound
        from fastgan.models.media.waves import Critic, Generator
        from fastgan.objectives.media.waves import Waves
        from fastgan.trainer.optimization.optimizers import adam

        if not isinstance(images.data, Sounds):
            raise FastganError("recipe voice needs sounds: see docs/kinds/voice.md")
        nets = {
            "G": Generator(self.length, self.latent, self.width),
            "D": Critic(self.length, self.width, self.shuffle),
        }
        return RecipeParts(
            nets=nets,
            objective=Waves(
                self.loss,
                (self.latent,),
                gp=self.gp,
                r1=self.r1,
                n_critic=self.n_critic,
                medium=Sound(images.data.rate),
            ),
            optimizers=dict.fromkeys(nets, adam(self.lr, (self.beta1, self.beta2))),
        )

    def measure(self, run: str, n: int, seed: int, data: str | None, trust: bool) -> Any:
        import torch

        from fastgan.data.sounds.windows import split
        from fastgan.metrics.sounds import measure
        from fastgan.trainer.reuse.load import samples_of

        def floats(sounds: Dataset) -> torch.Tensor:
            return torch.from_numpy(sounds.array("image")[:, 0]).float() / 32767

        train, held_out = split(self.sounds(), self.held_out)
        apart = floats(held_out if data is None else self.sounds(data))
        if len(apart) < 40:
            raise FastganError(
                f"{run} has {len(apart)} held-out sounds, too few to measure against: name others "
                "with --data"
            )
        count = min(n, len(apart) // 2)
        made, untrained = samples_of(run, count, seed=seed, trust=trust)
        return measure(
            run,
            made[:, 0],
            untrained[:, 0] if untrained is not None else None,
            apart,
            floats(train),
            self.rate,
            seed,
        )
