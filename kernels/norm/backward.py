"""Backward of normalisation and activation over rows, and of the moments. Layout and segments as in
forward.py.

    dp = dz act'(p)        dbeta = sum dp        dgamma = sum dp xhat        xhat = (x - mean) rstd
    statistics given (eval, frozen, handed-on scale and shift), one reading of dz and x: 3 passes
        dx = dp gamma rstd
    statistics of x itself (training), the sums come first: 5 passes
        dx = rstd (gamma dp - (sum gamma dp + xhat sum gamma dp xhat) / n)

Kept from forward: x, gamma, beta and the statistics; p and with it the activation's mask are
computed again by the expression that forward used.
Sums are fp32, tile by tile and then over tiles in a fixed order; no atomics. Short segments take
one launch and find dz and x in cache the second time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.kernels.common import cdiv, tl, triton
from fastgan.kernels.norm import chain
from fastgan.kernels.norm.backward_sums import load_dp, merge_sums, reduce
from fastgan.kernels.norm.chain import wait_for_last
from fastgan.kernels.norm.tiles import (
    SIZES,
    Vectors,
    channel_vectors,
    one_launch,
    pointer,
    rows_of,
    sets_of,
    tiled,
)


@triton.jit
def dx_of(dp, x, sum0, sum1, rstd, gamma, n, WEIGHTED: tl.constexpr):
    """dx from a tile's dp and x - mean; the sums carry gamma already when WEIGHTED."""
    if WEIGHTED:
        k0, k1 = sum0 * rstd / n, sum1 * rstd * rstd / n
    else:
        k0, k1 = sum0 * rstd * gamma / n, sum1 * rstd * rstd * gamma / n
    return dp * (rstd * gamma)[None, :] - (k0[None, :] + x * k1[None, :])


@triton.jit(do_not_specialize=SIZES)
def dx_kernel(
    dz_ptr,
    x_ptr,
    dx_ptr,
    sums_ptr,
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
    HAS_SUMS: tl.constexpr,
    HAS_STATS: tl.constexpr,
    WEIGHTED: tl.constexpr,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHAINED: tl.constexpr = False,
):
    pid = (
        tl.num_programs(0) - 1 - tl.program_id(0)
    )  # backwards: the sums' pass left the end of dz and x in L2
    segment, tile = pid // TILES, pid % TILES
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    lane = tl.arange(0, BLOCK_R)
    stats_row = segment // STATS_EVERY
    mean, rstd, gamma, beta = channel_vectors(
        weight_ptr,
        bias_ptr,
        mean_ptr,
        var_ptr,
        segment // WEIGHT_EVERY,
        stats_row,
        c,
        C,
        eps,
        HAS_WEIGHT,
        HAS_BIAS,
        HAS_STATS,
    )
    scale = rstd * gamma
    base = (segment * L + tile * BLOCK_R).to(tl.int64) * C
    at = base + (lane[:, None] * C + c[None, :])
    keep = (lane < L - tile * BLOCK_R)[:, None] & (c < C)[None, :]
    dp, x = load_dp(dz_ptr, x_ptr, at, keep, mean, scale, beta, HAS_STATS, ACT, SLOPE)
    wait_for_last(CHAINED)
    if HAS_SUMS:
        slot = stats_row * 2 * C + c
        sum0 = tl.load(sums_ptr + slot, mask=c < C, other=0.0)
        sum1 = tl.load(sums_ptr + slot + C, mask=c < C, other=0.0)
        dx = dx_of(dp, x, sum0, sum1, rstd, gamma, (L * STATS_EVERY).to(tl.float32), WEIGHTED)
    else:
        dx = dp * scale[None, :]
    tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=keep)


