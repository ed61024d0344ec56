"""Adversarial losses on logits, with the four statistics a run logs: value, gradient and statistics
in one launch.

The formulas and their sources: fastgan.ops.loss_table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels import loss as kernel
from fastgan.ops.dispatch import Dispatcher
from fastgan.ops.loss_table import LOSSES

SIDES = ("d", "g")


def _check(kind: str, side: str, real: Tensor | None, fake: Tensor | None) -> None:
    if kind not in LOSSES:
        raise FastganError(f"unknown adversarial loss '{kind}': choose one of {', '.join(LOSSES)}")
    if side not in SIDES:
        raise FastganError(f"side must be 'd' or 'g', not '{side}'")
    if fake is None or fake.numel() == 0:
        raise FastganError(f"the {kind} loss of side '{side}' needs fake logits")
    if real is None:
        if _needs_real(kind, side):
            raise FastganError(f"the {kind} loss of side '{side}' needs real logits")
    elif real.numel() == 0:
        raise FastganError("real logits are empty")
    if LOSSES[kind].paired and real is not None and real.shape != fake.shape:
        raise FastganError(
            f"the {kind} loss pairs real and fake logits: {tuple(real.shape)} against "
            f"{tuple(fake.shape)}"
        )


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def adversarial_reference(
    kind: str, side: str, real: Tensor | None, fake: Tensor
) -> tuple[Tensor, Tensor]:
    f = _wide(fake)
    r = None if real is None else _wide(real)
    loss = _value(kind, side, r, f)
    with torch.no_grad():
        missing = torch.full((), float("nan"), device=f.device)
        of_real = (missing, missing) if r is None else (r.mean().float(), (r > 0).float().mean())
        stats = torch.stack([of_real[0], f.mean().float(), of_real[1], (f < 0).float().mean()])
    return loss, stats


def _value(kind: str, side: str, r: Tensor | None, f: Tensor) -> Tensor:
    formula = LOSSES[kind].d if side == "d" else LOSSES[kind].g
    return formula(r, f)  # type: ignore[arg-type]  # None only where the formula does not touch it


def _needs_real(kind: str, side: str) -> bool:
    return side == "d" or LOSSES[kind].paired


@torch.library.custom_op("fastgan::adversarial", mutates_args=())
def _adversarial(
    kind: str, side: str, real: Tensor | None, fake: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    loss, stats, dreal, dfake = kernel.adversarial(kind, side, real, fake, _needs_real(kind, side))
    return loss, stats, fake.new_empty(0, dtype=torch.float32) if dreal is None else dreal, dfake


@_adversarial.register_fake
def _(
    kind: str, side: str, real: Tensor | None, fake: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shape = real.shape if real is not None and _needs_real(kind, side) else (0,)
    sizes = ((), (4,), shape, fake.shape)
    loss, stats, dreal, dfake = (
        torch.empty(size, dtype=torch.float32, device=fake.device) for size in sizes
    )
    return loss, stats, dreal, dfake


@torch.library.custom_op("fastgan::adversarial_backward", mutates_args=())
def _adversarial_backward(
    grad: Tensor,
    kind: str,
    side: str,
    real: Tensor | None,
    fake: Tensor,
    dreal: Tensor,
    dfake: Tensor,
) -> tuple[Tensor, Tensor]:
    if real is None or not _needs_real(kind, side):
        return fake.new_empty(0), kernel.scale(grad, None, dfake, fake.dtype, fake.dtype)[1]
    out_real, out_fake = kernel.scale(grad, dreal, dfake, real.dtype, fake.dtype)
    assert out_real is not None
    return out_real, out_fake


@_adversarial_backward.register_fake
def _(
    grad: Tensor,
    kind: str,
    side: str,
    real: Tensor | None,
    fake: Tensor,
    dreal: Tensor,
    dfake: Tensor,
) -> tuple[Tensor, Tensor]:
    if real is None or not _needs_real(kind, side):
        return fake.new_empty(0), torch.empty(fake.shape, dtype=fake.dtype, device=fake.device)
    return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (real, fake))  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.kind, ctx.side, real, fake = inputs
    _, stats, dreal, dfake = output
    ctx.mark_non_differentiable(stats, dreal, dfake)
    ctx.set_materialize_grads(False)  # a launch of zeros for each output that has no gradient
    ctx.save_for_backward(real, fake, dreal, dfake)


def _backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if grad is None:
        return None, None, None, None
    real, fake, dreal, dfake = ctx.saved_tensors
    g_real, g_fake = _adversarial_backward(grad, ctx.kind, ctx.side, real, fake, dreal, dfake)
    return (
        None,
        None,
        g_real if real is not None and _needs_real(ctx.kind, ctx.side) else None,
        g_fake,
    )


def _setup_context_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    grad, ctx.kind, ctx.side, real, fake, _, _ = inputs
    ctx.save_for_backward(grad, real, fake)


def _backward_backward(ctx: Any, gg_real: Tensor, gg_fake: Tensor) -> tuple[Any, ...]:
    # The saved slopes are constants here: what they depend on is recomputed, so that any order
    # comes out exact. In float64, since these are few numbers and the sum below cancels.
    grad, real, fake = ctx.saved_tensors
    again, reads = torch.is_grad_enabled(), real is not None and _needs_real(ctx.kind, ctx.side)
    with torch.enable_grad():
        given = [v if v is None else v.double() for v in (grad, real if reads else None, fake)]
        own = [
            v if v is None or (again and v.requires_grad) else v.detach().requires_grad_()
            for v in given
        ]
        scale, *logits = (v for v in own if v is not None)
        slopes = torch.autograd.grad(
            _value(ctx.kind, ctx.side, own[1], logits[-1]), logits, create_graph=True
        )
        ups = (gg_real, gg_fake) if reads else (gg_fake,)
        along = scale * sum((up.double() * slope).sum() for up, slope in zip(ups, slopes))
        found = iter(
            torch.autograd.grad(along, (scale, *logits), create_graph=again, allow_unused=True)
        )
    g_grad, g_real, g_fake = (
        None if v is None or (g := next(found)) is None else g.to(like.dtype)
        for v, like in zip(own, (grad, real, fake))
    )
    return g_grad, None, None, g_real, g_fake, None, None


_adversarial.register_autograd(_backward, setup_context=_setup_context)
_adversarial_backward.register_autograd(_backward_backward, setup_context=_setup_context_backward)


def _unsupported(engine: str, dtype: torch.dtype, real_dtype: torch.dtype | None) -> str | None:
    return (
        "no kernel takes float64 logits"
        if engine == "triton" and torch.float64 in (dtype, real_dtype)
        else None
    )


_choose = Dispatcher("adversarial", ("triton", "reference"), _unsupported)


def adversarial(
    kind: str, side: str, real: Tensor | None, fake: Tensor | None, *, impl: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Loss `kind` of `side` "d" or "g" on logits of any shape (before any sigmoid): (0-dim fp32
    loss, fp32 (4,) statistics).

    Statistics, not differentiable: mean real logit, mean fake logit, share of real logits > 0,
    share of fake logits < 0; the real ones are NaN where `real` is None (allowed for "g" except of
    paired losses). Sums accumulate in fp32 (float64 logits: in float64, and so is the loss). Exact
    in second order. The discriminator's loss is the sum of its real and fake halves, not their
    average. Raises FastganError for an unknown kind or side, missing or empty logits, and paired
    logits of unequal shape.
    """
    _check(kind, side, real, fake)
    assert fake is not None
    if _choose(impl, fake, None if real is None else real.dtype) == "reference":
        return adversarial_reference(kind, side, real, fake)
    loss, stats, _, _ = _adversarial(
        kind, side, None if real is None else real.contiguous(), fake.contiguous()
    )
    return loss, stats
