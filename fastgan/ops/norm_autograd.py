"""The normalisation kernels as registered operators, and as cheap autograd functions for eager calls.

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

from fastgan.kernels import norm as kernels
from fastgan.kernels import norm_backward as backward_kernels
from fastgan.ops.dispatch import batched, eager, plain
from fastgan.ops.norm_moments import update_running
from fastgan.ops.norm_reference import affine_act_reference, batch_norm_reference, dense, like, rows, rows_backward

MaybeTensor = Tensor | None


def _vector(v: MaybeTensor) -> MaybeTensor:
    return v if v is None else v.contiguous()


def _parts(*vectors: MaybeTensor) -> int:
    return max((v.shape[0] for v in vectors if v is not None and v.dim() == 2), default=1)


def _spread(v: MaybeTensor, parts: int, channels: int) -> MaybeTensor:
    """[C] or [P, C] as float [A, C], differentiably."""
    if v is None:
        return None
    v = v.float() if v.dtype != torch.float64 else v
    return v.expand(parts, channels) if v.dim() == 1 else v.repeat_interleave(parts // v.shape[0], 0)


def _collapse(sums: Tensor, like: MaybeTensor) -> MaybeTensor:
    """The sums [A, C], or [C] where A is 1, of one vector's gradient in the shape and type of that vector."""
    if like is None:
        return None
    if sums.dim() == 1:
        sums = sums if like.dim() == 1 else sums[None]
    elif like.dim() == 1:
        sums = sums.sum(0)
    elif sums.shape[0] != like.shape[0]:
        sums = sums.view(like.shape[0], -1, sums.shape[1]).sum(1)
    return sums.to(like.dtype)


def _vector_gradients(sums: Tensor, weight: MaybeTensor, bias: MaybeTensor, need: tuple[bool, ...]) -> tuple[MaybeTensor, ...]:
    """The gradients of weight and bias from the sums [A, 2, C] of dp and dp xhat; None where not needed."""
    if sums.shape[0] > 1 and (need[1] or need[2]) and all(v is None or v.dim() == 1 for v in (weight, bias)):
        sums = sums.sum(0, keepdim=True)  # both vectors' in one launch
    dbias, dweight = sums.view(2, -1).unbind(0) if sums.shape[0] == 1 else sums.unbind(1)
    return _collapse(dweight, weight if need[1] else None), _collapse(dbias, bias if need[2] else None)


def _tracked(x: Tensor, weight: MaybeTensor, bias: MaybeTensor) -> bool:
    """Whether autograd follows a call on these."""
    return torch.is_grad_enabled() and (
        x.requires_grad or (weight is not None and weight.requires_grad) or (bias is not None and bias.requires_grad)
    )


def _twice(ctx: Any, vdx: MaybeTensor, vsums: MaybeTensor) -> tuple[MaybeTensor, ...]:
    """Gradients for (dz, x, weight, bias) of the backward, given those of its (dx, sums)."""
    dz, x, weight, bias, mean, var = ctx.twice
    segments, eps, act, slope = ctx.twice_args
    wanted = [t is not None and t.requires_grad for t in (dz, x, weight, bias)]
    with torch.enable_grad():
        # aliases: dz may itself depend on x or weight, and a path through it is not this function's to follow
        dz, x = dz.view_as(dz), x.view_as(x)
        weight, bias = (None if v is None else v.view_as(v) for v in (weight, bias))
        needed = [t for t, want in zip((dz, x, weight, bias), wanted) if t is not None and want]
        parts = max(_parts(weight, bias, mean), segments or 1)
        channels = x.shape[1]

        def part(t: Tensor) -> Tensor:
            t = rows(t)
            return (t.float() if t.dtype != torch.float64 else t).view(parts, -1, channels)

        stats = None
        if segments is None and mean is not None:
            spread = _spread(mean, parts, channels), _spread(var, parts, channels)
            assert spread[0] is not None
            assert spread[1] is not None
            stats = spread[0], spread[1]
        dx, sums = rows_backward(
            part(dz), part(x), _spread(weight, parts, channels), _spread(bias, parts, channels), stats, segments, eps, act, slope
        )
        # without a second derivative (identity, a given mask) an output may not depend on anything that is asked for
        pairs = [
            (out, part(v) if out is dx else v)
            for out, v in ((dx, vdx), (sums, vsums))
            if v is not None and v.numel() and out.requires_grad
        ]
        if not pairs or not needed:
            return (None,) * 4
        outputs, given = zip(*pairs)
        found = iter(torch.autograd.grad(outputs, needed, given, create_graph=ctx.twice_graph, allow_unused=True))
    return tuple(next(found) if want else None for want in wanted)


