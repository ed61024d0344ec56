"""InfoGAN: classes and styles found without labels (Chen et al. 2016, arXiv 1606.03657)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fastgan.recipes.config import Config, ImageSpec, RecipeParts, load_networks, option, run_option

if TYPE_CHECKING:
    from fastgan.trainer.reuse.subject import Subject


@dataclass(frozen=True, kw_only=True)
class InfoGan(Config):
    recipe: ClassVar[str] = "infogan"
    summary: ClassVar[str] = "finds classes and styles without labels: codes that D must recognise"

    batch_size: int = run_option(128, "images of a step")
    steps: int = run_option(5_000, "updates of the generator")
    latent: int = option(62, "numbers of plain noise")
    classes: int = option(10, "values of the categorical code")
    codes: int = option(2, "continuous codes, uniform in [-1, 1)")
    base_width: int = option(32, "channels of the outermost layers; inner ones double")
    weight_class: float = option(1.0, "weight of the categorical code's information")
    weight_codes: float = option(0.1, "weight of the continuous codes' information")
    lr_g: float = option(1e-3, "learning rate of the generator")
    lr_d: float = option(2e-4, "learning rate of the discriminator")
    beta1: float = option(0.5, "Adam's first decay", below=1)
    beta2: float = option(0.999, "Adam's second decay", below=1)

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.dcgan import Generator
        from fastgan.models.infogan import CodeDiscriminator
        from fastgan.objectives import Information
        from fastgan.trainer.optimization.optimizers import adam

        inputs = self.latent + self.classes + self.codes
        if self.model:
            nets = load_networks(self.model, images, inputs)
        else:
            nets = {
                "G": Generator(images.size, images.channels, inputs, self.base_width),
                "D": CodeDiscriminator(
                    images.size, images.channels, self.base_width, self.classes, self.codes
                ),
            }
        return RecipeParts(
            nets=nets,
            objective=Information(
                self.latent,
                self.classes,
                self.codes,
                weight_class=self.weight_class,
                weight_codes=self.weight_codes,
            ),
            optimizers={
                "G": adam(self.lr_g, (self.beta1, self.beta2)),
                "D": adam(self.lr_d, (self.beta1, self.beta2)),
            },
            ema=("G", "D"),
        )

    def beside_distances(self, subject: Subject) -> dict[str, float]:
        """The error of the categorical code as a classifier, each value named on half of the images
        and tested on the other, beside that of k-means on the pixels; where images have factors,
        the gap of mutual information of all codes, beside that of principal components. Without
        labels nothing."""
        import torch

        from fastgan.metrics.clusters import cluster_error, gap, k_means, principal

        dataset = subject.reals
        if "label" not in dataset.fields:
            return {}
        D = subject.load("D")
        pixels = torch.from_numpy(dataset.array("image").copy()).permute(0, 3, 1, 2)
        images = pixels.float() / 127.5 - 1
        known = {
            name: torch.from_numpy(dataset.array(name).copy())
            for name, field in dataset.fields.items()
            if field.kind == "label"
        }
        labels = known["label"]
        with torch.no_grad():
            parts = [D(part) for part in images.split(500)]
        kinds = torch.cat([part[1].argmax(1) for part in parts])
        flat = images.flatten(1)
        found = {
            "error of the code": cluster_error(kinds, labels),
            "error of k-means": cluster_error(k_means(flat, self.classes), labels),
        }
        if len(known) > 1 and self.codes:
            codes = torch.cat([kinds[:, None], torch.cat([part[2] for part in parts])], 1)
            factors = torch.stack(list(known.values()), 1)
            found["gap of the codes"] = gap(codes, factors)
            found["gap of principal components"] = gap(principal(flat, self.codes + 1), factors)
        return found
