"""The one table of adversarial losses; read without torch, which the formulas alone import.

To add one: a row here and its branch in `_terms` of kernels/loss.py. The operator, the objectives,
the recipes' `--loss`, the watch over a run and `fastgan verify` read the table; every other name is
refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Row:
    """d(r, f), g(r, f): 0-dim losses of the two sides on fp32 or float64 logits r (real) and f
    (fake), by methods of tensors, differentiable to any order.

    paired: r[i] belongs to f[i], and the generator's side reads both; otherwise g must not touch r,
        which may be None.
    outputs: what D's outputs mean, a key of fastgan.monitor.health.LIMITS.
    """

    name: str
    source: str
    d: Callable[[Tensor, Tensor], Tensor]
    g: Callable[[Tensor, Tensor], Tensor]
    paired: bool = False
    outputs: str = "logits"


def _sp(x: Tensor) -> Tensor:
    """log(1 + e^x)."""
    import torch.nn.functional as F

    # Above 40 softplus(x) equals x to float64 rounding; the default threshold of 20 would cost
    # 2e-9.
    return F.softplus(x, threshold=40.0)


LOSSES: dict[str, Row] = {
    row.name: row
    for row in (
        Row(
            "non-saturating",
            "Goodfellow et al. 2014, section 3",
            d=lambda r, f: _sp(-r).mean() + _sp(f).mean(),
            g=lambda r, f: _sp(-f).mean(),
        ),
        Row(
            "minimax",
            "Goodfellow et al. 2014, eq. 1",
            d=lambda r, f: _sp(-r).mean() + _sp(f).mean(),
            g=lambda r, f: -_sp(f).mean(),
        ),
        Row(
            "hinge",
            "Lim & Ye 2017; Miyato et al. 2018, eq. 16 and 17",
            d=lambda r, f: (1 - r).relu().mean() + (1 + f).relu().mean(),
            g=lambda r, f: -f.mean(),
            outputs="hinge",
        ),
        Row(
            "wasserstein",
            "Arjovsky et al. 2017, eq. 2",
            d=lambda r, f: f.mean() - r.mean(),
            g=lambda r, f: -f.mean(),
            outputs="wasserstein",
        ),
        Row(
            "least-squares",
            "Mao et al. 2017, eq. 9 (a=0, b=c=1)",
            d=lambda r, f: 0.5 * (r - 1).square().mean() + 0.5 * f.square().mean(),
            g=lambda r, f: 0.5 * (f - 1).square().mean(),
            outputs="least-squares",
        ),
        Row(
            "relativistic",
            "Jolicoeur-Martineau 2018; RpGAN of Huang et al. 2024, eq. 2",
            d=lambda r, f: _sp(f - r).mean(),
            g=lambda r, f: _sp(r - f).mean(),
            paired=True,
            outputs="relativistic",
        ),
    )
}
