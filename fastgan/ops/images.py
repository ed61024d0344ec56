"""A batch from a uint8 image store: gather by index, flip, normalise to [-1, 1], cast; NHWC in,
channels_last out."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels import images as kernel
from fastgan.ops.dispatch import Dispatcher
from fastgan.ops.random import uniform_reference

# The one definition of "normalise": the exact integer 2v - 255 times fp32(1/255), one rounding to
# fp32, then one to the output type. No sum follows the product, so no compiler can contract it and
# every engine gives the same bits; 0 and 255 give -1 and 1.
SCALE = 1.0 / 255.0


def _check(images: Tensor, index: Tensor) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise FastganError(
            f"images must be uint8 (N, H, W, C), not {tuple(images.shape)} {images.dtype}"
        )
    if index.dtype != torch.int64 or index.dim() != 1:
        raise FastganError(f"index must be int64 (B,), not {tuple(index.shape)} {index.dtype}")


def gather_reference(
    images: Tensor, index: Tensor, flip: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    batch = images.index_select(0, index)
    if flip is not None:
        batch = torch.where(flip.view(-1, 1, 1, 1), batch.flip(2), batch)
    return batch.to(torch.float32).mul_(2.0).sub_(255.0).mul_(SCALE).to(dtype).permute(0, 3, 1, 2)


def gather_random_flip_reference(
    images: Tensor,
    index: Tensor,
    seed: int,
    position: Tensor,
    stream: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    return gather_reference(
        images, index, uniform_reference(seed, position, index.shape[0], (), stream) < 0.5, dtype
    )


@torch.library.custom_op("fastgan::images_gather", mutates_args=())
def _gather(
    images: Tensor,
    index: Tensor,
    flip: Tensor | None,
    position: Tensor | None,
    seed: int,
    stream: int,
    dtype: torch.dtype,
) -> Tensor:
    return kernel.gather(
        images, index, flip, None if position is None else (seed, position, stream), dtype
    )


@_gather.register_fake
def _(
    images: Tensor,
    index: Tensor,
    flip: Tensor | None,
    position: Tensor | None,
    seed: int,
    stream: int,
    dtype: torch.dtype,
) -> Tensor:
    _, h, w, c = images.shape
    shape = (index.shape[0], c, h, w)
    return torch.empty(shape, dtype=dtype, device=images.device, memory_format=torch.channels_last)


def _unsupported(engine: str, _: torch.dtype, dtype: torch.dtype, contiguous: bool) -> str | None:
    if engine != "triton":
        return None
    if not contiguous:
        return "the image store must be contiguous (N, H, W, C)"
    return (
        None
        if dtype in (torch.float32, torch.float16, torch.bfloat16)
        else f"no kernel writes {dtype}"
    )


_choose = Dispatcher("images_gather", ("triton", "reference"), _unsupported)


def gather(
    images: Tensor,
    index: Tensor,
    *,
    flip: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    impl: str = "auto",
) -> Tensor:
    """Images `index` (int64 (B,), in [0, N)) of the uint8 store `images` (N, H, W, C) as (B, C, H,
    W) channels_last in [-1, 1].

    `flip` is bool (B,): mirror that sample left to right. The value is (2v - 255) * fp32(1/255) in
    fp32, then cast: v/127.5 - 1 to within one rounding, bit-identical on every engine. Raises
    FastganError for other dtypes or ranks. An index out of range raises on the CPU; on a GPU the
    kernel makes that sample NaN.
    """
    _check(images, index)
    if _choose(impl, images, dtype, images.is_contiguous()) == "reference":
        return gather_reference(images, index, flip, dtype)
    return _gather(
        images, index.contiguous(), None if flip is None else flip.contiguous(), None, 0, 0, dtype
    )


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
    """`gather(images, index, flip=uniform(seed, position, B, (), stream=stream) < 0.5)` in one
    launch: same bits."""
    _check(images, index)
    if _choose(impl, images, dtype, images.is_contiguous()) == "reference":
        return gather_random_flip_reference(images, index, seed, position, stream, dtype)
    return _gather(images, index.contiguous(), None, position, seed, stream, dtype)
