"""Normalisation and activation over rows: z = act((x - mean) rstd gamma + beta), statistics per channel and segment.

Layout: x (N, C, *) lies channels innermost in memory (channels_last): ROWS = N * rows of C. They
fall into S statistics segments of equal length (1: batch norm, 2: real | fake, N: instance norm)
and P sets of gamma, beta (1: per channel, N: per sample); A = max(S, P) divides the rows.
Statistics are fp32 [2, S, C]: mean and biased variance of x as stored. Forward reads x twice and
writes z: 3 passes, and one launch for short segments.

Every sum has a fixed order: results repeat bit for bit. Variance is Welford's in a lane and Chan's
between lanes and tiles, about a sample of the channel: no raw sums, so it is safe where |mean|/std
= 100 (Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983). Backward:
norm_backward.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.kernels._common import cdiv, tl, triton
from fastgan.kernels.activations import act
from fastgan.kernels.norm_tiles import (
    SIZES,
    Vectors,
    channel_vectors,
    count_batches,
    merge_config,
    merge_lanes,
    one_launch,
    pointer,
    preactivation,
    rows_of,
    running_factor,
    sets_of,
    split,
    tiled,
    update_running,
    welford_rows,
)


@triton.jit(do_not_specialize=SIZES)
def moments_kernel(x_ptr, part_ptr, C, L, SPLITS, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    segment, split = tl.program_id(0) // SPLITS, tl.program_id(0) % SPLITS
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    # Splits interleave tile by tile: memory is read in order, and its end is still in L2 when the next pass starts there.
    base = segment.to(tl.int64) * L * C
    pivot, count, mean, m2 = welford_rows(x_ptr, base, split * BLOCK_R, SPLITS * BLOCK_R, L, c, C, BLOCK_R, BLOCK_C)
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
):
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
        pivot = tl.load(part_ptr + (segment * SPLITS).to(tl.int64) * 2 * C + c, mask=c < C, other=0.0)
        for t in range(0, SPLITS, BLOCK_T):
            split = t + tl.arange(0, BLOCK_T)
            rows = whole_turns * TILE_ROWS + tl.minimum(tl.maximum(rest - split * TILE_ROWS, 0), TILE_ROWS)
            n = tl.where(split < SPLITS, rows, 0).to(tl.float32)[:, None]
            slot = (segment * SPLITS + split).to(tl.int64)[:, None] * 2 * C + c[None, :]
            keep = (split < SPLITS)[:, None] & live
            d = tl.where(keep, tl.load(part_ptr + slot, mask=keep, other=0.0) - pivot[None, :] - mean, 0.0)
            share = n / tl.maximum(count + n, 1.0)
            m2 += tl.load(part_ptr + slot + C, mask=keep, other=0.0) + d * d * count * share
            mean += d * share
            count += n
        mean, m2 = merge_lanes(count, mean, m2, L.to(tl.float32))
        mean += pivot
        var = m2 / L.to(tl.float32)
        tl.store(stats_ptr + segment * C + c, mean, mask=c < C)
        tl.store(stats_ptr + (SEGMENTS + segment) * C + c, var, mask=c < C)
        if RUNNING:
            factor = running_factor(tracked_ptr, segment, SEGMENTS, momentum, CUMULATIVE)
            update_running(running_mean_ptr, running_var_ptr, c, C, mean, var, L.to(tl.float32), factor)


@triton.jit(do_not_specialize=SIZES)
def apply_kernel(
    x_ptr,
    z_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    var_ptr,
    C,
    L,
    TILES,
    WEIGHT_EVERY,
    STATS_EVERY,
    eps,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_STATS: tl.constexpr,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    pid = tl.num_programs(0) - 1 - tl.program_id(0)  # backwards: the statistics pass left the end of x in L2
    segment, tile = pid // TILES, pid % TILES
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    lane = tl.arange(0, BLOCK_R)
    base = (segment * L + tile * BLOCK_R).to(tl.int64) * C
    offset = lane[:, None] * C + c[None, :]
    keep = (lane < L - tile * BLOCK_R)[:, None] & (c < C)[None, :]
    x = tl.load(x_ptr + base + offset, mask=keep, other=0.0)
    mean, rstd, gamma, beta = channel_vectors(
        weight_ptr,
        bias_ptr,
        mean_ptr,
        var_ptr,
        segment // WEIGHT_EVERY,
        segment // STATS_EVERY,
        c,
        C,
        eps,
        HAS_WEIGHT,
        HAS_BIAS,
        HAS_STATS,
    )
    z = act(preactivation(x, mean, rstd * gamma, beta, HAS_STATS), ACT, SLOPE)
    tl.store(z_ptr + base + offset, z.to(z_ptr.dtype.element_ty), mask=keep)


@triton.jit(do_not_specialize=SIZES)
def segment_forward_kernel(
    x_ptr,
    z_ptr,
    stats_ptr,
    weight_ptr,
    bias_ptr,
    running_mean_ptr,
    running_var_ptr,
    tracked_ptr,
    C,
    L,
    SEGMENTS,
    WEIGHT_EVERY,
    eps,
    momentum,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    RUNNING: tl.constexpr,
    CUMULATIVE: tl.constexpr,
    TRACKED: tl.constexpr,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The whole forward in one launch: a program owns all rows of its channels, and finds them in cache the second time."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    lane = tl.arange(0, BLOCK_R)
    offset = lane[:, None] * C + c[None, :]
    pitch = tl.cast(C, tl.int64)
    count_batches(tracked_ptr, SEGMENTS, RUNNING, CUMULATIVE, TRACKED)
    first, last = tl.program_id(1), tl.program_id(1) + 1
    if RUNNING:
        first, last = 0, SEGMENTS
    for segment in range(first, last):
        base = segment * L.to(tl.int64) * C
        pivot, count, mean, m2 = welford_rows(x_ptr, base, 0, BLOCK_R, L, c, C, BLOCK_R, BLOCK_C)
        n = L.to(tl.float32)
        mean, m2 = merge_lanes(count, mean, m2, n)
        mean += pivot
        var = m2 / n
        tl.store(stats_ptr + segment * C + c, mean, mask=c < C)
        tl.store(stats_ptr + (SEGMENTS + segment) * C + c, var, mask=c < C)
        if RUNNING:
            factor = running_factor(tracked_ptr, segment, SEGMENTS, momentum, CUMULATIVE)
            update_running(running_mean_ptr, running_var_ptr, c, C, mean, var, L.to(tl.float32), factor)
        _, _, gamma, beta = channel_vectors(
            weight_ptr, bias_ptr, stats_ptr, stats_ptr, segment // WEIGHT_EVERY, 0, c, C, eps, HAS_WEIGHT, HAS_BIAS, False
        )
        scale = gamma / tl.sqrt_rn(var + eps)
        for row in range(0, L, BLOCK_R):
            keep = (lane < L - row)[:, None] & (c < C)[None, :]
            at = base + row * pitch
            x = tl.load(x_ptr + at + offset, mask=keep, other=0.0)
            z = act(preactivation(x, mean, scale, beta, True), ACT, SLOPE)
            tl.store(z_ptr + at + offset, z.to(z_ptr.dtype.element_ty), mask=keep)


def count_first(tracked: Tensor | None, segments: int, running: tuple[Tensor, Tensor] | None, momentum: float | None) -> None:
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
    """fp32 [2, segments, C] mean and biased variance of x [ROWS, C]; two launches. `running` (mean, var) [C] is updated in
    place, segment by segment;
    `tracked` (int64, 0-dim) is increased by `segments`; momentum=None takes 1/count from it.
    """
    count_first(tracked, segments, running, momentum)
    at = rows_of(x, segments)
    channels, rows = at.channels, at.rows
    config, parts, grid = split("norm_moments", at, 4)
    part = torch.empty(segments * parts, 2, channels, dtype=torch.float32, device=x.device)
    stats = torch.empty(2, segments, channels, dtype=torch.float32, device=x.device)
    moments_kernel[grid](x, part, channels, rows, parts, **config)
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
        **merge,
    )
    return stats


def apply(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    act: str,
    slope: float,
) -> Tensor:
    """act((x - mean) / sqrt(var + eps) weight + bias) of x [ROWS, C], or act(x weight + bias) without statistics; one launch,
    one read, one write.

    weight, bias: [C] or [P, C]; mean, var: [C] or [S, C], S and P dividing each other's larger.
    """
    given = Vectors(weight, bias, mean, var)
    at, every = given.layout(x)
    config, tiles, grid = tiled("norm_apply", at)
    z = torch.empty_like(x)
    apply_kernel[grid](
        x, z, *given.pointers(x), at.channels, at.rows, tiles, *every, eps, **given.flags(), ACT=act, SLOPE=slope, **config
    )
    return z


def train_forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    segments: int,
    eps: float,
    act: str,
    slope: float,
    running: tuple[Tensor, Tensor] | None = None,
    tracked: Tensor | None = None,
    momentum: float | None = 0.1,
) -> tuple[Tensor, Tensor]:
    """(z like x, statistics [2, segments, C]) of x [ROWS, C] normalised by its own moments; one launch for short segments,
    else three."""
    sets = sets_of(weight, bias)
    at = rows_of(x, segments)
    config = one_launch("norm_segment_forward", at) if sets in (1, segments) else None
    if config is None:
        stats = moments(x, segments, running, tracked, momentum)
        batch_mean, batch_var = stats.unbind(0)
        return apply(x, weight, bias, batch_mean, batch_var, eps, act, slope), stats
    count_first(tracked, segments, running, momentum)
    z = torch.empty_like(x)
    stats = torch.empty(2, segments, at.channels, dtype=torch.float32, device=x.device)
    mean, var = running or (stats, stats)
    segment_forward_kernel[(cdiv(at.channels, config["BLOCK_C"]), 1 if running else segments)](
        x,
        z,
        stats,
        pointer(weight, x),
        pointer(bias, x),
        mean,
        var,
        pointer(tracked, stats),
        at.channels,
        at.rows,
        segments,
        segments // sets,
        eps,
        momentum or 0.0,
        HAS_WEIGHT=weight is not None,
        HAS_BIAS=bias is not None,
        RUNNING=running is not None,
        CUMULATIVE=momentum is None,
        TRACKED=tracked is not None,
        ACT=act,
        SLOPE=slope,
        **config,
    )
    return z, stats
