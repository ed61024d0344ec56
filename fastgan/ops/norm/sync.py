"""Batch normalisation over the batches of all ranks: (mean, M2, count) are gathered and merged,
never raw sums."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastgan.errors import FastganError


class Gather(torch.autograd.Function):
    """(C,) of each rank -> (world, C) on all of them; differentiable to any order."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        parts = [torch.empty_like(value) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, value.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return Scatter.apply(grads[0])


class Scatter(torch.autograd.Function):
    """(world, C) of each rank -> the sum over ranks of the row that is this rank's, (C,): the
    adjoint of Gather."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        total = rows.clone()
        dist.all_reduce(total)
        return total[dist.get_rank()]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return Gather.apply(grads[0])


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """torch.nn.BatchNorm of any dimension whose training statistics span all ranks; alone it is
    exactly that.

    Moments are merged by Chan, Golub, LeVeque 1983 in rank order, so that all ranks hold the same
    ones; counts may differ.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not (self.training and several()):
            return super().forward(input)
        y = normalised(self, input)
        if self.affine:
            shape = [1, -1] + [1] * (input.dim() - 2)
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)


def several() -> bool:
    """Whether there are other processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def normalised(norm: nn.modules.batchnorm._BatchNorm, input: Tensor) -> Tensor:
    """(input - mean) / sqrt(var + eps) by the moments of all ranks, which `norm` tracks; fp32 or
    fp64."""
    dims = [d for d in range(input.dim()) if d != 1]
    shape = [1, -1] + [1] * (input.dim() - 2)
    values = input if input.dtype == torch.float64 else input.float()
    count = values.new_full((1,), values.numel() / values.shape[1])
    var, mean = torch.var_mean(values, dims, correction=0)
    rows = Gather.apply(torch.cat([mean, var * count, count]))
    means, m2s, counts = rows[:, : len(mean)], rows[:, len(mean) : -1], rows[:, -1:]
    total = counts.sum()
    mean = (means * counts).sum(0) / total
    var = (m2s.sum(0) + (counts * (means - mean).square()).sum(0)) / total
    _track(norm, mean.detach(), var.detach() * total / (total - 1))
    return (values - mean.view(shape)) * (var.view(shape) + norm.eps).rsqrt()


@torch.no_grad()
def _track(norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, unbiased: Tensor) -> None:
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = 1.0 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
    norm.running_mean.add_((mean - norm.running_mean) * share)
    norm.running_var.add_((unbiased - norm.running_var) * share)


def convert(module: nn.Module) -> nn.Module:
    """Turn every plain BatchNorm inside `module` into a SyncBatchNorm, in place; parameters and
    buffers stay the same objects.

    A subclass is turned into what its attribute `synchronised` names; one without it is left, since
    what else it does is not known here (`left` names them). Raises FastganError, before anything is
    turned, for a BatchNorm of fastgan's own, whose kernel sees one process's batch.
    """
    for name, child in module.named_modules():
        if (
            isinstance(child, nn.modules.batchnorm._BatchNorm)
            and type(child).__module__ == "fastgan.ops.norm.modules"
        ):
            raise FastganError(
                f"{type(child).__name__} {name or type(module).__name__} is one of fastgan's own, "
                "which can't span processes: "
                "revert(net) first, or give the network without accelerate; sync_bn does the rest"
            )
    for child in module.modules():
        if (kind := _synchronised(type(child))) is not None:
            child.__class__ = kind
    return module


def _synchronised(kind: type) -> Any:
    """What a class is turned into; None where that is not known."""
    plain = kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return SyncBatchNorm if plain else getattr(kind, "synchronised", None)


def left(module: nn.Module) -> list[str]:
    """The batch norms inside `module` that `convert` leaves: they see one process's batch alone."""
    return [
        f"{name or 'the network itself'} ({type(child).__name__})"
        for name, child in module.named_modules()
        if isinstance(child, nn.modules.batchnorm._BatchNorm)
        and not isinstance(child, (SyncBatchNorm, nn.SyncBatchNorm))
        and _synchronised(type(child)) is None
    ]
