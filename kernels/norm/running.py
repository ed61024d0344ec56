"""Running statistics of all the normalisation layers of a network in one launch.

    running  <- (1 - m) running + m statistics

group by group (real, then fake), unbiased variance, count += groups.

Pointers travel as kernel arguments, not as a table in memory: nothing is copied to the device per
call, so addresses may change between calls and inside graph capture. Sizes are a small device
table, kept per set of shapes (the first call of a set copies it: warm up before capture). One
program a layer.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from fastgan.kernels.common import next_power_of_2, tl, triton
from fastgan.kernels.norm.tiles import update_running


@triton.jit
def pick(pointers, i, COUNT: tl.constexpr):
    """pointers[i] for a run-time i: a chain of selects."""
    p = pointers[0]
    for k in tl.static_range(1, COUNT):
        p = tl.where(i == k, pointers[k], p)
    return p


@triton.jit
def running_kernel(
    stats_ptrs,
    mean_ptrs,
    var_ptrs,
    tracked_ptrs,
    sizes_ptr,
    momenta_ptr,
    LAYERS: tl.constexpr,
    TRACKED: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    layer = tl.program_id(0)
    stats_ptr = pick(stats_ptrs, layer, LAYERS)
    mean_ptr = pick(mean_ptrs, layer, LAYERS)
    var_ptr = pick(var_ptrs, layer, LAYERS)
    C = tl.load(sizes_ptr + layer * 3)
    rows = tl.load(sizes_ptr + layer * 3 + 1).to(tl.float32)
    groups = tl.load(sizes_ptr + layer * 3 + 2)
    momentum = tl.load(momenta_ptr + layer)
    seen = momentum * 0
    if TRACKED:
        tracked_ptr = pick(tracked_ptrs, layer, LAYERS)
        count = tl.load(tracked_ptr)
        seen = count.to(tl.float32)
        tl.debug_barrier()  # every warp has read the count before it changes
        tl.store(tracked_ptr, count + groups)
    for first in range(0, C, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        for group in range(groups):
            mean = tl.load(stats_ptr + group * C + c, mask=c < C, other=0.0)
            var = tl.load(stats_ptr + (groups + group) * C + c, mask=c < C, other=0.0)
            factor = tl.where(
                momentum < 0, 1.0 / (seen + group + 1.0), momentum
            )  # momentum=None travels as -1
            update_running(mean_ptr, var_ptr, c, C, mean, var, rows, factor)


@functools.cache
def device_table(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A small constant table on the device; kept for good, so that a captured launch finds it
    there."""
    return torch.tensor(values, dtype=dtype, device=device)


def update_all(
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    tracked: Sequence[Tensor],
    stats: Sequence[Tensor],
    rows: Sequence[int],
    momenta: Sequence[float],
) -> None:
    """In place: every layer's running mean and var (fp32 [C]) with its statistics [2, groups, C]
    over rows[i] rows a group; momentum -1 means None."""
    device = stats[0].device
    sizes = tuple(v for s, n in zip(stats, rows) for v in (s.shape[2], n, s.shape[1]))
    running_kernel[(len(stats),)](
        tuple(stats),
        tuple(means),
        tuple(variances),
        tuple(tracked) or tuple(stats),
        device_table(sizes, torch.int32, device),
        device_table(tuple(momenta), torch.float32, device),
        LAYERS=len(stats),
        TRACKED=bool(tracked),
        BLOCK_C=min(next_power_of_2(max(s.shape[2] for s in stats)), 1024),
        num_warps=4,
        num_stages=1,
    )
