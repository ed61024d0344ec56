"""A batch from a uint8 image store: gather by index, flip, normalise to [-1, 1], cast, NHWC in and channels_last out."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.ops.random import uniform

# The one definition of "normalise": the exact integer 2v - 255 times fp32(1/255), one rounding to fp32, then one to the output type.
# No sum follows the product, so no compiler can contract it and every engine gives the same bits; 0 and 255 give exactly -1 and 1.
SCALE = 1.0 / 255.0


def _check(images: Tensor, index: Tensor) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise FastganError(f"images must be uint8 (N, H, W, C), not {tuple(images.shape)} {images.dtype}")
    if index.dtype != torch.int64 or index.dim() != 1:
        raise FastganError(f"index must be int64 (B,), not {tuple(index.shape)} {index.dtype}")


def gather_reference(images: Tensor, index: Tensor, flip: Tensor | None, dtype: torch.dtype) -> Tensor:
    batch = images.index_select(0, index)
    if flip is not None:
        batch = torch.where(flip.view(-1, 1, 1, 1), batch.flip(2), batch)
    return batch.to(torch.float32).mul_(2.0).sub_(255.0).mul_(SCALE).to(dtype).permute(0, 3, 1, 2)


def gather(
    images: Tensor, index: Tensor, *, flip: Tensor | None = None, dtype: torch.dtype = torch.float32, impl: str = "auto"
) -> Tensor:
    """Images `index` (int64 (B,), in [0, N)) of the uint8 store `images` (N, H, W, C) as (B, C, H, W) channels_last in [-1, 1].

    `flip` is bool (B,): mirror that sample left to right. The value is (2v - 255) * fp32(1/255) in fp32, then cast: v/127.5 - 1 to
    within one rounding, bit-identical on every engine. Raises FastganError for other dtypes or ranks.
    """
    _check(images, index)
    return gather_reference(images, index, flip, dtype)


def gather_random_flip(
    images: Tensor,
    index: Tensor,
    *,
    seed: int,
    position: Tensor,
    stream: int,
    dtype: torch.dtype = torch.float32,
    impl: str = "auto",
) -> Tensor:
    """`gather(images, index, flip=uniform(seed, position, B, (), stream=stream) < 0.5)` in one launch: same bits."""
    _check(images, index)
    return gather_reference(images, index, uniform(seed, position, index.shape[0], (), stream=stream) < 0.5, dtype)
