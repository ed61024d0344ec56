"""Normalisation that is handed on: moments, the scale and shift they give, what applies these with
an activation, and running statistics of many layers at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.ops.dispatch import Dispatcher, pytorch_at_once
from fastgan.ops.norm import apply
from fastgan.ops.norm import moments as mo
from fastgan.ops.norm.arguments import checked, divided, facts_of, unsupported
from fastgan.ops.norm.reference import affine_act_reference, moments_reference

__all__ = ["affine", "affine_act", "moments", "update_running_stats"]


_affine_act_engine = Dispatcher("affine_act", ("triton", "reference"), unsupported)
_moments_engine = Dispatcher("moments", ("triton", "reference"), unsupported)


def affine_act(
    input: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    *,
    activation: str | None = None,
    slope: float = 0.01,
    impl: str = "auto",
) -> Tensor:
    """act(input scale + shift), input (N, C, *); `scale`, `shift` are (C,), or (A, C) with A
    dividing N (one row per group or sample).

    Differentiable in all three, to second order; backward reads the gradient and the input once,
    for dx and both sums. This is how normalisation that was handed on is materialised, and how a
    spectral norm (scale = 1/sigma, shift = bias) and its activation leave a convolution.
    """
    act = checked("affine_act", input, activation, (scale, shift), grouped=True)
    if (
        scale is not None
        and shift is not None
        and scale.dim() == shift.dim() == 2
        and scale.shape[0] != shift.shape[0]
    ):
        raise FastganError(
            f"affine_act: scale {tuple(scale.shape)} and shift {tuple(shift.shape)} have different "
            "numbers of rows"
        )
    if (
        not pytorch_at_once(impl, input)
        and _affine_act_engine(impl, input, *facts_of(impl, input, (scale, shift))) == "triton"
    ):
        scale, shift = _same_rows(scale, shift)
        return apply.apply(input, scale, shift, None, None, 0.0, act, slope)
    return affine_act_reference(input, scale, shift, activation=act, slope=slope)


def _same_rows(scale: Tensor | None, shift: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """A (C,) beside an (A, C) is repeated: the kernels index both by one row number."""
    if scale is not None and shift is not None and scale.dim() != shift.dim():
        scale, shift = (
            (scale.expand_as(shift), shift) if scale.dim() == 1 else (scale, shift.expand_as(scale))
        )
    return scale, shift


def moments(input: Tensor, groups: int = 1, *, impl: str = "auto") -> tuple[Tensor, Tensor]:
    """(mean, biased variance), fp32 (groups, C), of input (N, C, *) over each of `groups` equal
    parts of the batch; differentiable to second order."""
    checked("moments", input, None, ())
    divided(input, groups)
    if (
        not pytorch_at_once(impl, input)
        and _moments_engine(impl, input, *facts_of(impl, input)) == "triton"
    ):
        mean, var = mo.norm_moments(input, groups).unbind(0)
        return mean, var
    return moments_reference(input, groups)


def affine(
    mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """(scale, shift) = (gamma / sqrt(var + eps), beta - mean scale) of fp32 (C,) or (groups, C)
    statistics; plain PyTorch, differentiable in all."""
    scale = (var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    return scale, (
        -mean * scale
        if bias is None
        else torch.addcmul(bias.to(scale.dtype), mean, scale, value=-1.0)
    )


def update_running_stats(
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    tracked: Sequence[Tensor],
    stats: Sequence[tuple[Tensor, Tensor]] | Sequence[Tensor],
    rows: Sequence[int],
    momenta: Sequence[float | None],
    *,
    impl: str = "auto",
) -> None:
    """Every layer's running mean and variance (C,) moved in place by its batch statistics, in one
    launch whatever the number of layers.

    `stats[i]`: (2, groups, C), or a pair of (groups, C), biased variance over rows[i] values a
    group; groups update in order. `tracked`: every layer's count (int64, 0-dim, grows by its
    groups) or empty; `momenta[i]` None is the cumulative average, from the count. Never part of an
    autograd graph.
    """
    packed = [s if isinstance(s, Tensor) else torch.stack(tuple(s)) for s in stats]
    fits = all(
        v.dtype == torch.float32 and v.is_contiguous() for v in (*means, *variances, *packed)
    )
    with torch.no_grad():
        if (
            fits
            and not pytorch_at_once(impl, means[0])
            and _moments_engine(impl, means[0], impl == "triton", True, False, False, True)
            == "triton"
        ):
            mo.update_running(
                list(means), list(variances), list(tracked), packed, list(rows), list(momenta)
            )
            return
        for i, (running_mean, running_var, s, n, momentum) in enumerate(
            zip(means, variances, packed, rows, momenta)
        ):
            for mean, var in zip(*s.detach().unbind(0)):
                if tracked:
                    tracked[i].add_(1)
                factor = (
                    tracked[i].to(running_mean.dtype).reciprocal() if momentum is None else momentum
                )
                running_mean.lerp_(mean.to(running_mean.dtype), factor)
                running_var.lerp_((var * (n / (n - 1))).to(running_var.dtype), factor)
