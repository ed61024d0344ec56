"""DiffAugment (Zhao, Liu, Lin, Zhu, Han, "Differentiable augmentation for data-efficient GAN training", 2020): colour, translation, cutout.

Per sample, with draws that are a function of (seed, stream, global sample index):

    colour       x <- x + b,  b in [-0.5, 0.5);  x <- (x - mean_c x) s + mean_c x,  s in [0, 2);  x <- (x - mean x) k + mean x,  k in [0.5, 1.5)
    translation  x[h, w] <- x[h + ty, w + tx] (zero outside),  |t| <= round(size / 8)
    cutout       zero in a rectangle of half the size, centred anywhere

The three colour steps are one affine map, since the first two keep what the next needs: k s x + k (1 - s) mean_c x + (1 - k) mean x + b.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.ops.random import bits

POLICIES = ("color", "translation", "cutout")
TRANSLATION_RATIO = 0.125
CUTOUT_RATIO = 0.5
WORDS = 7  # a sample's draws, in order: brightness, saturation, contrast, ty, tx, cutout y, cutout x


def parse_policy(policy: str) -> tuple[bool, bool, bool]:
    """(color, translation, cutout) switches of a comma-separated policy; FastganError for an unknown, repeated or out-of-order name."""
    names = [name.strip() for name in policy.split(",") if name.strip()]
    if names != [name for name in POLICIES if name in names]:
        raise FastganError(f"DiffAugment policy '{policy}': name color, translation, cutout in this order, each at most once")
    return "color" in names, "translation" in names, "cutout" in names


def extents(size: int) -> tuple[int, int]:
    """(largest shift, cutout length) along an axis of `size` pixels."""
    return int(size * TRANSLATION_RATIO + 0.5), int(size * CUTOUT_RATIO + 0.5)


def draws(words: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """Map words (B, 7) to fp32 (b, s, k) and int64 (ty, tx, cutout top, cutout left), each (B,). Integers are unbiased to 2^-32."""
    u = (words[:, :3] >> 8).to(torch.float32) * 2.0**-24
    (shift_h, cut_h), (shift_w, cut_w) = extents(height), extents(width)
    spans = (2 * shift_h + 1, 2 * shift_w + 1, height + 1 - cut_h % 2, width + 1 - cut_w % 2)
    starts = (-shift_h, -shift_w, -(cut_h // 2), -(cut_w // 2))
    whole = [((words[:, 3 + i] * span) >> 32) + start for i, (span, start) in enumerate(zip(spans, starts))]
    return (u[:, 0] - 0.5, u[:, 1] * 2.0, u[:, 2] + 0.5, *whole)


def diffaugment_reference(images: Tensor, words: Tensor, color: bool, translation: bool, cutout: bool) -> Tensor:
    n, _, height, width = images.shape
    b, s, k, ty, tx, top, left = draws(words, height, width)
    wide = images if images.dtype == torch.float64 else images.float()
    if color:
        b, s, k = (v.to(wide.dtype).view(n, 1, 1, 1) for v in (b, s, k))
        wide = k * s * wide + k * (1 - s) * wide.mean(1, keepdim=True) + (1 - k) * wide.mean((1, 2, 3), keepdim=True) + b
    rows = torch.arange(height, device=images.device)
    cols = torch.arange(width, device=images.device)
    if translation:
        rows_from, cols_from = rows + ty.view(n, 1), cols + tx.view(n, 1)
        inside = ((rows_from >= 0) & (rows_from < height)).view(n, 1, height, 1) & (
            (cols_from >= 0) & (cols_from < width)
        ).view(n, 1, 1, width)
        sample = torch.arange(n, device=images.device).view(n, 1, 1)
        moved = wide.permute(0, 2, 3, 1)[
            sample, rows_from.clamp(0, height - 1).view(n, height, 1), cols_from.clamp(0, width - 1).view(n, 1, width)
        ]
        wide = moved.permute(0, 3, 1, 2).where(inside, 0.0)
    if cutout:
        in_rows = (rows >= top.view(n, 1)) & (rows < top.view(n, 1) + extents(height)[1])
        in_cols = (cols >= left.view(n, 1)) & (cols < left.view(n, 1) + extents(width)[1])
        wide = wide.where(~(in_rows.view(n, 1, height, 1) & in_cols.view(n, 1, 1, width)), 0.0)
    return wide.to(images.dtype)


def diffaugment(
    images: Tensor, *, policy: str = "color,translation,cutout", seed: int, position: Tensor, stream: int, impl: str = "auto"
) -> Tensor:
    """Augment (B, C, H, W) images (fp32, fp16, bf16; fp32 inside) in [-1, 1]; differentiable in the images, to any order.

    `position` (0-dim int64 on the images' device) is the global index of the first sample. Raises FastganError for a bad policy or rank.
    """
    switches = parse_policy(policy)
    if images.dim() != 4 or not images.is_floating_point():
        raise FastganError(f"DiffAugment takes floating (B, C, H, W) images, not {tuple(images.shape)} {images.dtype}")
    words = bits(seed, position, images.shape[0], WORDS, stream=stream)
    return diffaugment_reference(images, words, *switches)
