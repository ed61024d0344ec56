"""Mean and variance over rows, and the backward of both. Layout and segments as in forward.py."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.kernels.common import cdiv, tl, triton
from fastgan.kernels.norm import chain
from fastgan.kernels.norm.chain import let_next_begin, wait_for_last
from fastgan.kernels.norm.tiles import (
    SIZES,
    count_batches,
    merge_config,
    merge_lanes,
    pointer,
    rows_of,
    split,
    store_statistics,
    tiled,
    welford_rows,
)


@triton.jit(do_not_specialize=SIZES)
def moments_kernel(
    x_ptr,
    part_ptr,
    C,
    L,
    SPLITS,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHAINED: tl.constexpr = False,
):
    let_next_begin(CHAINED)
    segment, split = tl.program_id(0) // SPLITS, tl.program_id(0) % SPLITS
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    # Splits interleave tile by tile: memory is read in order, and its end is still in L2 when the
    # next pass starts there.
    base = segment.to(tl.int64) * L * C
    pivot, count, mean, m2 = welford_rows(
        x_ptr, base, split * BLOCK_R, SPLITS * BLOCK_R, L, c, C, BLOCK_R, BLOCK_C
    )
    mean, m2 = merge_lanes(count, mean, m2, tl.sum(count))
    slot = (segment * SPLITS + split).to(tl.int64) * 2 * C + c
    tl.store(part_ptr + slot, pivot + mean, mask=c < C)
    tl.store(part_ptr + slot + C, m2, mask=c < C)


@triton.jit(do_not_specialize=SIZES)
def merge_moments_kernel(
    part_ptr,
    stats_ptr,
    running_mean_ptr,
    running_var_ptr,
    tracked_ptr,
    C,
    L,
    SPLITS,
    SEGMENTS,
    TILE_ROWS,
    momentum,
    RUNNING: tl.constexpr,
    CUMULATIVE: tl.constexpr,
    TRACKED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHAINED: tl.constexpr = False,
):
    let_next_begin(CHAINED)
    wait_for_last(CHAINED)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    live = (c < C)[None, :]
    first, last = tl.program_id(1), tl.program_id(1) + 1
    if RUNNING:  # updates are ordered (real, then fake): one program goes through the segments
        first, last = 0, SEGMENTS
    count_batches(tracked_ptr, SEGMENTS, RUNNING, CUMULATIVE, TRACKED)
    whole_turns = L // (SPLITS * TILE_ROWS)
    rest = L - whole_turns * SPLITS * TILE_ROWS
    for segment in range(first, last):
        count = tl.zeros((BLOCK_T, 1), tl.float32)
        mean = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
        m2 = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
        pivot = tl.load(
            part_ptr + (segment * SPLITS).to(tl.int64) * 2 * C + c, mask=c < C, other=0.0
        )
        for t in range(0, SPLITS, BLOCK_T):
            split = t + tl.arange(0, BLOCK_T)
            rows = whole_turns * TILE_ROWS + tl.minimum(
                tl.maximum(rest - split * TILE_ROWS, 0), TILE_ROWS
            )
            n = tl.where(split < SPLITS, rows, 0).to(tl.float32)[:, None]
            slot = (segment * SPLITS + split).to(tl.int64)[:, None] * 2 * C + c[None, :]
            keep = (split < SPLITS)[:, None] & live
            d = tl.where(
                keep, tl.load(part_ptr + slot, mask=keep, other=0.0) - pivot[None, :] - mean, 0.0
            )
            share = n / tl.maximum(count + n, 1.0)
            m2 += tl.load(part_ptr + slot + C, mask=keep, other=0.0) + d * d * count * share
            mean += d * share
            count += n
        mean, m2 = merge_lanes(count, mean, m2, L.to(tl.float32))
        mean += pivot
        var = m2 / L.to(tl.float32)
        store_statistics(
            *(stats_ptr, running_mean_ptr, running_var_ptr, tracked_ptr, segment, SEGMENTS, c, C),
            *(mean, var, L.to(tl.float32), momentum, RUNNING, CUMULATIVE),
        )


def count_first(
    tracked: Tensor | None,
    segments: int,
    running: tuple[Tensor, Tensor] | None,
    momentum: float | None,
) -> None:
    """The count that a cumulative factor reads must be ready before the launch that reads it."""
    if tracked is not None and running is not None and momentum is None:
        tracked.add_(segments)


def moments(
    x: Tensor,
    segments: int,
    running: tuple[Tensor, Tensor] | None = None,
    tracked: Tensor | None = None,
    momentum: float | None = 0.1,
) -> Tensor:
    """fp32 [2, segments, C] mean and biased variance of x [ROWS, C]; two launches. `running` (mean,
    var) [C] is updated in place, segment by segment;
    `tracked` (int64, 0-dim) is increased by `segments`; momentum=None takes 1/count from it.
    """
    count_first(tracked, segments, running, momentum)
    at = rows_of(x, segments)
    channels, rows = at.channels, at.rows
    config, parts, grid = split("norm_moments", at, 4)
    part = torch.empty(segments * parts, 2, channels, dtype=torch.float32, device=x.device)
    stats = torch.empty(2, segments, channels, dtype=torch.float32, device=x.device)
    moments_kernel[grid](x, part, channels, rows, parts, **chain.first(x.device), **config)
    merge = merge_config(channels, parts, x.device)
    mean, var = running or (stats, stats)
    merge_moments_kernel[(cdiv(channels, merge["BLOCK_C"]), 1 if running else segments)](
        part,
        stats,
        mean,
        var,
        pointer(tracked, stats),
        channels,
        rows,
        parts,
        segments,
        config["BLOCK_R"],
        momentum or 0.0,
        RUNNING=running is not None,
        CUMULATIVE=momentum is None,
        TRACKED=tracked is not None,
        **chain.following(x.device),
        **merge,
    )
    return stats


@triton.jit(do_not_specialize=SIZES)
def moments_dx_kernel(
    dy_ptr,
    x_ptr,
    dx_ptr,
    mean_ptr,
    dmean_ptr,
    dvar_ptr,
    C,
    L,
    TILES,
    HAS_DY: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """g = dy + dmean/n + dvar (2/n) (x - mean): what the moments add to the gradient of the tensor
    they were taken of."""
    pid = tl.program_id(0)
    segment, tile = pid // TILES, pid % TILES
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    lane = tl.arange(0, BLOCK_R)
    n = L.to(tl.float32)
    slot = segment * C + c
    mean = tl.load(mean_ptr + slot, mask=c < C, other=0.0)
    k0 = tl.load(dmean_ptr + slot, mask=c < C, other=0.0) / n
    k1 = tl.load(dvar_ptr + slot, mask=c < C, other=0.0) * (2.0 / n)
    base = (segment * L + tile * BLOCK_R).to(tl.int64) * C
    at = base + (lane[:, None] * C + c[None, :])
    keep = (lane < L - tile * BLOCK_R)[:, None] & (c < C)[None, :]
    g = k0[None, :] + k1[None, :] * (
        tl.load(x_ptr + at, mask=keep, other=0.0).to(tl.float32) - mean[None, :]
    )
    if HAS_DY:
        g += tl.load(dy_ptr + at, mask=keep, other=0.0).to(tl.float32)
    tl.store(dx_ptr + at, g.to(dx_ptr.dtype.element_ty), mask=keep)


def moments_backward(dy: Tensor | None, x: Tensor, stats: Tensor, dstats: Tensor) -> Tensor:
    """g = dy + dmean/n + dvar (2/n) (x - mean) of x [ROWS, C] and stats, dstats [2, S, C]; one
    launch."""
    at = rows_of(x, stats.shape[1])
    config, tiles, grid = tiled("norm_moments_dx", at)
    out = torch.empty_like(x)
    moments_dx_kernel[grid](
        pointer(dy, x),
        x,
        out,
        stats[0],
        *dstats.unbind(0),
        at.channels,
        at.rows,
        tiles,
        HAS_DY=dy is not None,
        **config,
    )
    return out
