"""A batch from a uint8 image store: gather by index, flip, normalise to [-1, 1], cast; NHWC in, channels_last out."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels import images as kernel
from fastgan.ops.dispatch import Dispatcher
from fastgan.ops.random import uniform_reference
from fastgan.ops.registry import Case, Kwargs, Op, Variant, register

# The one definition of "normalise": the exact integer 2v - 255 times fp32(1/255), one rounding to fp32, then one to the output
# type. No sum follows the product, so no compiler can contract it and every engine gives the same bits; 0 and 255 give -1 and 1.
SCALE = 1.0 / 255.0


def _check(images: Tensor, index: Tensor) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise FastganError(f"images must be uint8 (N, H, W, C), not {tuple(images.shape)} {images.dtype}")
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
    images: Tensor, index: Tensor, seed: int, position: Tensor, stream: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    return gather_reference(images, index, uniform_reference(seed, position, index.shape[0], (), stream) < 0.5, dtype)


@torch.library.custom_op("fastgan::images_gather", mutates_args=())
def _gather(
    images: Tensor, index: Tensor, flip: Tensor | None, position: Tensor | None, seed: int, stream: int, dtype: torch.dtype
) -> Tensor:
    return kernel.gather(images, index, flip, None if position is None else (seed, position, stream), dtype)


@_gather.register_fake
def _(
    images: Tensor, index: Tensor, flip: Tensor | None, position: Tensor | None, seed: int, stream: int, dtype: torch.dtype
) -> Tensor:
    _, h, w, c = images.shape
    shape = (index.shape[0], c, h, w)
    return torch.empty(shape, dtype=dtype, device=images.device, memory_format=torch.channels_last)


def _unsupported(engine: str, _: torch.dtype, dtype: torch.dtype, contiguous: bool) -> str | None:
    if engine != "triton":
        return None
    if not contiguous:
        return "the image store must be contiguous (N, H, W, C)"
    return None if dtype in (torch.float32, torch.float16, torch.bfloat16) else f"no kernel writes {dtype}"


_choose = Dispatcher("images_gather", ("triton", "reference"), _unsupported)


def gather(
    images: Tensor, index: Tensor, *, flip: Tensor | None = None, dtype: torch.dtype = torch.float32, impl: str = "auto"
) -> Tensor:
    """Images `index` (int64 (B,), in [0, N)) of the uint8 store `images` (N, H, W, C) as (B, C, H, W) channels_last in [-1, 1].

    `flip` is bool (B,): mirror that sample left to right. The value is (2v - 255) * fp32(1/255) in fp32, then cast: v/127.5 - 1
    to within one rounding, bit-identical on every engine. Raises FastganError for other dtypes or ranks. An index out of range
    raises on the CPU; on a GPU the kernel makes that sample NaN.
    """
    _check(images, index)
    if _choose(impl, images, dtype, images.is_contiguous()) == "reference":
        return gather_reference(images, index, flip, dtype)
    return _gather(images, index.contiguous(), None if flip is None else flip.contiguous(), None, 0, 0, dtype)


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
    if _choose(impl, images, dtype, images.is_contiguous()) == "reference":
        return gather_random_flip_reference(images, index, seed, position, stream, dtype)
    return _gather(images, index.contiguous(), None, position, seed, stream, dtype)


def _case(name: str, store: tuple[int, int, int, int], batch: int, flip: bool | None, *tags: str) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        images = torch.randint(0, 256, store, dtype=torch.uint8, generator=generator).to(device)
        index = torch.randint(0, store[0], (batch,), generator=generator)
        index[-1] = store[0] - 1
        kwargs = {"images": images, "index": index.to(device), "dtype": dtype}
        if flip is None:
            return kwargs | {"seed": 7, "position": torch.tensor(2**32 - 2, device=device), "stream": 11}
        return kwargs | {"flip": (torch.rand(batch, generator=generator) < 0.5).to(device) if flip else None}

    return Case(name, make, set(tags))


def _bytes(kwargs: Kwargs, direction: str) -> int:
    return kwargs["index"].numel() * kwargs["images"][0].numel() * (1 + kwargs["dtype"].itemsize)


def _variants(flip: int) -> list[Variant]:
    signature = {"images_ptr": "*u8", "index_ptr": "*i64"} | dict.fromkeys(("n", "size", "row", "tiles", "k0", "k1", "c3"), "i32")
    signature |= {1: {"flip_ptr": "*i1"}, 2: {"position_ptr": "*i64"}}.get(flip, {})
    absent = {name: None for name in ("flip_ptr", "position_ptr") if name not in signature}
    aligned = [name for name, kind in signature.items() if kind[0] == "*"] + ["out_ptr", "size", "row"]
    return [
        Variant(
            f"images_gather {('plain', 'flip', 'random flip')[flip]} {out}",
            kernel._gather_kernel,
            {"out_ptr": f"*{out}", **signature},
            {"C": 3, "FLIP": flip, **absent},
            [kernel.DEFAULT],
            aligned=aligned,
            tuned="images_gather",
        )
        for out in ("fp32", "bf16")
    ]


register(
    Op(
        "images_gather", gather, gather_reference,
        [
            _case("odd 5x3x7x3 flip", (5, 3, 7, 3), 4, True, "quick", "full"),
            _case("grey 4x5x5x1", (4, 5, 5, 1), 3, False, "quick", "full"),
            _case("tiles 3x33x31x4 flip", (3, 33, 31, 4), 2, True, "full"),
            _case("celeba 256 of 4096x64x64x3", (4096, 64, 64, 3), 256, True, "layer"),
            _case("beyond 2^31 bytes", (180_000, 64, 64, 3), 4, True, "huge"),
        ],
        outputs=("batch",), bytes=_bytes, kernels=lambda: [*_variants(0), *_variants(1)],
        candidates={"images_gather": [{"BLOCK": b, "num_warps": w} for b in (1024, 2048, 4096) for w in (4, 8)]},
    )
)  # fmt: skip
register(
    Op(
        "images_gather_random_flip", gather_random_flip, gather_random_flip_reference,
        [
            _case("odd 5x3x7x3", (5, 3, 7, 3), 9, None, "quick", "full"),
            _case("celeba 256 of 4096x64x64x3", (4096, 64, 64, 3), 256, None, "layer"),
        ],
        outputs=("batch",), bytes=_bytes, kernels=lambda: _variants(2),
    )
)  # fmt: skip
