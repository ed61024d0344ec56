"""Adversarial losses on logits, by name.

Values and gradients come from `fastgan.ops.loss`; logits may have any shape and are averaged over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from fastgan.errors import FastganError
from fastgan.ops import loss as ops
from fastgan.ops import loss_table

if TYPE_CHECKING:
    from fastgan.objectives.base import Step


STATISTICS = ("logit_real", "logit_fake", "acc_real", "acc_fake")
"""Means of the logits, and the shares of real logits above zero and of fake ones below it."""


@dataclass(frozen=True)
class Loss:
    """A pair of losses: d(real_logits, fake_logits) and g(real_logits or None, fake_logits), each a
        0-dim fp32 tensor.

    step: where given, `STATISTICS` are logged there: the loss's kernel has computed them already.
    """

    name: str
    source: str
    g_needs_real: bool = False

    def d(self, real: Tensor, fake: Tensor, step: Step | None = None) -> Tensor:
        return self._of("d", real, fake, step)

    def g(self, real: Tensor | None, fake: Tensor, step: Step | None = None) -> Tensor:
        return self._of("g", real, fake, step)

    def _of(self, side: str, real: Tensor | None, fake: Tensor, step: Step | None) -> Tensor:
        value, statistics = ops.adversarial(self.name, side, real, fake)
        if step is not None:
            for name, one in zip(STATISTICS, statistics.unbind()):
                step.log(name, one)
        return value


def check(loss: object) -> None:
    """Raises FastganError for what is no name of a loss."""
    if not isinstance(loss, str) or loss not in LOSSES:
        raise FastganError(f"unknown loss {loss!r}: choose one of {', '.join(LOSSES)}")


LOSSES = {
    row.name: Loss(row.name, row.source, g_needs_real=row.paired)
    for row in loss_table.LOSSES.values()
}