def _reference_gradients(ctx: Any, dz: Tensor, run: Any, *inputs: MaybeTensor) -> tuple[MaybeTensor, ...]:
    """Gradients for `inputs` (x, weight, bias) by PyTorch's own nodes of `run`, its reference: they take batched gradients."""
    keep = torch.is_grad_enabled()
    need = [v is not None and wanted for v, wanted in zip(inputs, ctx.needs_input_grad)]
    with torch.enable_grad():
        given = [v if v is None else v.view_as(v) if keep else v.detach().requires_grad_(n) for v, n in zip(inputs, need)]
        wanted = [v for v, n in zip(given, need) if n]
        found = iter(torch.autograd.grad(run(*given), wanted, dz, create_graph=keep))  # type: ignore[arg-type]
    return tuple(next(found) if n else None for n in need)


def _differentiable_backward(run: Any, setup: Any, twice: Any) -> Any:
    """`run`, a backward's launcher, as an eager function with the gradient `twice`: what a kept graph differentiates."""

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
        dense(x), _vector(weight), _vector(bias), groups, eps, act, slope, running, tracked, momentum
    )
    return z, stats


def _train_backward(
    dz: Tensor, x: Tensor, weight: MaybeTensor, bias: MaybeTensor, stats: Tensor, eps: float, act: str, slope: float
) -> tuple[Tensor, Tensor]:
    dx, sums = backward_kernels.train_backward(dense(dz), dense(x), _vector(weight), _vector(bias), stats, eps, act, slope)
    return dx, sums


@torch.library.custom_op("fastgan::norm_train", mutates_args=())
def norm_train(
    x: Tensor, weight: MaybeTensor, bias: MaybeTensor, groups: int, eps: float, act: str, slope: float
) -> tuple[Tensor, Tensor]:
    """(z, statistics [2, groups, C]): act of x (N, C, *) normalised by its own moments, group by group."""
    return _train(x, weight, bias, groups, eps, act, slope)


@torch.library.custom_op("fastgan::norm_train_backward", mutates_args=())
def norm_train_backward(
    dz: Tensor, x: Tensor, weight: MaybeTensor, bias: MaybeTensor, stats: Tensor, eps: float, act: str, slope: float
) -> tuple[Tensor, Tensor]:
    """(dx, sums [A, 2, C] of dp and dp xhat)."""
    return _train_backward(dz, x, weight, bias, stats, eps, act, slope)


@norm_train.register_fake
def _(
    x: Tensor, weight: MaybeTensor, bias: MaybeTensor, groups: int, eps: float, act: str, slope: float
) -> tuple[Tensor, Tensor]:
    return like(x), x.new_empty((2, groups, x.shape[1]), dtype=torch.float32)


@norm_train_backward.register_fake
def _(
    dz: Tensor, x: Tensor, weight: MaybeTensor, bias: MaybeTensor, stats: Tensor, eps: float, act: str, slope: float
) -> tuple[Tensor, Tensor]:
    parts = max(stats.shape[1], _parts(weight, bias))
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
                x, None, None, weight, bias, True, 0.0, eps, activation=act, slope=slope, groups=groups
            )

        return _reference_gradients(ctx, dz, run, x, weight, bias)
    dx, sums = backward(dz, x, weight, bias, stats, *ctx.args)
    need = ctx.needs_input_grad
    return (dx if need[0] else None, *_vector_gradients(sums, weight, bias, need))


def _train_backward_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    dz, x, weight, bias, stats, *ctx.args = inputs
    ctx.save_for_backward(dz, x, weight, bias)
    ctx.segments = stats.shape[1]
    ctx.set_materialize_grads(False)


def _train_twice(ctx: Any, vdx: MaybeTensor, vsums: MaybeTensor) -> tuple[Any, ...]:
    ctx.twice = (*ctx.saved_tensors, None, None)
    ctx.twice_args = (ctx.segments, *ctx.args)
    ctx.twice_graph = torch.is_grad_enabled()
    return (*_twice(ctx, vdx, vsums), None, None, None, None)


norm_train.register_autograd(
    lambda ctx, dz, _: (*_train_gradients(ctx, dz, norm_train_backward), None, None, None, None), setup_context=_train_setup
)
norm_train_backward.register_autograd(_train_twice, setup_context=_train_backward_setup)


