"""DiffAugment in one launch, and its adjoint in one: a gather with an affine colour map, no
atomics.

Forward, read at (h + ty, w + tx) of the sample:
    y = keep(h, w) * (k s x + k (1 - s) mean_c x + (1 - k) mean x + b)
Adjoint, g' = (keep * g) read at (h - ty, w - tx):
    dx = k s g' + k (1 - s) mean_c g' + (1 - k) mean g'

Both are one kernel: translation is injective, so its adjoint is the gather with the shift reversed.
The mean over a sample is needed before its first pixel can be written; instead of a launch of its
own, every program of a sample sums that whole sample in the same order (at most SPLIT programs a
sample; reads after the first hit L2). Without colour there is no sum. Nothing of the images is kept
for backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.kernels import tuning
from fastgan.kernels.common import cdiv, next_power_of_2, tl, triton
from fastgan.kernels.random import KEY, key_words, sample_words, unit

DEFAULT: dict[str, Any] = {"BLOCK": 256, "SPLIT": 8, "num_warps": 4}


@triton.jit
def _pixels(
    x_ptr,
    base,
    pixel,
    channel,
    H,
    W,
    C,
    sc,
    sh,
    sw,
    shift_h,
    shift_w,
    top,
    left,
    cut_h,
    cut_w,
    ADJOINT: tl.constexpr,
    TRANSLATION: tl.constexpr,
    CUTOUT: tl.constexpr,
):
    """fp32 [BLOCK, CP] values at (pixel + shift), and the [BLOCK] mask of pixels that are neither
    shifted in nor cut out."""
    h = pixel // W
    w = pixel % W
    valid = pixel < H * W
    from_h = h
    from_w = w
    if TRANSLATION:
        from_h = h + shift_h
        from_w = w + shift_w
        valid = valid & (from_h >= 0) & (from_h < H) & (from_w >= 0) & (from_w < W)
    if CUTOUT:
        cut_at_h = from_h if ADJOINT else h
        cut_at_w = from_w if ADJOINT else w
        hole = (
            (cut_at_h >= top)
            & (cut_at_h < top + cut_h)
            & (cut_at_w >= left)
            & (cut_at_w < left + cut_w)
        )
        valid = valid & (hole == 0)
    offset = (from_h * sh + from_w * sw)[:, None] + (channel * sc)[None, :]
    mask = valid[:, None] & (channel < C)[None, :]
    return tl.load(x_ptr + base + offset, mask=mask, other=0.0).to(tl.float32), valid


@triton.jit(do_not_specialize=[*KEY, "H", "W", "max_h", "max_w", "cut_h", "cut_w"])
def diffaugment_kernel(
    out_ptr,  # [B, C, H, W] by strides
    x_ptr,  # [B, C, H, W] by strides
    position_ptr,  # int64 scalar
    H,
    W,
    max_h,
    max_w,
    cut_h,
    cut_w,
    sn,
    sc,
    sh,
    sw,  # input strides
    on,
    oc,
    oh,
    ow,  # output strides
    tiles,  # programs a sample
    k0,
    k1,
    c3,
    C: tl.constexpr,
    CP: tl.constexpr,
    COLOR: tl.constexpr,
    TRANSLATION: tl.constexpr,
    CUTOUT: tl.constexpr,
    ADJOINT: tl.constexpr,
    OFFSET: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64) // tiles
    tile = tl.program_id(0) % tiles
    index = tl.load(position_ptr) + sample
    r_b, r_s, r_k, r_ty = sample_words(index, sample * 0, k0, k1, c3)
    r_tx, r_cy, r_cx, _spare = sample_words(index, sample * 0 + 1, k0, k1, c3)
    brightness = unit(r_b, 24) - 0.5
    saturation = unit(r_s, 24) * 2.0
    contrast = unit(r_k, 24) + 0.5
    shift_h = tl.umulhi(r_ty, (2 * max_h + 1).to(tl.uint32)).to(tl.int32) - max_h
    shift_w = tl.umulhi(r_tx, (2 * max_w + 1).to(tl.uint32)).to(tl.int32) - max_w
    top = tl.umulhi(r_cy, (H + 1 - cut_h % 2).to(tl.uint32)).to(tl.int32) - cut_h // 2
    left = tl.umulhi(r_cx, (W + 1 - cut_w % 2).to(tl.uint32)).to(tl.int32) - cut_w // 2
    if ADJOINT:
        shift_h = -shift_h
        shift_w = -shift_w
    channel = tl.arange(0, CP)
    base = sample * sn
    pixels = H * W
    mean = 0.0
    if COLOR:
        total = tl.zeros((BLOCK, CP), tl.float32)
        for start in range(0, pixels, BLOCK):
            pixel = start + tl.arange(0, BLOCK)
            # Forward: the mean of the whole sample; adjoint: the sum of what reaches it through
            # translation and cutout.
            x, _reached = _pixels(
                x_ptr,
                base,
                pixel,
                channel,
                H,
                W,
                C,
                sc,
                sh,
                sw,
                shift_h,
                shift_w,
                top,
                left,
                cut_h,
                cut_w,
                ADJOINT,
                TRANSLATION and ADJOINT,
                CUTOUT and ADJOINT,
            )
            total += x
        mean = tl.sum(total) / (pixels * C).to(tl.float32)
    for start in range(tile * BLOCK, pixels, tiles * BLOCK):
        pixel = start + tl.arange(0, BLOCK)
        x, valid = _pixels(
            x_ptr,
            base,
            pixel,
            channel,
            H,
            W,
            C,
            sc,
            sh,
            sw,
            shift_h,
            shift_w,
            top,
            left,
            cut_h,
            cut_w,
            ADJOINT,
            TRANSLATION,
            CUTOUT,
        )
        if COLOR:
            gray = tl.sum(x, axis=1) / C
            rest = contrast * (1.0 - saturation) * gray + (1.0 - contrast) * mean
            if OFFSET:
                rest = rest + brightness
            x = contrast * saturation * x + rest[:, None]
            if not ADJOINT:
                x = tl.where(valid[:, None], x, 0.0)
        place = (
            on * sample + ((pixel // W) * oh + (pixel % W) * ow)[:, None] + (channel * oc)[None, :]
        )
        mask = (pixel < pixels)[:, None] & (channel < C)[None, :]
        tl.store(out_ptr + place, x.to(out_ptr.dtype.element_ty), mask=mask)


def diffaugment(
    x: Tensor,
    position: Tensor,
    seed: int,
    stream: int,
    policy: tuple[bool, bool, bool],
    extents: tuple[int, int, int, int],
    adjoint: bool,
    offset: bool,
) -> Tensor:
    """y (or, `adjoint`, dx) for (B, C, H, W) `x`, in x's type and memory format; one launch.

    `policy`: (colour, translation, cutout); `extents`: largest shift and cutout length of H, then
        of W; `offset` adds brightness.
    """
    out = torch.empty_like(x)
    if out.numel() == 0:
        return out
    batch, channels, height, width = x.shape
    config = dict(
        tuning.config(
            "diffaugment",
            x.dtype,
            (("batch", batch), ("pixels", height * width)),
            DEFAULT,
            x.device,
        )
    )
    tiles = cdiv(height * width, config["BLOCK"])
    split = config.pop("SPLIT")
    if policy[0]:
        tiles = min(tiles, split)
    max_h, cut_h, max_w, cut_w = extents
    k0, k1, c3 = key_words(seed, stream)
    diffaugment_kernel[(batch * tiles,)](
        out,
        x,
        position,
        height,
        width,
        max_h,
        max_w,
        cut_h,
        cut_w,
        *x.stride(),
        *out.stride(),
        tiles,
        k0,
        k1,
        c3,
        C=channels,
        CP=next_power_of_2(channels),
        COLOR=policy[0],
        TRANSLATION=policy[1],
        CUTOUT=policy[2],
        ADJOINT=adjoint,
        OFFSET=offset,
        **config,
    )
    return out
