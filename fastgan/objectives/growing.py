"""Training a level of a growing network: reals and fakes fade in together (Karras et al. 2018,
arXiv 1710.10196, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.nn import functional as F

from fastgan.objectives.adversarial import Adversarial
from fastgan.objectives.schedules import Linear

if TYPE_CHECKING:
    from torch import Tensor

    from fastgan.objectives.base import Step


@dataclass
class Growing(Adversarial):
    """`Adversarial`, where both networks are given alpha, which rises from 0 to 1.

    "G" maps (z, alpha) to images, "D" maps (images, alpha) to logits. Reals are blended with
    themselves at half the resolution by the same alpha.

    Args:
        fade_steps: The steps of that rise; 0 is no fade, alpha 1 throughout.
    """

    fade_steps: int = 0
    one_pass: bool | None = False

    def schedule(self, step: int) -> Mapping[str, float]:
        alpha = Linear(0.0, 1.0, self.fade_steps)(step) if self.fade_steps else 1.0
        return {**super().schedule(step), "fade": alpha}

    def conditions(self, step: Step) -> tuple[Tensor, ...]:
        return (step.scalar.fade,)

    def reals(self, step: Step) -> Tensor:
        images = step.batch["image"]
        if not self.fade_steps:
            return images
        halved = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0)
        return halved + step.scalar.fade * (images - halved)
