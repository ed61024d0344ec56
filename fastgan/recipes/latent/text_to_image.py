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

    data: str = run_option("shapes", "folder or .zip of images with captions, or shapes (drawn)")
    size: int | None = run_option(32, "side of the images in pixels: 8, 16, 32, 64 or 128")
    batch_size: int = run_option(32, "images of a step")
    caption_column: str | None = option(
        None, "column of a table, or of JSON, that holds the captions; default: caption, text, ..."
    )
    only_captioned: bool = option(False, "leave out images without a caption")
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

        return open_captioned(
            self.data,
            size=self.size,
            channels=self.channels,
            strict=self.strict,
            column=self.caption_column,
            only_captioned=self.only_captioned,
        )

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.data.sets.captions import LENGTH, spoken
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
        some = distinct[:: max(1, len(distinct) // PROMPTS)][:PROMPTS]
        prompts = tuple(spoken(caption, words) for caption in some)
        judge = adam(self.lr_d, (self.beta1, self.beta2))
        return RecipeParts(
            nets=nets,
            objective=Matching(self.latent, self.penalty, self.lazy_penalty, prompts),
            optimizers={"G": adam(self.lr_g, (self.beta1, self.beta2)), "D": judge, "T": judge},
            ema=("G", "T"),
        )

    def beside_distances(self, subject: Subject) -> dict[str, float]:
        """Where the images have captions: R-precision, and how often colours, sizes and forms are
        as told, of samples, of held-out reals, and by chance."""
        from fastgan.metrics.captions.following import following

        return following(subject)
