"""StyleGAN2, small: styles, modulated convolutions, lazy R1 and even paths (Karras et al. 2020,
arXiv 1912.04958)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fastgan.recipes.config import Config, ImageSpec, RecipeParts, load_networks, option, run_option

if TYPE_CHECKING:
    from fastgan.trainer.reuse.subject import Subject


@dataclass(frozen=True, kw_only=True)
class StyleGan2Small(Config):
    recipe: ClassVar[str] = "stylegan2-small"
    summary: ClassVar[str] = "styles, modulated convolutions, lazy R1 and path lengths"

    size: int | None = run_option(32, "side of the images in pixels: 8, 16, 32, 64 or 128")
    batch_size: int = run_option(32, "images of a step")
    steps: int = run_option(50_000, "updates of the generator")
    latent: int = option(64, "numbers in a latent vector and in a style")
    mapping: int = option(2, "layers from latent vector to style; the paper's have 8")
    width: int = option(16, "channels of the largest map, at least")
    most: int = option(128, "channels of the maps of 4x4 and 8x8; outer ones halve")
    mixing: float = option(0.9, "share of images with styles of two latent vectors", most=1)
    r1: float = option(0.1, "gamma of the R1 penalty; 0.0002 size^2 / batch size in StyleGAN2-ADA")
    lazy_r1: int = option(16, "steps between R1 penalties")
    path: float = option(2.0, "weight of even path lengths; 0 is off")
    lazy_path: int = option(4, "steps between them")
    lr: float = option(2.5e-3, "learning rate of both networks")
    beta2: float = option(0.99, "Adam's second decay; the first is 0", below=1)

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.stylegan2 import Discriminator, Generator
        from fastgan.objectives.style import Style
        from fastgan.trainer.optimization.optimizers import adam

        shape = (self.width, self.most)
        nets = (
            load_networks(self.model, images, self.latent)
            if self.model
            else {
                "G": Generator(images.size, images.channels, self.latent, *shape, self.mapping),
                "D": Discriminator(images.size, images.channels, *shape),
            }
        )
        lazy = {"G": self.lazy_path if self.path else 0, "D": self.lazy_r1 if self.r1 else 0}
        share = {name: k / (k + 1) if k else 1.0 for name, k in lazy.items()}  # appendix B
        return RecipeParts(
            nets=nets,
            objective=Style(
                "non-saturating",
                (self.latent,),
                r1=self.r1,
                lazy_r1=self.lazy_r1,
                mixing=self.mixing,
                path=self.path,
                lazy_path=self.lazy_path,
            ),
            optimizers={n: adam(self.lr * c, (0.0, self.beta2**c)) for n, c in share.items()},
        )

    def beside_distances(self, subject: Subject) -> dict[str, float]:
        from fastgan.recipes.latent.judging import order_of_styles

        return order_of_styles(subject)
