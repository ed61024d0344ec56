"""Masks from images: a critic looks at what the mask leaves of the image (Xue et al. 2018, SegAN,
arXiv 1706.01805)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn import functional as F

from fastgan.objectives.translation.paired import Translation

if TYPE_CHECKING:
    from torch import Tensor

    from fastgan.objectives.base import Step


@dataclass
class Segmentation(Translation):
    """`batch["image"]` is a mask (B, 1, H, W), -1 or 1, of `batch["source"]`.

    The multi-scale L1 distance is the mean over layers i (the masked image itself is one) of |D_i(s
    * p) - D_i(s * y)|, p the predicted and y the true mask in [0, 1] (equation 2). "D", which has
    `features`, maximises it and "G" minimises adversarial times it + pixel times the binary
    cross-entropy. Logits of D are one more layer of it.
    """

    pixel: float = 1.0
    signed: ClassVar[bool] = False

    def scales(self, step: Step) -> Tensor:
        """The multi-scale L1 distance, 0-dim."""
        source, D = self.source(step), step.nets.D
        masks = ((m.float() + 1) / 2 for m in (step.fake, step.batch["image"]))
        masked = [self.seen(step, source * mask) for mask in masks]
        made, wanted = ([x, *D.features(x)] for x in masked)
        gaps = [F.l1_loss(a.float(), b.float()) for a, b in zip(made, wanted)]
        return torch.stack(gaps).mean()

    def d_loss(self, step: Step) -> Mapping[str, Tensor]:
        return {"scales": -self.scales(step)}

    def pixel_loss(self, step: Step) -> Tensor:
        p, y = ((m.float() + 1) / 2 for m in (step.fake, step.batch["image"]))
        p = p.clamp(1e-4, 1 - 1e-4)
        return -(y * p.log() + (1 - y) * (1 - p).log()).mean()

    def g_loss(self, step: Step) -> Mapping[str, Tensor]:
        terms = {"pixel": self.pixel * self.pixel_loss(step)} if self.pixel else {}
        if self.adversarial:
            terms["scales"] = self.adversarial * self.scales(step)
        return terms
