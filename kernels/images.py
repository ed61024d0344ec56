"""A batch from a uint8 NHWC store in one launch: gather by index, flip, normalise, cast;
channels_last out.

A sample is H*W*C consecutive bytes in the store and as many consecutive elements in the output, so
an unflipped sample is a straight copy in 16-byte vectors; a flipped one mirrors the column of each
element. The value is (2v - 255) * fp32(1/255): exact, then one rounding, then the cast.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.kernels import tuning
from fastgan.kernels.common import cdiv, tl, triton
from fastgan.kernels.random import KEY, key_words, sample_words

DEFAULT: dict[str, Any] = {"BLOCK": 2048, "num_warps": 4}


@triton.jit(do_not_specialize=KEY)
def gather_kernel(
    out_ptr,  # [B, H, W, C]
    images_ptr,  # uint8 [N, H, W, C]
    index_ptr,  # int64 [B]
    flip_ptr,  # bool [B] where FLIP == 1
    position_ptr,  # int64 scalar where FLIP == 2
    n,
    size,  # H * W * C
    row,  # W * C
    tiles,  # ceil(size / BLOCK)
    k0,
    k1,
    c3,
    C: tl.constexpr,
    # 0 never, 1 as flip_ptr says, 2 when the top bit of the sample's first random word is clear
    FLIP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64) // tiles
    element = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    mask = element < size
    index = tl.load(index_ptr + sample)
    inside = (index >= 0) & (index < n)
    source = images_ptr + tl.where(inside, index, 0) * size
    flip = False
    if FLIP == 1:
        flip = tl.load(flip_ptr + sample).to(tl.int1)
    if FLIP == 2:
        word, _, _, _ = sample_words(tl.load(position_ptr) + sample, sample * 0, k0, k1, c3)
        flip = (word >> 31) == 0
    if flip:
        column = (element % row) // C
        v = tl.load(source + (element + row - (2 * column + 1) * C), mask=mask, other=0)
    else:
        v = tl.load(source + element, mask=mask, other=0)
    value = (v.to(tl.float32) * 2.0 - 255.0) * (1.0 / 255.0)
    # An index outside the store shows as NaN in that sample, not as somebody else's memory.
    value = tl.where(inside, value, float("nan"))
    tl.store(out_ptr + sample * size + element, value.to(out_ptr.dtype.element_ty), mask=mask)


def gather(
    images: Tensor,
    index: Tensor,
    flip: Tensor | None,
    draw: tuple[int, Tensor, int] | None,
    dtype: torch.dtype,
) -> Tensor:
    """(B, C, H, W) channels_last of `dtype` from contiguous uint8 (N, H, W, C); one launch.

    `draw` = (seed, position, stream) flips at random.
    """
    n, height, width, channels = images.shape
    batch = index.shape[0]
    out = torch.empty(
        (batch, channels, height, width),
        dtype=dtype,
        device=images.device,
        memory_format=torch.channels_last,
    )
    size = height * width * channels
    if out.numel() == 0:
        return out
    config = tuning.config(
        "images_gather", dtype, (("batch", batch), ("size", size)), DEFAULT, images.device
    )
    tiles = cdiv(size, config["BLOCK"])
    seed, position, stream = draw if draw is not None else (0, None, 0)
    k0, k1, c3 = key_words(seed, stream)
    gather_kernel[(batch * tiles,)](
        out,
        images,
        index,
        flip,
        position,
        n,
        size,
        width * channels,
        tiles,
        k0,
        k1,
        c3,
        C=channels,
        FLIP=1 if flip is not None else 0 if draw is None else 2,
        **config,
    )
    return out
