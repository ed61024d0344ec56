"""What was where the hole is: only the hole is made, and only it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fastgan.objectives.translation.paired import Translation

if TYPE_CHECKING:
    from torch import Tensor

    from fastgan.objectives.base import Step


@dataclass
class Inpainting(Translation):
    """`Translation` from `degradations.Holes`: G's image is used in the hole alone, so that known
    pixels are bit-identical, and the L1 term is the mean over the hole (after Suvorov et al. 2022,
    LaMa, arXiv 2109.07161: feature matching carries the rest)."""

    def hole(self, step: Step) -> Tensor:
        """(B, 1, H, W) bool."""
        return self.source(step)[:, -1:] > 0

    def generate(self, step: Step) -> Tensor:
        made = step.nets.G(self.source(step))
        if "image" in step.batch:
            image = step.batch["image"]
            return torch.where(self.hole(step), made.to(image.dtype), image)
        return made

    def seen_source(self, step: Step) -> Tensor:
        image, mask = self.source(step).split([self.source(step).shape[1] - 1, 1], 1)
        return torch.cat([self.seen(step, image), self.moved(step, mask, "pair")], 1)

    def pixel_loss(self, step: Step) -> Tensor:
        hole = self.hole(step)
        gap = (step.fake.float() - step.batch["image"]).abs() * hole
        return gap.sum() / (hole.sum() * gap.shape[1]).clamp_min(1)

    def panels(self, step: Step, made: Tensor) -> Sequence[Tensor]:
        return (self.source(step)[:, :-1], made, step.batch["image"])
