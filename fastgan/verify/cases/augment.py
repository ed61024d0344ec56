"""What `fastgan verify`, `--aot` and `bench` know of DiffAugment."""

from __future__ import annotations

import torch

from fastgan.kernels import augment as kernel
from fastgan.ops.augment import POLICIES, diffaugment, diffaugment_reference
from fastgan.verify.registry import Case, Kwargs, Op, Variant, register


def _case(
    name: str, shape: tuple[int, int, int, int], policy: str, channels_last: bool, *tags: str
) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        images = torch.randn(shape, generator=generator).to(device, dtype)
        images = images.contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )
        start = torch.tensor(2**32 - 2, device=device)
        return {"images": images, "policy": policy, "seed": 5, "position": start, "stream": 9}

    return Case(name, make, set(tags))


ALL = ",".join(POLICIES)


def _variants() -> list[Variant]:
    sizes = "H W max_h max_w cut_h cut_w sn sc sh sw on oc oh ow tiles k0 k1 c3"
    signature = {"position_ptr": "*i64"} | dict.fromkeys(sizes.split(), "i32")
    return [
        Variant(
            f"diffaugment {'adjoint' if adjoint else 'forward'} {kind}",
            kernel.diffaugment_kernel,
            {"out_ptr": f"*{kind}", "x_ptr": f"*{kind}", **signature},
            {
                "C": 3,
                "CP": 4,
                "COLOR": True,
                "TRANSLATION": True,
                "CUTOUT": True,
                "ADJOINT": adjoint,
                "OFFSET": not adjoint,
            },
            [{k: v for k, v in kernel.DEFAULT.items() if k != "SPLIT"}],
            tuned="diffaugment",
        )
        for kind in ("fp32", "bf16")
        for adjoint in (False, True)
    ]


register(
    Op(
        "diffaugment",
        diffaugment,
        diffaugment_reference,
        [
            _case("odd 3x3x9x7 all", (3, 3, 9, 7), ALL, True, "quick", "full"),
            _case("grey 2x1x16x17 all contiguous", (2, 1, 16, 17), ALL, False, "full"),
            _case("tiles 2x4x19x31 color", (2, 4, 19, 31), "color", True, "full"),
            _case(
                "tiles 2x3x19x31 translation,cutout",
                (2, 3, 19, 31),
                "translation,cutout",
                True,
                "quick",
                "full",
            ),
            _case("tiny 2x2x4x3 all", (2, 2, 4, 3), ALL, True, "gradcheck"),
            _case("64x3x64x64 all", (64, 3, 64, 64), ALL, True, "layer"),
            _case("16x3x256x256 all", (16, 3, 256, 256), ALL, True, "layer"),
        ],
        grad_inputs=("images",),
        outputs=("images",),
        directions=("forward", "backward", "double"),
        bytes=lambda kwargs, direction: 2 * kwargs["images"].nbytes,
        kernels=_variants,
        candidates={
            "diffaugment": [
                {"BLOCK": b, "SPLIT": s, "num_warps": 4} for b in (128, 256, 512) for s in (1, 4, 8)
            ]
        },
    )
)
