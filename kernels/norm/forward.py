"""Normalisation and activation over rows: z = act((x - mean) rstd gamma + beta), statistics per
channel and segment.

Layout: x (N, C, *) lies channels innermost in memory (channels_last): ROWS = N * rows of C. They
fall into S statistics segments of equal length (1: batch norm, 2: real | fake, N: instance norm)
and P sets of gamma, beta (1: per channel, N: per sample); A = max(S, P) divides the rows.
Statistics are fp32 [2, S, C]: mean and biased variance of x as stored. Forward reads x twice and
writes z: 3 passes, and one launch for short segments.

Every sum has a fixed order: results repeat bit for bit. Variance is Welford's in a lane and Chan's
between lanes and tiles, about a sample of the channel: no raw sums, so it is safe where |mean|/std
= 100 (Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983). Backward:
backward.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.kernels.activations import act
from fastgan.kernels.common import cdiv, tl, triton
from fastgan.kernels.norm import chain
from fastgan.kernels.norm.chain import wait_for_last
from fastgan.kernels.norm.moments import count_first, moments
from fastgan.kernels.norm.tiles import (
    SIZES,
    Vectors,
    channel_vectors,
    count_batches,
    merge_lanes,
    one_launch,
    pointer,
    preactivation,
    rows_of,
    sets_of,
    store_statistics,
    tiled,
    welford_rows,
)


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
    CHAINED: tl.constexpr = False,
):
    pid = (
        tl.num_programs(0) - 1 - tl.program_id(0)
    )  # backwards: the statistics pass left the end of x in L2
    segment, tile = pid // TILES, pid % TILES
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    lane = tl.arange(0, BLOCK_R)
    base = (segment * L + tile * BLOCK_R).to(tl.int64) * C
    offset = lane[:, None] * C + c[None, :]
    keep = (lane < L - tile * BLOCK_R)[:, None] & (c < C)[None, :]
    x = tl.load(x_ptr + base + offset, mask=keep, other=0.0)
    wait_for_last(CHAINED)
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
    """The whole forward in one launch: a program owns all rows of its channels, and finds them in
    cache the second time."""
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
        store_statistics(
            *(stats_ptr, running_mean_ptr, running_var_ptr, tracked_ptr, segment, SEGMENTS, c, C),
            *(mean, var, n, momentum, RUNNING, CUMULATIVE),
        )
        _, _, gamma, beta = channel_vectors(
            weight_ptr,
            bias_ptr,
            stats_ptr,
            stats_ptr,
            segment // WEIGHT_EVERY,
            0,
            c,
            C,
            eps,
            HAS_WEIGHT,
            HAS_BIAS,
            False,
        )
        scale = gamma / tl.sqrt_rn(var + eps)
        for row in range(0, L, BLOCK_R):
            keep = (lane < L - row)[:, None] & (c < C)[None, :]
            at = base + row * pitch
            x = tl.load(x_ptr + at + offset, mask=keep, other=0.0)
            z = act(preactivation(x, mean, scale, beta, True), ACT, SLOPE)
            tl.store(z_ptr + at + offset, z.to(z_ptr.dtype.element_ty), mask=keep)


def apply(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    act: str,
    slope: float,
    chained: bool = False,
) -> Tensor:
    """act((x - mean) / sqrt(var + eps) weight + bias) of x [ROWS, C], or act(x weight + bias)
    without statistics; one launch, one read, one write.

    weight, bias: [C] or [P, C]; mean, var: [C] or [S, C], S and P dividing each other's larger.
    chained: directly after `moments`, which made mean and var.
    """
    given = Vectors(weight, bias, mean, var)
    at, every = given.layout(x)
    config, tiles, grid = tiled("norm_apply", at)
    z = torch.empty_like(x)
    apply_kernel[grid](
        x,
        z,
        *given.pointers(x),
        at.channels,
        at.rows,
        tiles,
        *every,
        eps,
        **given.flags(),
        ACT=act,
        SLOPE=slope,
        **(chain.following(x.device) if chained else {}),
        **config,
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
    """(z like x, statistics [2, segments, C]) of x [ROWS, C] normalised by its own moments; one
    launch for short segments, else three."""
    sets = sets_of(weight, bias)
    at = rows_of(x, segments)
    config = one_launch("norm_segment_forward", at) if sets in (1, segments) else None
    if config is None:
        stats = moments(x, segments, running, tracked, momentum)
        batch_mean, batch_var = stats.unbind(0)
        z = apply(x, weight, bias, batch_mean, batch_var, eps, act, slope, chained=True)
        return z, stats
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
