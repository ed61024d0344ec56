"""Sounds against a critic: the standard objective on what int16 windows are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastgan.objectives.adversarial import Adversarial
from fastgan.objectives.medium import IMAGES, Medium

if TYPE_CHECKING:
    from torch import Tensor

    from fastgan.objectives.base import Step


@dataclass
class Waves(Adversarial):
    """`Adversarial` on sounds (B, 1, length), which the batch holds as int16.

    Args:
        medium: How sounds are drawn and written.
    """

    medium: Medium = IMAGES

    def reals(self, step: Step) -> Tensor:
        return step.batch["image"].float() / 32767