_TrainBackward = _differentiable_backward(_train_backward, _train_backward_setup, _train_twice)


class _Train(torch.autograd.Function):
    """z alone: settings travel as one argument and the statistics leave in a list, since each tensor and argument of `apply`
    costs host time.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: MaybeTensor, bias: MaybeTensor, settings: tuple[Any, ...], found: list[Tensor]
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
    """(z, statistics [2, groups, C]), with the running statistics updated in place. z is a tensor of its own, no view."""
    if plain(x, weight, bias, running_mean, running_var):
        settings = (groups, eps, act, slope, running_mean, running_var, tracked, momentum)
        if _tracked(x, weight, bias):
            found: list[Tensor] = []
            z, stats = _eager_train(x, weight, bias, settings, found), found[0]
        else:
            z, stats = _train(x, weight, bias, *settings)
        if running_mean is not None and running_var is not None:
            torch.autograd.graph.increment_version(
                [running_mean, running_var] + ([] if tracked is None or momentum is None else [tracked])
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


# Statistics given: eval, frozen, and scale and shift that were handed on.


def _apply(
    x: Tensor, weight: MaybeTensor, bias: MaybeTensor, mean: MaybeTensor, var: MaybeTensor, eps: float, act: str, slope: float
) -> Tensor:
    return kernels.apply(dense(x), _vector(weight), _vector(bias), _vector(mean), _vector(var), eps, act, slope)


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
    args = (dense(dz), dense(x), _vector(weight), _vector(bias), _vector(mean), _vector(var))
    none = x.new_empty(0, dtype=torch.float32)
    if not need_sums:
        return backward_kernels.dx(*args, None, eps, act, slope), none
    dx, sums = backward_kernels.reduce(*args, eps, act, slope, need_dx)
    return x.new_empty(0) if dx is None else dx, sums


@torch.library.custom_op("fastgan::norm_apply", mutates_args=())
def norm_apply(
    x: Tensor, weight: MaybeTensor, bias: MaybeTensor, mean: MaybeTensor, var: MaybeTensor, eps: float, act: str, slope: float
) -> Tensor:
    """act((x - mean) / sqrt(var + eps) weight + bias), or act(x weight + bias); vectors are [C] or [P, C]."""
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
    """(dx, sums [A, 2, C] of dp and dp xhat) in one reading; an output that is not needed is empty."""
    return _apply_backward(dz, x, weight, bias, mean, var, eps, act, slope, need_dx, need_sums)


@norm_apply.register_fake
def _(
    x: Tensor, weight: MaybeTensor, bias: MaybeTensor, mean: MaybeTensor, var: MaybeTensor, eps: float, act: str, slope: float
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
    shape = (_parts(weight, bias, mean, var), 2, x.shape[1]) if need_sums else (0,)
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

        return _reference_gradients(ctx, dz, run, x, weight, bias) + (None,) * 5
    need = ctx.needs_input_grad
    dx, sums = backward(dz, x, weight, bias, mean, var, ctx.eps, ctx.act, ctx.slope, need[0], need[1] or need[2])
    if not (need[1] or need[2]):
        return (dx,) + (None,) * 7
    return (dx if need[0] else None, *_vector_gradients(sums, weight, bias, need)) + (None,) * 5


def _apply_backward_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, eps, act, slope, _, _ = inputs
    ctx.args = (eps, act, slope)
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _apply_twice(ctx: Any, vdx: MaybeTensor, vsums: MaybeTensor) -> tuple[Any, ...]:
    ctx.twice = ctx.saved_tensors
    ctx.twice_args = (None, *ctx.args)
    ctx.twice_graph = torch.is_grad_enabled()
    return _twice(ctx, vdx, vsums) + (None,) * 7


norm_apply.register_autograd(lambda ctx, dz: _apply_gradients(ctx, dz, norm_apply_backward), setup_context=_apply_setup)
norm_apply_backward.register_autograd(_apply_twice, setup_context=_apply_backward_setup)


_ApplyBackward = _differentiable_backward(_apply_backward, _apply_backward_setup, _apply_twice)


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: MaybeTensor, bias: MaybeTensor, settings: tuple[Any, ...]) -> Tensor:
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
        if _tracked(x, weight, bias):
            return _eager_apply(x, weight, bias, (mean, var, eps, act, slope))
        return _apply(x, weight, bias, mean, var, eps, act, slope)
    return norm_apply(x, weight, bias, mean, var, eps, act, slope)
