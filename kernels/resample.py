"""Twice the size and half the size of dense channels_last maps: two kernels that serve both ways.

Spread writes each element of the small map, times a factor, to the 2x2 of the large one; gather
sums those four in fp32, times a factor. Each is the other's adjoint: nearest upsampling is spread
by 1 and its backward gather by 1; 2x2 average pooling is gather by 1/4 and its backward spread by
1/4. A tile is pixels of the small map by channels, so that accesses are contiguous in channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.kernels.common import cdiv, next_power_of_2, tl, triton

# one 16-byte vector of bf16 a thread from each place
TILE, WARPS = 1024, 4
CHANNELS = 256
"""The most channels in a tile."""


@triton.jit
def place(pixels, w, C, tiles, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Offsets of this program's tile in the small map and of its upper left in the large one, the
    step to the row below there, and what exists."""
    p = (tl.program_id(0) // tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = ((tl.program_id(0) % tiles) * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    wide = p.to(tl.int64)
    # row r of the small map is row 2r of the large one, which is twice as wide
    corner = 2 * (wide + (p // w).to(tl.int64) * w)
    keep = (p < pixels)[:, None] & (c < C)
    below = tl.full((), 2, tl.int64) * w * C
    return wide[:, None] * C + c, corner[:, None] * C + c, below, keep


@triton.jit
def spread_kernel(
    large_ptr,  # [N, 2H, 2W, C]
    small_ptr,  # [N, H, W, C]
    pixels,  # N * H * W
    w,
    C,
    tiles,  # ceil(C / BLOCK_C)
    FACTOR: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    small, large, below, keep = place(pixels, w, C, tiles, BLOCK_P, BLOCK_C)
    v = tl.load(small_ptr + small, mask=keep, other=0.0).to(tl.float32) * FACTOR
    v = v.to(large_ptr.dtype.element_ty)
    tl.store(large_ptr + large, v, mask=keep)
    tl.store(large_ptr + large + C, v, mask=keep)
    tl.store(large_ptr + large + below, v, mask=keep)
    tl.store(large_ptr + large + below + C, v, mask=keep)


@triton.jit
def gather_kernel(
    small_ptr,  # [N, H, W, C]
    large_ptr,  # [N, 2H, 2W, C]
    pixels,
    w,
    C,
    tiles,
    FACTOR: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    small, large, below, keep = place(pixels, w, C, tiles, BLOCK_P, BLOCK_C)
    # row by row, as PyTorch adds
    v = tl.load(large_ptr + large, mask=keep, other=0.0).to(tl.float32)
    v += tl.load(large_ptr + large + C, mask=keep, other=0.0).to(tl.float32)
    v += tl.load(large_ptr + large + below, mask=keep, other=0.0).to(tl.float32)
    v += tl.load(large_ptr + large + below + C, mask=keep, other=0.0).to(tl.float32)
    tl.store(small_ptr + small, (v * FACTOR).to(small_ptr.dtype.element_ty), mask=keep)


def channel_block(channels: int) -> int:
    """The largest power of two that divides `channels` where that is 32 or more, else the next one
    above; at most CHANNELS."""
    exact = channels & -channels
    return min(exact if exact >= 32 else next_power_of_2(channels), CHANNELS)


def resample(x: Tensor, up: bool, factor: float) -> Tensor:
    """(N, C, H, W) to (N, C, 2H, 2W) where `up`, else to (N, C, H/2, W/2), channels_last in x's
    type; one launch. x of another layout is copied first; H and W are even where not `up`.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    n, c, h, w = x.shape
    shape = (n, c, 2 * h, 2 * w) if up else (n, c, h // 2, w // 2)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    if out.numel() == 0:
        return out
    small = x if up else out
    width = small.shape[3]
    pixels = n * small.shape[2] * width
    block_c = channel_block(c)
    block_p = TILE // block_c
    tiles = cdiv(c, block_c)
    kernel = spread_kernel if up else gather_kernel
    kernel[(cdiv(pixels, block_p) * tiles,)](
        out,
        x,
        pixels,
        width,
        c,
        tiles,
        FACTOR=factor,
        BLOCK_P=block_p,
        BLOCK_C=block_c,
        num_warps=WARPS,
    )
    return out
