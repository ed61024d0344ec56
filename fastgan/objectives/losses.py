"""Adversarial losses on logits, by name.

Values and gradients come from `fastgan.ops.loss`; logits may have any shape and are averaged over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from fastgan.ops import loss as ops

if TYPE_CHECKING:
    from fastgan.engine.step import Step


@dataclass(frozen=True)
class Loss:
    """A pair of losses: d(real_logits, fake_logits) and g(real_logits or None, fake_logits), each a 0-dim fp32 tensor."""

    name: str
    source: str
    g_needs_real: bool = False

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return ops.adversarial(self.name, "d", real, fake)[0]

    def g(self, real: Tensor | None, fake: Tensor) -> Tensor:
        return ops.adversarial(self.name, "g", real, fake)[0]


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("non-saturating", "Goodfellow et al. 2014, section 3"),
        Loss("minimax", "Goodfellow et al. 2014, eq. 1"),
        Loss("hinge", "Lim & Ye 2017; Miyato et al. 2018, eq. 16 and 17"),
        Loss("wasserstein", "Arjovsky et al. 2017, eq. 2"),
        Loss("least-squares", "Mao et al. 2017, eq. 9 (a=0, b=c=1)"),
        Loss("relativistic", "Jolicoeur-Martineau 2018; RpGAN of Huang et al. 2024, eq. 2", g_needs_real=True),
    )
}


def log_logits(step: Step, real: Tensor, fake: Tensor) -> None:
    """Log the means of the logits and the shares on the right side of zero, without reading the device."""
    real, fake = real.detach().float(), fake.detach().float()
    step.log("logit_real", real.mean())
    step.log("logit_fake", fake.mean())
    step.log("acc_real", (real > 0).float().mean())
    step.log("acc_fake", (fake < 0).float().mean())
