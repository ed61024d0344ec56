"""Aging: a face in another age group, the same person (after IPCGAN, Wang et al. 2018, and StarGAN,
Choi et al. 2018, arXiv 1711.09020)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fastgan.errors import FastganError
from fastgan.ops.loss_table import LOSSES
from fastgan.recipes.config import ImageSpec, RecipeParts, option, run_option
from fastgan.recipes.translation.base import FromImage, open_inputs

if TYPE_CHECKING:
    from fastgan.data import Dataset

BOUNDS = (13, 25, 40, 60)
"""Years in which a new age group begins, where ages stand in file names."""


@dataclass(frozen=True, kw_only=True)
class Aging(FromImage):
    recipe: ClassVar[str] = "aging"
    summary: ClassVar[str] = "a face in another age group, the same person"

    data: str = run_option(
        "faces",
        "a folder with a sub-folder for each age group, or of files named AGE_... as UTKFace's; "
        "faces are rendered",
    )
    lr: float = option(5e-4, "learning rate of all networks")
    identity: float = option(5.0, "weight of being the same person; 0 is off")
    age: float = option(1.0, "weight of the age that a classifier sees, which tells made faces too")
    blocks: int = option(2, "residual blocks of the generator")
    loss: str = option("least-squares", "adversarial loss", choices=tuple(LOSSES))

    def everything(self, source: str) -> dict[str, Dataset]:
        opened = super().everything(source)["image"]
        if not opened.classes:
            opened = with_ages(opened)
        return {"image": opened}

    def inputs(self, run: str, path: str, mask: str | None) -> dict[str, Dataset]:
        super().inputs(run, path, mask)
        side = self.source_size()
        return {"image": open_inputs(path, (side, side, self.channels or 3))}

    def measure(self, run: str, n: int, seed: int, data: str | None, trust: bool) -> Any:
        """Against the rendered truth; of one's own data, as sets of images."""
        from fastgan.data.rendered import are_faces
        from fastgan.metrics.aging import aging
        from fastgan.metrics.evaluate import evaluate
        from fastgan.metrics.fidelity import head, made_from

        held = self.streams(held_out=True) if data is None else self.everything(data)
        faces = head(held, n)["image"]
        if are_faces(faces):
            return aging(run, faces, seed=seed, trust=trust)
        images = made_from(run, {"image": faces}, seed=seed, trust=trust)
        return evaluate(images, held["image"], len(images), seed=seed, name=run)

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.srresnet import Translator
        from fastgan.models.unet import PatchDiscriminator
        from fastgan.objectives.translation.to_class import ToClass

        channels, classes = images.channels, images.classes
        if classes < 2:
            raise FastganError("aging needs at least two age groups: a sub-folder for each")
        return self.built(
            images,
            lambda: {
                "G": Translator(channels, channels, self.width, self.blocks, classes, True),
                "D": PatchDiscriminator(channels, classes, self.width, norm=False),
                "A": PatchDiscriminator(channels, 0, self.width, outputs=classes + 1),
            },
            ToClass(classes, self.loss, self.identity, self.adversarial, self.age),
        )


def with_ages(faces: Dataset) -> Dataset:
    """Labels from file names that begin with an age in years and `_`. Raises FastganError."""
    import numpy as np

    from fastgan.data import Dataset

    ages = [re.match(r"(\d{1,3})_", name.rpartition("/")[2]) for name in faces.names or ()]
    if not ages or not all(ages):
        raise FastganError(
            f"{faces.name} has no ages: put each age group into a sub-folder, or name files "
            "AGE_... such as 34_0.jpg"
        )
    label = np.searchsorted(BOUNDS, [int(m[1]) for m in ages if m], side="right")
    arrays = {"image": faces.array("image"), "label": label.astype(np.int64)}
    starts = ("0", *map(str, BOUNDS))
    names = [f"from {years}" for years in starts]
    kinds = {"image": "image", "label": "label"}
    return Dataset(faces.name, arrays, kinds, classes=names, names=faces.names)
