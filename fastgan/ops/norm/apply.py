"""Normalisation with given statistics as a registered operator, and as a cheap autograd function
for eager calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.kernels.norm import backward as backward_kernels
from fastgan.kernels.norm import backward_sums
from fastgan.kernels.norm import forward as kernels
from fastgan.ops.dispatch import batched, eager, plain
from fastgan.ops.norm.gradients import (
    MaybeTensor,
    contiguous_vector,
    count_parts,
    differentiable_backward,
    needs_graph,
    reference_gradients,
    second_backward,
    vector_gradients,
)
from fastgan.ops.norm.reference import affine_act_reference, dense, like

# Statistics given: eval, frozen, and scale and shift that were handed on.


def _apply(
    x: Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    mean: MaybeTensor,
    var: MaybeTensor,
    eps: float,
    act: str,
    slope: float,
) -> Tensor:
    return kernels.apply(
        dense(x),
        contiguous_vector(weight),
        contiguous_vector(bias),
        contiguous_vector(mean),
        contiguous_vector(var),
        eps,
        act,
        slope,
    )


def _apply_backward(
    dz: Tensor,
    x: Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    mean: MaybeTensor,
    var: MaybeTensor,
    eps: float,
    act: str,
    slope: float,
    need_dx: bool,
    need_sums: bool,
) -> tuple[Tensor, Tensor]:
    args = (
        dense(dz),
        dense(x),
        contiguous_vector(weight),
        contiguous_vector(bias),
        contiguous_vector(mean),
        contiguous_vector(var),
    )
    none = x.new_empty(0, dtype=torch.float32)
    if not need_sums:
        return backward_kernels.dx(*args, None, eps, act, slope), none
    dx, sums = backward_sums.reduce(*args, eps, act, slope, need_dx)
    return x.new_empty(0) if dx is None else dx, sums


@torch.library.custom_op("fastgan::norm_apply", mutates_args=())
def norm_apply(
    x: Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    mean: MaybeTensor,
    var: MaybeTensor,
    eps: float,
    act: str,
    slope: float,
) -> Tensor:
    """act((x - mean) / sqrt(var + eps) weight + bias), or act(x weight + bias); vectors are [C] or
    [P, C]."""
    return _apply(x, weight, bias, mean, var, eps, act, slope)


@torch.library.custom_op("fastgan::norm_apply_backward", mutates_args=())
def norm_apply_backward(
    dz: Tensor,
    x: Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    mean: MaybeTensor,
    var: MaybeTensor,
    eps: float,
    act: str,
    slope: float,
    need_dx: bool,
    need_sums: bool,
) -> tuple[Tensor, Tensor]:
    """(dx, sums [A, 2, C] of dp and dp xhat) in one reading; an output that is not needed is
    empty."""
    return _apply_backward(dz, x, weight, bias, mean, var, eps, act, slope, need_dx, need_sums)


@norm_apply.register_fake
def _(
    x: Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    mean: MaybeTensor,
    var: MaybeTensor,
    eps: float,
    act: str,
    slope: float,
) -> Tensor:
    return like(x)


@norm_apply_backward.register_fake
def _(
    dz: Tensor,
    x: Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    mean: MaybeTensor,
    var: MaybeTensor,
    eps: float,
    act: str,
    slope: float,
    need_dx: bool,
    need_sums: bool,
) -> tuple[Tensor, Tensor]:
    dx = like(x) if need_dx or not need_sums else x.new_empty(0)
    shape = (count_parts(weight, bias, mean, var), 2, x.shape[1]) if need_sums else (0,)
    return dx, x.new_empty(shape, dtype=torch.float32)


def _apply_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.eps, ctx.act, ctx.slope = inputs
    ctx.save_for_backward(*tensors)


def _apply_gradients(ctx: Any, dz: Tensor, backward: Any) -> tuple[Any, ...]:
    x, weight, bias, mean, var = ctx.saved_tensors
    if batched(dz):

        def run(x: Tensor, weight: MaybeTensor, bias: MaybeTensor) -> Tensor:
            if mean is not None and var is not None:
                rstd = (var + ctx.eps).rsqrt()
                x = affine_act_reference(x, rstd, -mean * rstd)
            return affine_act_reference(x, weight, bias, activation=ctx.act, slope=ctx.slope)

        return reference_gradients(ctx, dz, run, x, weight, bias) + (None,) * 5
    need = ctx.needs_input_grad
    dx, sums = backward(
        dz, x, weight, bias, mean, var, ctx.eps, ctx.act, ctx.slope, need[0], need[1] or need[2]
    )
    if not (need[1] or need[2]):
        return (dx,) + (None,) * 7
    return (dx if need[0] else None, *vector_gradients(sums, weight, bias, need)) + (None,) * 5


def _apply_backward_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, eps, act, slope, _, _ = inputs
    ctx.args = (eps, act, slope)
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _apply_twice(ctx: Any, vdx: MaybeTensor, vsums: MaybeTensor) -> tuple[Any, ...]:
    ctx.twice = ctx.saved_tensors
    ctx.twice_args = (None, *ctx.args)
    ctx.twice_graph = torch.is_grad_enabled()
    return second_backward(ctx, vdx, vsums) + (None,) * 7


norm_apply.register_autograd(
    lambda ctx, dz: _apply_gradients(ctx, dz, norm_apply_backward), setup_context=_apply_setup
)
norm_apply_backward.register_autograd(_apply_twice, setup_context=_apply_backward_setup)

_ApplyBackward = differentiable_backward(_apply_backward, _apply_backward_setup, _apply_twice)


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: MaybeTensor, bias: MaybeTensor, settings: tuple[Any, ...]
    ) -> Tensor:
        inputs = (x, weight, bias, *settings)
        output = _apply(*inputs)
        _apply_setup(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        run = _ApplyBackward if torch.is_grad_enabled() else _apply_backward
        return (*_apply_gradients(ctx, grads[0], run)[:3], None)


_eager_apply = eager(_Apply)


def apply(
    x: Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    mean: MaybeTensor,
    var: MaybeTensor,
    eps: float,
    act: str,
    slope: float,
) -> Tensor:
    """:func:`norm_apply`, by the cheapest way in; a tensor of its own, no view."""
    if plain(x, weight, bias, mean, var):
        if needs_graph(x, weight, bias):
            return _eager_apply(x, weight, bias, (mean, var, eps, act, slope))
        return _apply(x, weight, bias, mean, var, eps, act, slope)
    return norm_apply(x, weight, bias, mean, var, eps, act, slope)
