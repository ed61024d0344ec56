"""What `fastgan verify`, `--aot` and `bench` know of the gathering of images."""

from __future__ import annotations

import numpy as np
import torch

from fastgan.kernels import images as kernel
from fastgan.ops.images import (
    gather,
    gather_random_flip,
    gather_random_flip_reference,
    gather_reference,
)
from fastgan.verify.registry import Case, Kwargs, Op, Variant, extend, register


def _case(
    name: str, store: tuple[int, int, int, int], batch: int, flip: bool | None, *tags: str
) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        images = torch.randint(0, 256, store, dtype=torch.uint8, generator=generator).to(device)
        index = torch.randint(0, store[0], (batch,), generator=generator)
        index[-1] = store[0] - 1
        kwargs = {"images": images, "index": index.to(device), "dtype": dtype}
        if flip is None:
            return kwargs | {
                "seed": 7,
                "position": torch.tensor(2**32 - 2, device=device),
                "stream": 11,
            }
        return kwargs | {
            "flip": (torch.rand(batch, generator=generator) < 0.5).to(device) if flip else None
        }

    return Case(name, make, set(tags))


def _bytes(kwargs: Kwargs, direction: str) -> int:
    return kwargs["index"].numel() * kwargs["images"][0].numel() * (1 + kwargs["dtype"].itemsize)


def _variants(flip: int) -> list[Variant]:
    signature = {"images_ptr": "*u8", "index_ptr": "*i64"} | dict.fromkeys(
        ("n", "size", "row", "tiles", "k0", "k1", "c3"), "i32"
    )
    signature |= {1: {"flip_ptr": "*i1"}, 2: {"position_ptr": "*i64"}}.get(flip, {})
    absent = {name: None for name in ("flip_ptr", "position_ptr") if name not in signature}
    aligned = [name for name, kind in signature.items() if kind[0] == "*"] + [
        "out_ptr",
        "size",
        "row",
    ]
    return [
        Variant(
            f"images_gather {('plain', 'flip', 'random flip')[flip]} {out}",
            kernel.gather_kernel,
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
        "images_gather",
        gather,
        gather_reference,
        [
            _case("odd 5x3x7x3 flip", (5, 3, 7, 3), 4, True, "quick", "full"),
            _case("grey 4x5x5x1", (4, 5, 5, 1), 3, False, "quick", "full"),
            _case("tiles 3x33x31x4 flip", (3, 33, 31, 4), 2, True, "full"),
            _case("celeba 256 of 4096x64x64x3", (4096, 64, 64, 3), 256, True, "layer"),
            _case("beyond 2^31 bytes", (180_000, 64, 64, 3), 4, True, "huge"),
        ],
        outputs=("batch",),
        bytes=_bytes,
        kernels=lambda: [*_variants(0), *_variants(1)],
        candidates={
            "images_gather": [
                {"BLOCK": b, "num_warps": w} for b in (1024, 2048, 4096) for w in (4, 8)
            ]
        },
    )
)
register(
    Op(
        "images_gather_random_flip",
        gather_random_flip,
        gather_random_flip_reference,
        [
            _case("odd 5x3x7x3", (5, 3, 7, 3), 9, None, "quick", "full"),
            _case("celeba 256 of 4096x64x64x3", (4096, 64, 64, 3), 256, None, "layer"),
        ],
        outputs=("batch",),
        bytes=_bytes,
        kernels=lambda: _variants(2),
    )
)

SIDES = (5, 7, 3)


# Addresses beyond 2^31 on a CPU: a store of images whose pages exist only where they are written. A
# kernel that forms an element's offset in 32 bits wraps around 2^32 to the store's first, black
# images. Kernels whose every element must exist (norms, convolutions, the optimiser) can show this
# on a GPU alone: their cases are tagged ``huge``.
def _far(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
    samples = 2**32 // (SIDES[0] * SIDES[1] * SIDES[2]) + 8
    # NumPy's zeros are calloc's: virtual memory, but for the pages touched; torch.zeros would write
    # them all
    images = torch.from_numpy(np.zeros((samples, *SIDES), np.uint8)).to(device)
    # the far ones wrap to small offsets: a negative one would be a crash, which is no verdict
    index = torch.tensor([1, samples - 1, samples - 5, samples - 3])
    images[index.to(device)] = torch.randint(
        1, 256, (4, *SIDES), generator=generator, dtype=torch.uint8
    ).to(device)
    return {"images": images, "index": index.to(device), "dtype": dtype}


_CASE = Case(
    "addresses beyond 2^32",
    _far,
    {"quick", "full"},
    dtypes=("fp32",),
    engines=("triton",),
    shared=("images",),
)
extend("images_gather", _CASE)
