"""Moments for normalisation that is handed on, and running statistics, as registered operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.kernels.norm import moments
from fastgan.kernels.norm import running as running_kernels
from fastgan.ops.norm.reference import dense, like, rows

MaybeTensor = Tensor | None


@torch.library.custom_op("fastgan::norm_moments", mutates_args=())
def norm_moments(x: Tensor, groups: int) -> Tensor:
    """fp32 [2, groups, C]: mean and biased variance of x (N, C, *)."""
    return moments.moments(dense(x), groups)


@torch.library.custom_op("fastgan::norm_moments_backward", mutates_args=())
def norm_moments_backward(x: Tensor, stats: Tensor, dstats: Tensor) -> Tensor:
    """dmean/n + dvar (2/n) (x - mean)."""
    return moments.moments_backward(None, dense(x), stats, dstats.contiguous())


@norm_moments.register_fake
def _(x: Tensor, groups: int) -> Tensor:
    return x.new_empty((2, groups, x.shape[1]), dtype=torch.float32)


@norm_moments_backward.register_fake
def _(x: Tensor, stats: Tensor, dstats: Tensor) -> Tensor:
    return like(x)


def _moments_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], output)


def _moments_backward_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[2])


def _moments_twice(ctx: Any, vdx: Tensor) -> tuple[MaybeTensor, None, MaybeTensor]:
    x, dstats = ctx.saved_tensors
    groups, channels = dstats.shape[1:]
    v, part = (
        rows(vdx).float().view(groups, -1, channels),
        rows(x).float().view(groups, -1, channels),
    )
    d = part - part.mean(1, keepdim=True)
    # x - mean(x) is a symmetric projection, so the same projection of v carries the gradient back
    flat = (2.0 * dstats[1][:, None] * (v - v.mean(1, keepdim=True)) / part.shape[1]).reshape(
        -1, channels
    )
    dx = flat.view(x.shape[0], *x.shape[2:], channels).movedim(-1, 1).to(x.dtype)
    return dx, None, torch.stack((v.mean(1), 2.0 * (v * d).mean(1)))


norm_moments.register_autograd(
    lambda ctx, d: (norm_moments_backward(*ctx.saved_tensors, d), None),
    setup_context=_moments_setup,
)
norm_moments_backward.register_autograd(_moments_twice, setup_context=_moments_backward_setup)


# Buffers, outside autograd.


@torch.library.custom_op("fastgan::norm_running", mutates_args=("means", "variances", "tracked"))
def norm_running(
    means: list[Tensor],
    variances: list[Tensor],
    tracked: list[Tensor],
    stats: list[Tensor],
    rows: list[int],
    momenta: list[float],
) -> None:
    """In place: running statistics of a list of layers in one launch; momentum -1 stands for
    None."""
    running_kernels.update_all(means, variances, tracked, stats, rows, momenta)


@norm_running.register_fake
def _(
    means: list[Tensor],
    variances: list[Tensor],
    tracked: list[Tensor],
    stats: list[Tensor],
    rows: list[int],
    momenta: list[float],
) -> None:
    return None


def update_running(
    means: list[Tensor],
    variances: list[Tensor],
    tracked: list[Tensor],
    stats: list[Tensor],
    rows: list[int],
    momenta: list[float | None],
) -> None:
    """:func:`norm_running` for tensors whose gradient nobody follows."""
    with torch.no_grad():
        norm_running(
            means,
            variances,
            tracked,
            [s.detach() for s in stats],
            rows,
            [-1.0 if m is None else m for m in momenta],
        )