@triton.jit(do_not_specialize=SIZES)
def segment_backward_kernel(
    dz_ptr,
    x_ptr,
    dx_ptr,
    sums_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    var_ptr,
    C,
    L,
    WEIGHT_EVERY,
    eps,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sums and dx in one launch: a program owns all rows of its channels, and finds them in cache
    the second time."""
    segment = tl.program_id(1)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    lane = tl.arange(0, BLOCK_R)
    offset = lane[:, None] * C + c[None, :]
    pitch = tl.cast(C, tl.int64)
    base = segment * L.to(tl.int64) * C
    mean, rstd, gamma, beta = channel_vectors(
        weight_ptr,
        bias_ptr,
        mean_ptr,
        var_ptr,
        segment // WEIGHT_EVERY,
        segment,
        c,
        C,
        eps,
        HAS_WEIGHT,
        HAS_BIAS,
        True,
    )
    scale = rstd * gamma
    sum0 = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    sum1 = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for row in range(0, L, BLOCK_R):
        keep = (lane < L - row)[:, None] & (c < C)[None, :]
        dp, x = load_dp(
            dz_ptr, x_ptr, base + row * pitch + offset, keep, mean, scale, beta, True, ACT, SLOPE
        )
        sum0 += dp
        sum1 += dp * x
    total0, total1 = tl.sum(sum0, 0), tl.sum(sum1, 0) * rstd
    slot = segment * 2 * C + c
    tl.store(sums_ptr + slot, total0, mask=c < C)
    tl.store(sums_ptr + slot + C, total1, mask=c < C)
    for row in range(0, L, BLOCK_R):
        keep = (lane < L - row)[:, None] & (c < C)[None, :]
        at = base + row * pitch + offset
        dp, x = load_dp(dz_ptr, x_ptr, at, keep, mean, scale, beta, True, ACT, SLOPE)
        dx = dx_of(dp, x, total0, total1, rstd, gamma, L.to(tl.float32), False)
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=keep)


def dx(
    dz: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    sums: Tensor | None,
    eps: float,
    act: str,
    slope: float,
    weighted: bool = False,
    chained: bool = False,
) -> Tensor:
    """dx of dz, x [ROWS, C]: through the statistics with `sums` [S, 2, C], else dp gamma rstd; one
    launch, two reads, one write. chained: directly after `reduce`, which made the sums."""
    given = Vectors(weight, bias, mean, var)
    at, every = given.layout(x)
    config, tiles, grid = tiled("norm_dx", at)
    out = torch.empty_like(x)
    dx_kernel[grid](
        dz,
        x,
        out,
        pointer(sums, x),
        *given.pointers(x),
        at.channels,
        at.rows,
        tiles,
        *every,
        eps,
        **given.flags(),
        HAS_SUMS=sums is not None,
        WEIGHTED=weighted,
        ACT=act,
        SLOPE=slope,
        **(chain.following(x.device) if chained else {}),
        **config,
    )
    return out


def train_backward(
    dz: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    stats: Tensor,
    eps: float,
    act: str,
    slope: float,
) -> tuple[Tensor, Tensor]:
    """(dx, sums [A, 2, C] of dp and dp xhat) through the statistics [2, S, C] of x [ROWS, C]; one
    launch for short segments, else three (four with gamma per sample): sums, merge, dx.
    """
    segments, sets = stats.shape[1], sets_of(weight, bias)
    mean, var = stats.unbind(0)
    at = rows_of(x, segments)
    config = one_launch("norm_segment_backward", at) if sets in (1, segments) else None
    if config is None:
        _, sums = reduce(dz, x, weight, bias, mean, var, eps, act, slope, write_dx=False)
        through = sums
        if sets > segments:
            through = merge_sums(sums, segments, sets // segments, weight)
        weighted = sets > segments
        given = (dz, x, weight, bias, mean, var, through, eps, act, slope)
        return dx(*given, weighted=weighted, chained=not weighted), sums
    out = torch.empty_like(x)
    sums = torch.empty(segments, 2, at.channels, dtype=torch.float32, device=x.device)
    segment_backward_kernel[(cdiv(at.channels, config["BLOCK_C"]), segments)](
        dz,
        x,
        out,
        sums,
        pointer(weight, x),
        pointer(bias, x),
        mean,
        var,
        at.channels,
        at.rows,
        segments // sets,
        eps,
        HAS_WEIGHT=weight is not None,
        HAS_BIAS=bias is not None,
        ACT=act,
        SLOPE=slope,
        **config,
    )
    return out, sums
