"""The next frame (Mathieu, Couprie, LeCun 2016, arXiv 1511.05440)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from fastgan.objectives.translation.paired import Translation

if TYPE_CHECKING:
    from torch import Tensor

    from fastgan.objectives.base import Step


@dataclass
class NextFrame(Translation):
    """`batch["source"]` holds the frames before as channels, the oldest first, and
    `batch["image"]` the next one; D sees the stack of all.

    The pixel loss is the squared distance + gradients * the gradient difference loss with alpha 1
    (equations 4 and 6): the mean of ||dy| - |dG|| over neighbours down and across.
    """

    pixel: float = 1.0
    gradients: float = 1.0

    def pixel_loss(self, step: Step) -> Tensor:
        made, true = step.fake.float(), step.batch["image"]
        return F.mse_loss(made, true) + self.gradients * gradient_difference(made, true)

    def seen_source(self, step: Step) -> Tensor:
        frames = self.source(step).split(step.batch["image"].shape[1], 1)
        return torch.cat([self.seen(step, frame) for frame in frames], 1)

    def panels(self, step: Step, made: Tensor) -> Sequence[Tensor]:
        shown = [*self.source(step).split(made.shape[1], 1), made]
        if "image" in step.batch:
            shown.append(step.batch["image"][:, : made.shape[1]])
        return shown


def gradient_difference(made: Tensor, true: Tensor) -> Tensor:
    """Mean of ||dy| - |dG|| down plus the same across, 0-dim."""
    down = [(x[..., 1:, :] - x[..., :-1, :]).abs() for x in (made, true)]
    across = [(x[..., 1:] - x[..., :-1]).abs() for x in (made, true)]
    return F.l1_loss(down[0], down[1]) + F.l1_loss(across[0], across[1])
