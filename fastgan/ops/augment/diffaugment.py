"""DiffAugment: colour, translation, cutout, differentiable in the images.

Zhao, Liu, Lin, Zhu, Han, "Differentiable augmentation for data-efficient GAN training", 2020. Per
sample, with draws that are a function of (seed, stream, global sample index):

    colour       x <- x + b, b in [-0.5, 0.5);  x <- (x - mean_c x) s + mean_c x, s in [0, 2);
                 x <- (x - mean x) k + mean x, k in [0.5, 1.5)
    translation  x[h, w] <- x[h + ty, w + tx] (zero outside),  |t| <= size / 8
    cutout       zero in a rectangle of half the size, centred anywhere

The three colour steps are one affine map, since the first two keep what the next needs:
k s x + k (1 - s) mean_c x + (1 - k) mean x + b.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels import augment as kernel
from fastgan.ops.dispatch import Dispatcher
from fastgan.ops.random import bits

POLICIES = ("color", "translation", "cutout")
TRANSLATION_RATIO = 0.125
CUTOUT_RATIO = 0.5
WORDS = (
    7  # a sample's draws, in order: brightness, saturation, contrast, ty, tx, cutout y, cutout x
)


def parse_policy(policy: str) -> tuple[bool, bool, bool]:
    """(color, translation, cutout) switches of a comma-separated policy; FastganError for a name
    unknown or out of order."""
    names = [name.strip() for name in policy.split(",") if name.strip()]
    if names != [name for name in POLICIES if name in names]:
        raise FastganError(
            f"DiffAugment policy '{policy}': name color, translation, cutout in this order, each "
            "at most once"
        )
    return "color" in names, "translation" in names, "cutout" in names


def extents(size: int) -> tuple[int, int]:
    """(largest shift, cutout length) along an axis of `size` pixels."""
    return int(size * TRANSLATION_RATIO + 0.5), int(size * CUTOUT_RATIO + 0.5)


def draws(words: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """Words (B, 7) as fp32 (b, s, k) and int64 (ty, tx, cutout top, cutout left), each (B,);
    integers unbiased to 2^-32."""
    u = (words[:, :3] >> 8).to(torch.float32) * 2.0**-24
    (shift_h, cut_h), (shift_w, cut_w) = extents(height), extents(width)
    spans = (2 * shift_h + 1, 2 * shift_w + 1, height + 1 - cut_h % 2, width + 1 - cut_w % 2)
    starts = (-shift_h, -shift_w, -(cut_h // 2), -(cut_w // 2))
    whole = [
        ((words[:, 3 + i] * span) >> 32) + start
        for i, (span, start) in enumerate(zip(spans, starts))
    ]
    return (u[:, 0] - 0.5, u[:, 1] * 2.0, u[:, 2] + 0.5, *whole)


def diffaugment_reference(
    images: Tensor,
    seed: int,
    position: Tensor,
    stream: int,
    policy: str = "color,translation,cutout",
) -> Tensor:
    color, translation, cutout = parse_policy(policy)
    n, _, height, width = images.shape
    b, s, k, ty, tx, top, left = draws(bits(seed, position, n, WORDS, stream=stream), height, width)
    x = images if images.dtype == torch.float64 else images.float()
    if color:
        b, s, k = (v.to(x.dtype).view(n, 1, 1, 1) for v in (b, s, k))
        x = (
            k * s * x
            + k * (1 - s) * x.mean(1, keepdim=True)
            + (1 - k) * x.mean((1, 2, 3), keepdim=True)
            + b
        )
    rows = torch.arange(height, device=x.device)
    cols = torch.arange(width, device=x.device)
    if translation:
        from_h, from_w = rows + ty.view(n, 1), cols + tx.view(n, 1)
        inside_h, inside_w = (from_h >= 0) & (from_h < height), (from_w >= 0) & (from_w < width)
        sample = torch.arange(n, device=x.device).view(n, 1, 1)
        h, w = (
            from_h.clamp(0, height - 1).view(n, height, 1),
            from_w.clamp(0, width - 1).view(n, 1, width),
        )
        moved = x.permute(0, 2, 3, 1)[sample, h, w].permute(0, 3, 1, 2)
        x = moved.where(inside_h.view(n, 1, height, 1) & inside_w.view(n, 1, 1, width), 0.0)
    if cutout:
        in_h = (rows >= top.view(n, 1)) & (rows < top.view(n, 1) + extents(height)[1])
        in_w = (cols >= left.view(n, 1)) & (cols < left.view(n, 1) + extents(width)[1])
        x = x.where(~(in_h.view(n, 1, height, 1) & in_w.view(n, 1, 1, width)), 0.0)
    return x.to(images.dtype)


@torch.library.custom_op("fastgan::diffaugment", mutates_args=())
def _diffaugment(
    x: Tensor,
    position: Tensor,
    seed: int,
    stream: int,
    color: bool,
    translation: bool,
    cutout: bool,
    adjoint: bool,
    offset: bool,
) -> Tensor:
    reach = (*extents(x.shape[2]), *extents(x.shape[3]))
    return kernel.diffaugment(
        x, position, seed, stream, (color, translation, cutout), reach, adjoint, offset
    )


@_diffaugment.register_fake
def _(
    x: Tensor,
    position: Tensor,
    seed: int,
    stream: int,
    color: bool,
    translation: bool,
    cutout: bool,
    adjoint: bool,
    offset: bool,
) -> Tensor:
    return torch.empty_like(x)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, position, *ctx.constants, ctx.adjoint, _ = inputs
    ctx.save_for_backward(position)


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    # The map is affine: its adjoint is linear and has the map without its constant for an adjoint.
    (position,) = ctx.saved_tensors
    return _diffaugment(g, position, *ctx.constants, not ctx.adjoint, False), *(None,) * 8


_diffaugment.register_autograd(_backward, setup_context=_setup_context)


def _unsupported(engine: str, dtype: torch.dtype) -> str | None:
    return (
        f"no kernel takes {dtype} images" if engine == "triton" and dtype == torch.float64 else None
    )


_choose = Dispatcher("diffaugment", ("triton", "reference"), _unsupported)


def diffaugment(
    images: Tensor,
    *,
    policy: str = "color,translation,cutout",
    seed: int,
    position: Tensor,
    stream: int,
    impl: str = "auto",
) -> Tensor:
    """Augment (B, C, H, W) images (fp32, fp16, bf16; fp32 inside) in [-1, 1]; differentiable in the
    images, to any order.

    `policy` names what is applied, always in the order color, translation, cutout. `position`
    (0-dim int64 on the images' device) is the global index of the first sample. Raises FastganError
    for a bad policy, type or rank.
    """
    switches = parse_policy(policy)
    if images.dim() != 4 or not images.is_floating_point():
        raise FastganError(
            f"DiffAugment takes floating (B, C, H, W) images, not {tuple(images.shape)} "
            f"{images.dtype}"
        )
    if _choose(impl, images) == "reference":
        return diffaugment_reference(images, seed, position, stream, policy)
    return _diffaugment(images, position, seed, stream, *switches, False, True)
