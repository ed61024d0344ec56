"""The sums of the backward of normalisation: sum dp and sum dp xhat over rows, partial by split and
merged in a fixed order. backward.py has the formulas.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.kernels.activations import act_grad
from fastgan.kernels.common import cdiv, tl, triton
from fastgan.kernels.norm import chain
from fastgan.kernels.norm.chain import let_next_begin, wait_for_last
from fastgan.kernels.norm.tiles import (
    SIZES,
    Vectors,
    channel_vectors,
    merge_config,
    pointer,
    preactivation,
    split,
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
    CHAINED: tl.constexpr = False,
):
    """Partial (sum dp, sum dp xhat) of a split; with WRITE_DX also dx = dp gamma rstd, in the same
    reading."""
    let_next_begin(CHAINED)
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
    CHAINED: tl.constexpr = False,
):
    """sums[segment] = the sum of its SPLITS partial pairs, each times its own row of `weight`
    [SEGMENTS * SPLITS, C] with HAS_WEIGHT."""
    let_next_begin(CHAINED)
    wait_for_last(CHAINED)
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


def merge_sums(
    part: Tensor, segments: int, parts: int, weight: Tensor | None = None, chained: bool = False
) -> Tensor:
    """[segments, 2, C]: `part` [segments * parts, 2, C] summed over parts, each times its row of
    `weight`. chained: directly after the kernel that makes the parts."""
    channels = part.shape[-1]
    sums = torch.empty(segments, 2, channels, dtype=torch.float32, device=part.device)
    config = merge_config(channels, parts, part.device)
    merge_sums_kernel[(cdiv(channels, config["BLOCK_C"]), segments)](
        part,
        sums,
        pointer(weight, part),
        channels,
        parts,
        HAS_WEIGHT=weight is not None,
        **(chain.following(part.device) if chained else {}),
        **config,
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
        **chain.first(x.device),
        **config,
    )
    return dx, part if parts == 1 else merge_sums(part, at.segments, parts, chained=True)
