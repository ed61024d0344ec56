"""Semi-supervised learning: a classifier from few labels and many images (Salimans et al. 2016,
arXiv 1606.03498)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fastgan.errors import FastganError
from fastgan.recipes.config import Config, ImageSpec, RecipeParts, load_networks, option, run_option

if TYPE_CHECKING:
    import numpy as np

    from fastgan.data import Dataset
    from fastgan.trainer.reuse.subject import Subject

UNLABELLED = (
    "recipe semi-supervised needs labels of some images: put the images of each class into a "
    "folder of its own, or use --recipe dcgan"
)


@dataclass(frozen=True, kw_only=True)
class SemiSupervisedGan(Config):
    recipe: ClassVar[str] = "semi-supervised"
    summary: ClassVar[str] = "a classifier from few labels and many images without"

    batch_size: int = run_option(100, "images of a step, of each stream")
    steps: int = run_option(6_000, "updates of the generator")
    labels: int = option(100, "images whose labels are used, spread evenly over the classes")
    held_out: float = option(0.2, "share of the images kept apart for the error", below=1)
    width: int = option(250, "units of D's last hidden layers; earlier ones have 4 and 2 times it")
    hidden: int = option(500, "units of the generator's two hidden layers")
    latent: int = option(100, "numbers in a latent vector")
    unlabelled: float = option(1.0, "weight of all that needs no labels; 0 is supervised only")
    entropy: float = option(0.1, "weight of the entropy of the classes of unlabelled images")
    pull_away: float = option(0.0, "weight of the term that keeps generated features apart")
    lr: float = option(1e-3, "learning rate of both networks")
    beta1: float = option(0.5, "Adam's first decay", below=1)

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.semi_supervised import Classifier, Generator
        from fastgan.objectives import SemiSupervised
        from fastgan.trainer.optimization.optimizers import adam

        if images.classes < 2:
            raise FastganError(UNLABELLED)
        w = self.width
        if self.model:
            nets = load_networks(self.model, images, self.latent)
        else:
            nets = {
                "G": Generator(images.size, images.channels, self.latent, self.hidden),
                "D": Classifier(
                    images.size, images.channels, images.classes, (4 * w, 2 * w, w, w, w)
                ),
            }
        return RecipeParts(
            nets=nets,
            objective=SemiSupervised(self.latent, self.unlabelled, self.entropy, self.pull_away),
            optimizers=dict.fromkeys(nets, adam(self.lr, (self.beta1, 0.999))),
            ema=("G", "D"),
        )

    def streams(self, held_out: bool = False) -> dict[str, Dataset]:
        """All images that are not held out, and those of them whose labels are used."""
        from fastgan.data import Dataset as Subset

        dataset = self.open_data()
        if "label" not in dataset.fields:
            raise FastganError(UNLABELLED)
        rest, chosen, apart = self.split(dataset)
        if held_out:
            rest = apart
        images, labels = dataset.array("image"), dataset.array("label")
        return {
            "image": Subset(dataset.name, {"image": images[rest]}, {"image": "image"}),
            "labelled": Subset(
                f"{len(chosen)} labels",
                {"image": images[chosen], "label": labels[chosen]},
                {"image": "image", "label": "label"},
                classes=dataset.classes,
            ),
        }

    def apart(self, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the images to learn from and of the held-out ones; a function of the seed."""
        import numpy as np

        mixed = np.random.default_rng(self.seed).permutation(len(dataset))
        count = int(len(dataset) * self.held_out)
        return mixed[count:], mixed[:count]

    def split(self, dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Indices of the images to learn from, those of them with labels, and the held-out ones; a
        function of the seed."""
        import numpy as np

        labels, (rest, held_out) = dataset.array("label"), self.apart(dataset)
        count = len(dataset.classes or ())
        if self.labels < count:
            raise FastganError(
                f"--labels {self.labels} is less than one for each of {count} classes"
            )
        chosen = []
        for kind, name in enumerate(dataset.classes or ()):
            wanted = (self.labels + count - 1 - kind) // count
            chosen.append(rest[labels[rest] == kind][:wanted])
            if len(chosen[-1]) < wanted:
                raise FastganError(
                    f"class {name} has {len(chosen[-1])} images to learn from, not {wanted}: give "
                    "fewer --labels"
                )
        return rest, np.concatenate(chosen), held_out

    def beside_distances(self, subject: Subject) -> dict[str, float]:
        """The classifier's error on the held-out images, or on all of other data."""
        import numpy as np
        import torch

        from fastgan.data import Dataset

        dataset = subject.reals
        if not subject.labelled:
            return {}
        rest, rows = self.apart(dataset)
        seen = Dataset(dataset.name, {"image": dataset.array("image")[rest]}, {"image": "image"})
        own = seen.fingerprint == subject.learned_from("image")
        if not own:
            rows = np.arange(len(dataset))
        pixels = torch.from_numpy(dataset.array("image")[rows]).permute(0, 3, 1, 2)
        labels = torch.from_numpy(dataset.array("label")[rows])
        D = subject.load("D")
        with torch.no_grad():
            parts = [D(part)[1] for part in (pixels.float() / 127.5 - 1).split(500)]
        if not parts or parts[0].shape[1] != len(dataset.classes or ()):
            return {}
        wrong = (torch.cat(parts).argmax(1) != labels).float().mean()
        return {f"error on {len(labels)} {'held-out' if own else 'other'} images": float(wrong)}
