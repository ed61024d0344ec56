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

from fastgan.kernels.activations import act_grad
from fastgan.kernels.common import cdiv, tl, triton
from fastgan.kernels.norm.tiles import (
    SIZES,
    Vectors,
    channel_vectors,
    merge_config,
    one_launch,
    pointer,
    preactivation,
    rows_of,
    sets_of,
    split,
    tiled,
)


@triton.jit
def load_dp(
    dz_ptr,
    x_ptr,
    at,
    keep,
    mean,
    scale,
    beta,
    HAS_STATS: tl.constexpr,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
):
    """(dp, x - mean) of a tile in fp32; zero outside `keep`."""
    x = tl.load(x_ptr + at, mask=keep, other=0.0)
    dz = tl.load(dz_ptr + at, mask=keep, other=0.0).to(tl.float32)
    dp = dz * act_grad(preactivation(x, mean, scale, beta, HAS_STATS), ACT, SLOPE)
    x = x.to(tl.float32)
    if HAS_STATS:
        x -= mean[None, :]
    return dp, x


@triton.jit(do_not_specialize=SIZES)
def reduce_kernel(
    dz_ptr,
    x_ptr,
    dx_ptr,
    part_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    var_ptr,
    C,
    L,
    SPLITS,
    WEIGHT_EVERY,
    STATS_EVERY,
    eps,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_STATS: tl.constexpr,
    WRITE_DX: tl.constexpr,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Partial (sum dp, sum dp xhat) of a split; with WRITE_DX also dx = dp gamma rstd, in the same
    reading."""
    segment, split = tl.program_id(0) // SPLITS, tl.program_id(0) % SPLITS
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
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
        segment // STATS_EVERY,
        c,
        C,
        eps,
        HAS_WEIGHT,
        HAS_BIAS,
        HAS_STATS,
    )
    scale = rstd * gamma
    sum0 = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    sum1 = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for row in range(split * BLOCK_R, L, SPLITS * BLOCK_R):
        keep = (lane < L - row)[:, None] & (c < C)[None, :]
        at = base + row * pitch + offset
        dp, x = load_dp(dz_ptr, x_ptr, at, keep, mean, scale, beta, HAS_STATS, ACT, SLOPE)
        if WRITE_DX:
            tl.store(dx_ptr + at, (dp * scale[None, :]).to(dx_ptr.dtype.element_ty), mask=keep)
        sum0 += dp
        sum1 += dp * x
    slot = (segment * SPLITS + split).to(tl.int64) * 2 * C + c
    tl.store(part_ptr + slot, tl.sum(sum0, 0), mask=c < C)
    tl.store(part_ptr + slot + C, tl.sum(sum1, 0) * rstd, mask=c < C)


@triton.jit(do_not_specialize=SIZES)
def merge_sums_kernel(
    part_ptr,
    sums_ptr,
    weight_ptr,
    C,
    SPLITS,
    HAS_WEIGHT: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """sums[segment] = the sum of its SPLITS partial pairs, each times its own row of `weight`
    [SEGMENTS * SPLITS, C] with HAS_WEIGHT."""
    segment = tl.program_id(1)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    sum0 = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    sum1 = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    for t in range(0, SPLITS, BLOCK_T):
        split = t + tl.arange(0, BLOCK_T)
        keep = (split < SPLITS)[:, None] & (c < C)[None, :]
        row = (segment * SPLITS + split).to(tl.int64)[:, None]
        slot = row * 2 * C + c[None, :]
        a = tl.load(part_ptr + slot, mask=keep, other=0.0)
        b = tl.load(part_ptr + slot + C, mask=keep, other=0.0)
        if HAS_WEIGHT:
            w = tl.load(weight_ptr + row * C + c[None, :], mask=keep, other=0.0).to(tl.float32)
            a *= w
            b *= w
        sum0 += a
        sum1 += b
    slot = segment.to(tl.int64) * 2 * C + c
    tl.store(sums_ptr + slot, tl.sum(sum0, 0), mask=c < C)
    tl.store(sums_ptr + slot + C, tl.sum(sum1, 0), mask=c < C)


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


def _merge(part: Tensor, segments: int, parts: int, weight: Tensor | None = None) -> Tensor:
    channels = part.shape[-1]
    sums = torch.empty(segments, 2, channels, dtype=torch.float32, device=part.device)
    config = merge_config(channels, parts, part.device)
    merge_sums_kernel[(cdiv(channels, config["BLOCK_C"]), segments)](
        part, sums, pointer(weight, part), channels, parts, HAS_WEIGHT=weight is not None, **config
    )
    return sums


def reduce(
    dz: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    act: str,
    slope: float,
    write_dx: bool,
) -> tuple[Tensor | None, Tensor]:
    """(dx = dp gamma rstd if `write_dx`, sums [A, 2, C] of dp and dp xhat) of dz, x [ROWS, C]; one
    reading, two launches (one where no split is needed)."""
    given = Vectors(weight, bias, mean, var)
    at, every = given.layout(x)
    config, parts, grid = split("norm_backward_once" if write_dx else "norm_reduce", at)
    part = torch.empty(at.segments * parts, 2, at.channels, dtype=torch.float32, device=x.device)
    dx = torch.empty_like(x) if write_dx else None
    reduce_kernel[grid](
        dz,
        x,
        pointer(dx, x),
        part,
        *given.pointers(x),
        at.channels,
        at.rows,
        parts,
        *every,
        eps,
        **given.flags(),
        WRITE_DX=write_dx,
        ACT=act,
        SLOPE=slope,
        **config,
    )
    return dx, part if parts == 1 else _merge(part, at.segments, parts)


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
) -> Tensor:
    """dx of dz, x [ROWS, C]: through the statistics with `sums` [S, 2, C], else dp gamma rstd; one
    launch, two reads, one write."""
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
            through = _merge(sums, segments, sets // segments, weight)
        return dx(
            dz, x, weight, bias, mean, var, through, eps, act, slope, weighted=sets > segments
        ), sums
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
