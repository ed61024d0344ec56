"""What the backwards of both normalisation operators share: vectors per channel, and the backward
of a backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.ops.dispatch import eager
from fastgan.ops.norm.reference import rows, rows_backward

MaybeTensor = Tensor | None


def contiguous_vector(v: MaybeTensor) -> MaybeTensor:
    return v if v is None else v.contiguous()


def count_parts(*vectors: MaybeTensor) -> int:
    return max((v.shape[0] for v in vectors if v is not None and v.dim() == 2), default=1)


def spread_vector(v: MaybeTensor, parts: int, channels: int) -> MaybeTensor:
    """[C] or [P, C] as float [A, C], differentiably."""
    if v is None:
        return None
    v = v.float() if v.dtype != torch.float64 else v
    return (
        v.expand(parts, channels) if v.dim() == 1 else v.repeat_interleave(parts // v.shape[0], 0)
    )


def _collapse(sums: Tensor, like: MaybeTensor) -> MaybeTensor:
    """The sums [A, C], or [C] where A is 1, of one vector's gradient in the shape and type of that
    vector."""
    if like is None:
        return None
    if sums.dim() == 1:
        sums = sums if like.dim() == 1 else sums[None]
    elif like.dim() == 1:
        sums = sums.sum(0)
    elif sums.shape[0] != like.shape[0]:
        sums = sums.view(like.shape[0], -1, sums.shape[1]).sum(1)
    return sums.to(like.dtype)


def vector_gradients(
    sums: Tensor, weight: MaybeTensor, bias: MaybeTensor, need: tuple[bool, ...]
) -> tuple[MaybeTensor, ...]:
    """The gradients of weight and bias from the sums [A, 2, C] of dp and dp xhat; None where not
    needed."""
    if (
        sums.shape[0] > 1
        and (need[1] or need[2])
        and all(v is None or v.dim() == 1 for v in (weight, bias))
    ):
        sums = sums.sum(0, keepdim=True)  # both vectors' in one launch
    dbias, dweight = sums.view(2, -1).unbind(0) if sums.shape[0] == 1 else sums.unbind(1)
    return _collapse(dweight, weight if need[1] else None), _collapse(
        dbias, bias if need[2] else None
    )


def needs_graph(x: Tensor, weight: MaybeTensor, bias: MaybeTensor) -> bool:
    """Whether autograd follows a call on these."""
    return torch.is_grad_enabled() and (
        x.requires_grad
        or (weight is not None and weight.requires_grad)
        or (bias is not None and bias.requires_grad)
    )


def second_backward(ctx: Any, vdx: MaybeTensor, vsums: MaybeTensor) -> tuple[MaybeTensor, ...]:
    """Gradients for (dz, x, weight, bias) of the backward, given those of its (dx, sums)."""
    dz, x, weight, bias, mean, var = ctx.twice
    segments, eps, act, slope = ctx.twice_args
    wanted = [t is not None and t.requires_grad for t in (dz, x, weight, bias)]
    with torch.enable_grad():
        # aliases: dz may itself depend on x or weight, and a path through it is not this function's
        # to follow
        dz, x = dz.view_as(dz), x.view_as(x)
        weight, bias = (None if v is None else v.view_as(v) for v in (weight, bias))
        needed = [t for t, want in zip((dz, x, weight, bias), wanted) if t is not None and want]
        parts = max(count_parts(weight, bias, mean), segments or 1)
        channels = x.shape[1]

        def part(t: Tensor) -> Tensor:
            t = rows(t)
            return (t.float() if t.dtype != torch.float64 else t).view(parts, -1, channels)

        stats = None
        if segments is None and mean is not None:
            spread = spread_vector(mean, parts, channels), spread_vector(var, parts, channels)
            assert spread[0] is not None
            assert spread[1] is not None
            stats = spread[0], spread[1]
        dx, sums = rows_backward(
            part(dz),
            part(x),
            spread_vector(weight, parts, channels),
            spread_vector(bias, parts, channels),
            stats,
            segments,
            eps,
            act,
            slope,
        )
        # without a second derivative (identity, a given mask) an output may not depend on anything
        # that is asked for
        pairs = [
            (out, part(v) if out is dx else v)
            for out, v in ((dx, vdx), (sums, vsums))
            if v is not None and v.numel() and out.requires_grad
        ]
        if not pairs or not needed:
            return (None,) * 4
        outputs, given = zip(*pairs)
        found = iter(
            torch.autograd.grad(
                outputs, needed, given, create_graph=ctx.twice_graph, allow_unused=True
            )
        )
    return tuple(next(found) if want else None for want in wanted)


def reference_gradients(
    ctx: Any, dz: Tensor, run: Any, *inputs: MaybeTensor
) -> tuple[MaybeTensor, ...]:
    """Gradients for `inputs` (x, weight, bias) by PyTorch's own nodes of `run`, its reference: they
    take batched gradients."""
    keep = torch.is_grad_enabled()
    need = [v is not None and wanted for v, wanted in zip(inputs, ctx.needs_input_grad)]
    with torch.enable_grad():
        given = [
            v if v is None else v.view_as(v) if keep else v.detach().requires_grad_(n)
            for v, n in zip(inputs, need)
        ]
        wanted = [v for v, n in zip(given, need) if n]
        found = iter(torch.autograd.grad(run(*given), wanted, dz, create_graph=keep))  # type: ignore[arg-type]
    return tuple(next(found) if n else None for n in need)


def differentiable_backward(run: Any, setup: Any, twice: Any) -> Any:
    """`run`, a backward's launcher, as an eager function with the gradient `twice`: what a kept
    graph differentiates."""

    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
            output = run(*inputs)
            setup(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return twice(ctx, *grads)

    return eager(Backward)
