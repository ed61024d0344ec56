"""A level of a Laplacian pyramid: detail for an enlarged image (Denton et al. 2015, arXiv
1506.05751, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch.nn import functional as F

from fastgan.errors import FastganError
from fastgan.objectives.augmentation import NONE, Augmented
from fastgan.objectives.base import Noise, Phase
from fastgan.objectives.losses import LOSSES

if TYPE_CHECKING:
    from torch import Tensor

    from fastgan.objectives.base import Step


def enlarged(images: Tensor) -> Tensor:
    return F.interpolate(images, scale_factor=2.0, mode="bilinear", align_corners=False)


@dataclass
class Detail(Augmented):
    """ "G1" (level 1; "G2" ...) adds detail to an enlarged image, "D1" judges detail beside that
    image.

    "Gk" maps (enlarged image, grain (B, 1, s, s)) to detail of the same shape, "Dk" maps (detail,
    enlarged image) to logits. Training starts from reals at half the resolution, sampling from "G",
    which maps z (B, latent), through all levels.

    Args:
        level: 1 for the first above "G".
        side: The pixels of a side at this level.
        latent: The numbers of one latent vector of "G".
        loss: A name of `fastgan.objectives.LOSSES` that needs no reals in G's phase.
    """

    level: int = 1
    side: int = 16
    latent: int = 100
    loss: str = "non-saturating"
    noise: Mapping[str, Noise] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.check_augment()
        grains = {
            f"grain{k}": Noise((1, *[self.side // 2 ** (self.level - k)] * 2), "uniform")
            for k in range(1, self.level + 1)
        }
        self.noise = {"z": Noise((self.latent,), "uniform"), **grains}

    def phases(self) -> Sequence[Phase]:
        k = self.level
        return (
            Phase("D", (f"D{k}",), self.d_loss),
            Phase("G", (f"G{k}",), self.g_loss, fresh=False),
        )

    def coarse(self, step: Step) -> Tensor:
        return enlarged(F.avg_pool2d(step.batch["image"], 2))

    def generate(self, step: Step) -> Tensor:
        return step.nets[f"G{self.level}"](self.coarse(step), step.noise[f"grain{self.level}"])

    def sample(self, step: Step) -> Tensor:
        images = step.nets.G(step.noise.z)
        for k in range(1, self.level + 1):
            coarse = enlarged(images)
            images = coarse + step.nets[f"G{k}"](coarse, step.noise[f"grain{k}"])
        return images

    def seen(self, step: Step, detail: Tensor, coarse: Tensor) -> Tensor:
        """The detail of the augmented image beside the augmented enlarged one."""
        if self.augment == NONE:
            return detail
        whole = self.augmented(step, coarse + detail, "pair")
        return whole - self.augmented(step, coarse, "pair")

    def d_loss(self, step: Step) -> Mapping[str, Tensor]:
        coarse = self.coarse(step)
        real = step.batch["image"] - coarse
        details = [self.seen(step, detail, coarse) for detail in (real, step.fake)]
        seen = self.augmented(step, coarse, "pair")
        return {"adv": self.judged(step, *step.pair(f"D{self.level}", *details, seen))}

    def g_loss(self, step: Step) -> Mapping[str, Tensor]:
        coarse = self.coarse(step)
        seen = self.augmented(step, coarse, "pair")
        logits = step.nets[f"D{self.level}"](self.seen(step, step.fake, coarse), seen)
        return {"adv": LOSSES[self.loss].g(None, logits)}

    def check(self, nets: Mapping[str, Any]) -> None:
        names = ["G", *(f"G{k}" for k in range(1, self.level + 1)), f"D{self.level}"]
        if missing := [name for name in names if name not in nets]:
            raise FastganError(f"level {self.level} of a pyramid needs a network {missing[0]!r}")
