"""The normalisation kernels as registered operators, and as cheap autograd functions for eager
calls.

Each pair (forward, backward) exists twice around the same launchers and formulas: as
``torch.library`` ops, which torch.compile and every dispatch mode see, and as
``autograd.Function``, which costs an eager call a fraction of that. Both differentiate twice: the
backward of a backward is the plain PyTorch formula (:func:`rows_backward`), differentiated by
autograd.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.kernels.norm import backward as backward_kernels
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
from fastgan.ops.norm.moments import update_running
from fastgan.ops.norm.reference import batch_norm_reference, dense, like

# Training: the statistics are those of x.


def _train(
    x: Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    groups: int,
    eps: float,
    act: str,
    slope: float,
    running_mean: MaybeTensor = None,
    running_var: MaybeTensor = None,
    tracked: MaybeTensor = None,
    momentum: float | None = 0.1,
) -> tuple[Tensor, Tensor]:
    running = None if running_mean is None or running_var is None else (running_mean, running_var)
    z, stats = kernels.train_forward(
        dense(x),
        contiguous_vector(weight),
        contiguous_vector(bias),
        groups,
        eps,
        act,
        slope,
        running,
        tracked,
        momentum,
    )
    return z, stats


def _train_backward(
    dz: Tensor,
    x: Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    stats: Tensor,
    eps: float,
    act: str,
    slope: float,
) -> tuple[Tensor, Tensor]:
    dx, sums = backward_kernels.train_backward(
        dense(dz),
        dense(x),
        contiguous_vector(weight),
        contiguous_vector(bias),
        stats,
        eps,
        act,
        slope,
    )
    return dx, sums


@torch.library.custom_op("fastgan::norm_train", mutates_args=())
def norm_train(
    x: Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    groups: int,
    eps: float,
    act: str,
    slope: float,
) -> tuple[Tensor, Tensor]:
    """(z, statistics [2, groups, C]): act of x (N, C, *) normalised by its own moments, group by
    group."""
    return _train(x, weight, bias, groups, eps, act, slope)


@torch.library.custom_op("fastgan::norm_train_backward", mutates_args=())
def norm_train_backward(
    dz: Tensor,
    x: Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    stats: Tensor,
    eps: float,
    act: str,
    slope: float,
) -> tuple[Tensor, Tensor]:
    """(dx, sums [A, 2, C] of dp and dp xhat)."""
    return _train_backward(dz, x, weight, bias, stats, eps, act, slope)


@norm_train.register_fake
def _(
    x: Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    groups: int,
    eps: float,
    act: str,
    slope: float,
) -> tuple[Tensor, Tensor]:
    return like(x), x.new_empty((2, groups, x.shape[1]), dtype=torch.float32)


@norm_train_backward.register_fake
def _(
    dz: Tensor,
    x: Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    stats: Tensor,
    eps: float,
    act: str,
    slope: float,
) -> tuple[Tensor, Tensor]:
    parts = max(stats.shape[1], count_parts(weight, bias))
    return like(x), x.new_empty((parts, 2, x.shape[1]), dtype=torch.float32)


def _train_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, _, *ctx.args = inputs[:7]
    ctx.save_for_backward(x, weight, bias, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _train_gradients(ctx: Any, dz: MaybeTensor, backward: Any) -> tuple[Any, ...]:
    if dz is None:
        return (None,) * 3
    x, weight, bias, stats = ctx.saved_tensors
    if batched(dz):
        eps, act, slope = ctx.args
        groups = stats.shape[1]

        def run(x: Tensor, weight: MaybeTensor, bias: MaybeTensor) -> Tensor:
            return batch_norm_reference(
                x,
                None,
                None,
                weight,
                bias,
                True,
                0.0,
                eps,
                activation=act,
                slope=slope,
                groups=groups,
            )

        return reference_gradients(ctx, dz, run, x, weight, bias)
    dx, sums = backward(dz, x, weight, bias, stats, *ctx.args)
    need = ctx.needs_input_grad
    return (dx if need[0] else None, *vector_gradients(sums, weight, bias, need))


def _train_backward_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    dz, x, weight, bias, stats, *ctx.args = inputs
    ctx.save_for_backward(dz, x, weight, bias)
    ctx.segments = stats.shape[1]
    ctx.set_materialize_grads(False)


def _train_twice(ctx: Any, vdx: MaybeTensor, vsums: MaybeTensor) -> tuple[Any, ...]:
    ctx.twice = (*ctx.saved_tensors, None, None)
    ctx.twice_args = (ctx.segments, *ctx.args)
    ctx.twice_graph = torch.is_grad_enabled()
    return (*second_backward(ctx, vdx, vsums), None, None, None, None)


norm_train.register_autograd(
    lambda ctx, dz, _: (*_train_gradients(ctx, dz, norm_train_backward), None, None, None, None),
    setup_context=_train_setup,
)
norm_train_backward.register_autograd(_train_twice, setup_context=_train_backward_setup)


_TrainBackward = differentiable_backward(_train_backward, _train_backward_setup, _train_twice)


class _Train(torch.autograd.Function):
    """z alone: settings travel as one argument and the statistics leave in a list, since each
    tensor and argument of `apply` costs host time.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: MaybeTensor,
        bias: MaybeTensor,
        settings: tuple[Any, ...],
        found: list[Tensor],
    ) -> Tensor:
        z, stats = _train(x, weight, bias, *settings)
        ctx.save_for_backward(x, weight, bias, stats)
        ctx.args = settings[1:4]
        found.append(stats)
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        run = _TrainBackward if torch.is_grad_enabled() else _train_backward
        return (*_train_gradients(ctx, grads[0], run), None, None)


_eager_train = eager(_Train)


def train(
    x: Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    groups: int,
    eps: float,
    act: str,
    slope: float,
    running_mean: MaybeTensor,
    running_var: MaybeTensor,
    tracked: MaybeTensor,
    momentum: float | None,
) -> tuple[Tensor, Tensor]:
    """(z, statistics [2, groups, C]), with the running statistics updated in place. z is a tensor
    of its own, no view."""
    if plain(x, weight, bias, running_mean, running_var):
        settings = (groups, eps, act, slope, running_mean, running_var, tracked, momentum)
        if needs_graph(x, weight, bias):
            found: list[Tensor] = []
            z, stats = _eager_train(x, weight, bias, settings, found), found[0]
        else:
            z, stats = _train(x, weight, bias, *settings)
        if running_mean is not None and running_var is not None:
            torch.autograd.graph.increment_version(
                [running_mean, running_var]
                + ([] if tracked is None or momentum is None else [tracked])
            )
        return z, stats
    z, stats = norm_train(x, weight, bias, groups, eps, act, slope)
    if running_mean is not None and running_var is not None:
        update_running(
            [running_mean],
            [running_var],
            [] if tracked is None else [tracked],
            [stats],
            [x.numel() // (x.shape[1] * groups)],
            [momentum],
        )
    elif tracked is not None:
        tracked.add_(groups)
    return z, stats
