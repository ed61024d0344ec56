"""Adversarial losses on logits, with the four statistics a run logs: value, gradient and statistics in one launch.

    kind              discriminator                                   generator                 source
    non-saturating    mean sp(-r) + mean sp(f)                        mean sp(-f)               Goodfellow et al. 2014, section 3
    minimax           mean sp(-r) + mean sp(f)                        -mean sp(f)               Goodfellow et al. 2014, equation 1
    hinge             mean relu(1 - r) + mean relu(1 + f)             -mean f                   Lim & Ye 2017; Miyato et al. 2018, eq. 16-17
    wasserstein       mean f - mean r                                 -mean f                   Arjovsky et al. 2017
    least-squares     mean (r - 1)^2 / 2 + mean f^2 / 2               mean (f - 1)^2 / 2        Mao et al. 2017, eq. 9 (a, b, c = 0, 1, 1)
    relativistic      mean sp(f - r)                                  mean sp(r - f)            Huang et al. 2025 (arXiv 2501.05441), RpGAN

r, f: real and fake logits; sp(x) = log(1 + e^x). The relativistic loss pairs r[i] with f[i].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.errors import FastganError

KINDS = ("non-saturating", "minimax", "hinge", "wasserstein", "least-squares", "relativistic")
SIDES = ("d", "g")


def _softplus(x: Tensor) -> Tensor:
    # Above 40 softplus(x) equals x to float64 rounding; the default threshold of 20 would cost 2e-9.
    return F.softplus(x, threshold=40.0)


def _check(kind: str, side: str, real: Tensor | None, fake: Tensor | None) -> None:
    if kind not in KINDS:
        raise FastganError(f"unknown adversarial loss '{kind}': choose one of {', '.join(KINDS)}")
    if side not in SIDES:
        raise FastganError(f"side must be 'd' or 'g', not '{side}'")
    if fake is None or fake.numel() == 0:
        raise FastganError(f"the {kind} loss of side '{side}' needs fake logits")
    if real is None:
        if side == "d" or kind == "relativistic":
            raise FastganError(f"the {kind} loss of side '{side}' needs real logits")
    elif real.numel() == 0:
        raise FastganError("real logits are empty")
    if kind == "relativistic" and real is not None and real.shape != fake.shape:
        raise FastganError(f"the relativistic loss pairs real and fake logits: {tuple(real.shape)} against {tuple(fake.shape)}")


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def adversarial_reference(kind: str, side: str, real: Tensor | None, fake: Tensor) -> tuple[Tensor, Tensor]:
    f = _wide(fake)
    r = None if real is None else _wide(real)
    if kind == "relativistic":
        loss = _softplus(f - r if side == "d" else r - f).mean()
    elif side == "g":
        if kind == "non-saturating":
            loss = _softplus(-f).mean()
        elif kind == "minimax":
            loss = -_softplus(f).mean()
        elif kind == "least-squares":
            loss = 0.5 * (f - 1).square().mean()
        else:
            loss = -f.mean()
    elif kind in ("non-saturating", "minimax"):
        loss = _softplus(-r).mean() + _softplus(f).mean()
    elif kind == "hinge":
        loss = F.relu(1 - r).mean() + F.relu(1 + f).mean()
    elif kind == "wasserstein":
        loss = f.mean() - r.mean()
    else:
        loss = 0.5 * (r - 1).square().mean() + 0.5 * f.square().mean()
    with torch.no_grad():
        missing = torch.full((), float("nan"), device=f.device) if r is None else None
        stats = torch.stack(
            [
                missing if r is None else r.mean().float(),
                f.mean().float(),
                missing if r is None else (r > 0).float().mean(),
                (f < 0).float().mean(),
            ]
        )
    return loss, stats


def adversarial(kind: str, side: str, real: Tensor | None, fake: Tensor | None, *, impl: str = "auto") -> tuple[Tensor, Tensor]:
    """Loss `kind` of `side` "d" or "g" on logits of any shape (before any sigmoid): (0-dim fp32 loss, fp32 (4,) statistics).

    Statistics, not differentiable: mean real logit, mean fake logit, share of real logits > 0, share of fake logits < 0; the real ones
    are NaN where `real` is None (allowed for "g" except "relativistic"). Sums accumulate in fp32 (float64 logits: in float64, and so is
    the loss). Exact in second order. The discriminator's loss is the sum of its real and fake halves, not their average.
    Raises FastganError for an unknown kind or side, missing or empty logits, and relativistic logits of unequal shape.
    """
    _check(kind, side, real, fake)
    return adversarial_reference(kind, side, real, fake)  # type: ignore[arg-type]
