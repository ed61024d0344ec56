"""Conditional GAN: a DCGAN that is told the class (Mirza & Osindero 2014, arXiv 1411.1784, with
convolutions)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fastgan.recipes.config import ImageSpec, RecipeParts, load_networks
from fastgan.recipes.dcgan import Dcgan

if TYPE_CHECKING:
    from fastgan.trainer.reuse.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Cgan(Dcgan):
    recipe: ClassVar[str] = "cgan"
    summary: ClassVar[str] = "a DCGAN that is told the class of each image"

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.dcgan import ConditionalDiscriminator, ConditionalGenerator
        from fastgan.objectives import Adversarial
        from fastgan.trainer.optimization.optimizers import adam

        self.check_labels(images, "dcgan")
        if self.model:
            nets = load_networks(self.model, images, self.latent)
        else:
            nets = {
                "G": ConditionalGenerator(
                    images.size, images.channels, self.latent, self.base_width, images.classes
                ),
                "D": ConditionalDiscriminator(
                    images.size, images.channels, self.base_width, images.classes
                ),
            }
        return RecipeParts(
            nets=nets,
            objective=Adversarial(
                self.loss, (self.latent, 1, 1), r1=self.r1, lazy_r1=self.lazy_r1, conditional=True
            ),
            optimizers={
                "G": adam(self.lr_g, (self.beta1, self.beta2)),
                "D": adam(self.lr_d, (self.beta1, self.beta2)),
            },
        )

    def beside_distances(self, subject: Subject) -> dict[str, float]:
        from fastgan.recipes.latent.judging import class_accuracy

        return class_accuracy(subject)
