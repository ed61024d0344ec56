"""Adversarial losses on logits, with the four statistics a run logs: value, gradient and statistics in one launch.

    kind            discriminator                          generator            source
    non-saturating  mean sp(-r) + mean sp(f)               mean sp(-f)          Goodfellow et al. 2014, section 3
    minimax         mean sp(-r) + mean sp(f)               -mean sp(f)          Goodfellow et al. 2014, equation 1
    hinge           mean relu(1 - r) + mean relu(1 + f)    -mean f              Lim & Ye 2017; Miyato et al. 2018, eq. 16-17
    wasserstein     mean f - mean r                        -mean f              Arjovsky et al. 2017
    least-squares   mean (r - 1)^2 / 2 + mean f^2 / 2      mean (f - 1)^2 / 2   Mao et al. 2017, eq. 9 (a, b, c = 0, 1, 1)
    relativistic    mean sp(f - r)                         mean sp(r - f)       Huang et al. 2025 (arXiv 2501.05441), RpGAN

r, f: real and fake logits; sp(x) = log(1 + e^x). The relativistic loss pairs r[i] with f[i].
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels import loss as kernel
from fastgan.ops.dispatch import Dispatcher

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


def _needs_real(kind: str, side: str) -> bool:
    return side == "d" or kind == "relativistic"


def _slopes(kind: str, side: str, r: Tensor | None, f: Tensor) -> tuple[Tensor | None, Tensor]:
    """n d loss/d r and n d loss/d f per logit, in plain PyTorch: the formula that second order differentiates."""
    if kind == "relativistic":
        assert r is not None
        s = torch.sigmoid(f - r) if side == "d" else -torch.sigmoid(r - f)
        return -s, s
    if side == "g":
        if kind == "minimax":
            return None, -torch.sigmoid(f)
        if kind == "non-saturating":
            return None, -torch.sigmoid(-f)
        return None, f - 1 if kind == "least-squares" else -torch.ones_like(f)
    assert r is not None
    if kind in ("non-saturating", "minimax"):
        return -torch.sigmoid(-r), torch.sigmoid(f)
    if kind == "hinge":
        return -(1 - r > 0).to(r.dtype), (1 + f > 0).to(f.dtype)
    if kind == "least-squares":
        return r - 1, f
    return -torch.ones_like(r), torch.ones_like(f)


@torch.library.custom_op("fastgan::adversarial", mutates_args=())
def _adversarial(kind: str, side: str, real: Tensor | None, fake: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    loss, stats, dreal, dfake = kernel.adversarial(kind, side, real, fake, _needs_real(kind, side))
    return loss, stats, fake.new_empty(0, dtype=torch.float32) if dreal is None else dreal, dfake


@_adversarial.register_fake
def _(kind: str, side: str, real: Tensor | None, fake: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shape = real.shape if real is not None and _needs_real(kind, side) else (0,)
    sizes = ((), (4,), shape, fake.shape)
    loss, stats, dreal, dfake = (torch.empty(size, dtype=torch.float32, device=fake.device) for size in sizes)
    return loss, stats, dreal, dfake


@torch.library.custom_op("fastgan::adversarial_backward", mutates_args=())
def _adversarial_backward(
    grad: Tensor, kind: str, side: str, real: Tensor | None, fake: Tensor, dreal: Tensor, dfake: Tensor
) -> tuple[Tensor, Tensor]:
    needed = real is not None and _needs_real(kind, side)
    out_real, out_fake = kernel.scale(grad, dreal if needed else None, dfake, real.dtype if needed else fake.dtype, fake.dtype)
    return fake.new_empty(0) if out_real is None else out_real, out_fake


@_adversarial_backward.register_fake
def _(
    grad: Tensor, kind: str, side: str, real: Tensor | None, fake: Tensor, dreal: Tensor, dfake: Tensor
) -> tuple[Tensor, Tensor]:
    if real is None or not _needs_real(kind, side):
        return fake.new_empty(0), torch.empty(fake.shape, dtype=fake.dtype, device=fake.device)
    return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (real, fake))  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.kind, ctx.side, real, fake = inputs
    _, stats, dreal, dfake = output
    ctx.mark_non_differentiable(stats, dreal, dfake)
    ctx.save_for_backward(real, fake, dreal, dfake)


def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
    real, fake, dreal, dfake = ctx.saved_tensors
    g_real, g_fake = _adversarial_backward(grad, ctx.kind, ctx.side, real, fake, dreal, dfake)
    return None, None, g_real if real is not None and _needs_real(ctx.kind, ctx.side) else None, g_fake


def _setup_context_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    grad, ctx.kind, ctx.side, real, fake, _, _ = inputs
    ctx.save_for_backward(grad, real, fake)


def _backward_backward(ctx: Any, gg_real: Tensor, gg_fake: Tensor) -> tuple[Any, ...]:
    # The saved slopes are constants here: what they depend on is recomputed, so that any order comes out exact.
    grad, real, fake = ctx.saved_tensors
    kind, side = ctx.kind, ctx.side
    needed = real is not None and _needs_real(kind, side)
    f = fake.float()
    r = real.float() if needed else None
    slope_r, slope_f = _slopes(kind, side, r, f)
    up_f = gg_fake.float() / f.numel()
    up_r = gg_real.float() / r.numel() if r is not None else None
    g_grad = (up_f * slope_f).sum()
    g_real = None
    if r is not None and slope_r is not None and up_r is not None:
        g_grad = g_grad + (up_r * slope_r).sum()
    if kind == "relativistic":
        s = torch.sigmoid(f - r)  # type: ignore[operator]
        g = grad * s * (1 - s) * (up_f - up_r)  # type: ignore[operator]
        g_real, g_fake = -g, g
    else:
        g_fake = grad * _curvature(kind, f, -1.0 if (kind, side) == ("minimax", "g") else 1.0) * up_f
        if r is not None:
            g_real = grad * _curvature(kind, r, 1.0) * up_r  # type: ignore[operator]
    return g_grad, None, None, None if g_real is None else g_real.to(real.dtype), g_fake.to(fake.dtype), None, None


def _curvature(kind: str, x: Tensor, sign: float) -> Tensor:
    if kind in ("non-saturating", "minimax"):
        s = torch.sigmoid(x)
        return sign * s * (1 - s)
    return torch.ones_like(x) if kind == "least-squares" else torch.zeros_like(x)


_adversarial.register_autograd(_backward, setup_context=_setup_context)
_adversarial_backward.register_autograd(_backward_backward, setup_context=_setup_context_backward)


def _unsupported(engine: str, dtype: torch.dtype, real_dtype: torch.dtype | None) -> str | None:
    return "no kernel takes float64 logits" if engine == "triton" and torch.float64 in (dtype, real_dtype) else None


_choose = Dispatcher("adversarial", ("triton", "reference"), _unsupported)


def adversarial(
    kind: str, side: str, real: Tensor | None, fake: Tensor | None, *, impl: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Loss `kind` of `side` "d" or "g" on logits of any shape (before any sigmoid): (0-dim fp32 loss, fp32 (4,) statistics).

    Statistics, not differentiable: mean real logit, mean fake logit, share of real logits > 0, share of fake logits < 0; the
    real ones are NaN where `real` is None (allowed for "g" except "relativistic"). Sums accumulate in fp32 (float64 logits: in
    float64, and so is the loss). Exact in second order. The discriminator's loss is the sum of its real and fake halves, not
    their average. Raises FastganError for an unknown kind or side, missing or empty logits, and relativistic logits of unequal
    shape.
    """
    _check(kind, side, real, fake)
    assert fake is not None
    if _choose(impl, fake, None if real is None else real.dtype) == "reference":
        return adversarial_reference(kind, side, real, fake)
    loss, stats, _, _ = _adversarial(kind, side, None if real is None else real.contiguous(), fake.contiguous())
    return loss, stats
