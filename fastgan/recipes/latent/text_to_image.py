"""Text to image: a small DF-GAN with a text encoder of its own (Tao et al. 2022, arXiv
2008.05865)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fastgan.errors import FastganError
from fastgan.recipes.config import Config, ImageSpec, RecipeParts, option, run_option

if TYPE_CHECKING:
    from fastgan.data.sets.captions import Captioned
    from fastgan.trainer.reuse.subject import Subject

PROMPTS = 256
"""Captions of the data that a run keeps, for samples without --text."""


@dataclass(frozen=True, kw_only=True)
class TextToImage(Config):
    recipe: ClassVar[str] = "text-to-image"
    summary: ClassVar[str] = "images from captions: hinge, mismatched captions, gradient penalty"
    generated: ClassVar[tuple[str, ...]] = ("shapes",)

    data: str = run_option("shapes", "folder of images with captions, or shapes (drawn)")
    size: int | None = run_option(32, "side of the images in pixels: 8, 16, 32, 64 or 128")
    batch_size: int = run_option(32, "images of a step")
    latent: int = option(32, "numbers in a latent vector")
    features: int = option(64, "numbers that a text becomes")
    encoder: str = option("bag", "mean of word vectors, or a GRU over them", choices=("bag", "gru"))
    width: int = option(16, "channels of the largest map; inner ones double up to 8 times it")
    penalty: float = option(2.0, "weight of the matching-aware gradient penalty")
    lazy_penalty: int = option(4, "steps between penalties")
    lr_g: float = option(1e-4, "learning rate of the generator")
    lr_d: float = option(4e-4, "learning rate of discriminator and text encoder")
    beta1: float = option(0.0, "Adam's first decay", below=1)
    beta2: float = option(0.9, "Adam's second decay", below=1)

    def open_data(self) -> Captioned:
        from fastgan.data.sets.captions import open_captioned

        return open_captioned(self.data, size=self.size, channels=self.channels, strict=self.strict)

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.data.sets.captions import LENGTH
        from fastgan.models.text import TextDiscriminator, TextEncoder, TextGenerator
        from fastgan.objectives import Matching
        from fastgan.trainer.optimization.optimizers import adam

        if self.model:
            raise FastganError("recipe text-to-image builds its own networks: leave --model out")
        if not images.captions:
            raise FastganError("recipe text-to-image needs captions: see docs/kinds")
        words = dict.fromkeys(images.words)
        shape = (images.size, images.channels)
        nets = {
            "G": TextGenerator(*shape, self.latent, self.features, self.width),
            "D": TextDiscriminator(*shape, self.features, self.width),
            "T": TextEncoder(tuple(words), LENGTH, self.features, self.encoder == "gru"),
        }
        distinct = list(dict.fromkeys(images.captions))
        prompts = tuple(distinct[:: max(1, len(distinct) // PROMPTS)][:PROMPTS])
        judge = adam(self.lr_d, (self.beta1, self.beta2))
        return RecipeParts(
            nets=nets,
            objective=Matching(self.latent, self.penalty, self.lazy_penalty, prompts),
            optimizers={"G": adam(self.lr_g, (self.beta1, self.beta2)), "D": judge, "T": judge},
            ema=("G", "T"),
        )

    def beside_distances(self, subject: Subject) -> dict[str, float]:
        """R-precision of samples of the data's captions and of held-out reals, beside chance."""
        import torch

        from fastgan.data.sets.captions import Captioned
        from fastgan.metrics import retrieval

        dataset = subject.reals
        if not isinstance(dataset, Captioned):
            return {}
        tokens = torch.from_numpy(dataset.array("tokens"))
        reals = torch.from_numpy(dataset.array("image").copy()).permute(0, 3, 1, 2)
        order = torch.randperm(len(reals), generator=torch.Generator().manual_seed(0))
        apart, rest = order[: len(order) // 10], order[len(order) // 10 :]
        if len(apart) < 10 or len(rest) < 64:
            return {}
        judge = retrieval.fit(reals[rest], tokens[rest], words=len(dataset.words))
        distinct = tokens.unique(dim=0)
        told = apart[:500]
        made = subject.sample(len(told), text=[dataset.captions[i] for i in told])
        count = min(retrieval.CANDIDATES, len(distinct))
        return {
            f"R-precision of samples, 1 of {count}": retrieval.r_precision(
                judge, made, tokens[told], distinct
            ),
            "R-precision of held-out reals": retrieval.r_precision(
                judge, reals[told].float() / 255, tokens[told], distinct
            ),
            "chance": 1 / count,
        }
