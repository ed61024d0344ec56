"""What `fastgan verify`, `--aot` and `bench` know of DiffAugment, and of ADA."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.kernels import augment as kernel
from fastgan.ops.augment import POLICIES, ada, diffaugment, diffaugment_reference
from fastgan.ops.augment.ada import SYM6, draws
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


def ada_reference(images: Tensor, p: Tensor, seed: int, position: Tensor, stream: int) -> Tensor:
    """ADA's operations one by one on one sample at a time: points of the plane go through the
    operations backwards, pixels through those of colour."""
    n, channels, height, width = images.shape
    drawn = draws(p, height, width, n, seed, position, stream)
    out = []
    for i in range(n):
        d = {name: value[i].to(images.dtype) for name, value in drawn.items()}
        y = torch.arange(-5, 2 * height + 5, dtype=images.dtype, device=images.device) / 2
        x = torch.arange(-5, 2 * width + 5, dtype=images.dtype, device=images.device) / 2
        v, u = torch.meshgrid(y - (height - 1) / 2, x - (width - 1) / 2, indexing="ij")
        u, v = u - d["fraction_x"], v - d["fraction_y"]
        u, v = _turned(u, v, d["turn_again"])
        u, v = u / d["aspect"], v * d["aspect"]
        u, v = _turned(u, v, d["turn"])
        u, v = u / d["scale"], v / d["scale"]
        u, v = u - d["whole_x"], v - d["whole_y"]
        for _ in range(int(d["quarter"])):
            u, v = -v, u
        u = -u if d["mirror"] else u
        picture = _resampled(images[i], u + (width - 1) / 2, v + (height - 1) / 2)
        if channels == 1:
            picture = _recoloured(picture.expand(3, -1, -1), d).mean(0, keepdim=True)
        else:
            picture = torch.cat([_recoloured(picture[:3], d), picture[3:]])
        out.append(picture)
    return torch.stack(out)


def _turned(u: Tensor, v: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    return u * angle.cos() - v * angle.sin(), u * angle.sin() + v * angle.cos()


def _resampled(image: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """(C, H, W) at places (u, v): zeros put between pixels and sym6 over them, bilinear, sym6 and
    every second value."""
    _, height, width = image.shape
    taps = torch.tensor(SYM6, dtype=image.dtype, device=image.device)
    kernel = torch.outer(taps, taps)[None, None]

    def fold(at: Tensor, size: int) -> Tensor:  # mirrors at the first and the last pixel
        for _ in range(16):
            at = torch.where(at < 0, -at, at)
            at = torch.where(at > size - 1, 2 * (size - 1) - at, at)
        return at

    margin = 8
    rows = fold(torch.arange(-margin, height + margin, device=image.device), height)
    columns = fold(torch.arange(-margin, width + margin, device=image.device), width)
    wide = image[:, rows][:, :, columns]
    double = F.conv_transpose2d(wide[:, None], 2 * kernel, stride=2)[:, 0]
    first = 2 * margin  # where, in `double`, the value at five before the first pixel lies
    inside = lambda at, size: (at >= -2.5) & (at <= size + 2)
    u = torch.where(inside(u, width), u, fold(u, width)) * 2 + 5 + first
    v = torch.where(inside(v, height), v, fold(v, height)) * 2 + 5 + first
    top, left = v.floor().long(), u.floor().long()
    b, a = v - top, u - left
    read = (
        (1 - b) * (1 - a) * double[:, top, left]
        + (1 - b) * a * double[:, top, left + 1]
        + b * (1 - a) * double[:, top + 1, left]
        + b * a * double[:, top + 1, left + 1]
    )
    return F.conv2d(read[:, None], kernel / 2, stride=2)[:, 0, :height, :width]


def _recoloured(rgb: Tensor, d: dict[str, Tensor]) -> Tensor:
    rgb = (rgb + d["brightness"]) * d["contrast"]
    if d["luma"]:
        rgb = rgb - 2 * rgb.mean(0)
    red, green, blue = rgb
    across = torch.stack([blue - green, red - blue, green - red]) / 3**0.5
    cos, sin = d["hue"].cos(), d["hue"].sin()
    rgb = rgb * cos + across * sin + rgb.mean(0) * (1 - cos)
    return rgb.mean(0) + (rgb - rgb.mean(0)) * d["saturation"]


def _ada_case(name: str, shape: tuple[int, int, int, int], p: float, *tags: str) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        images = torch.randn(shape, generator=generator).to(device, dtype)
        start = torch.tensor(2**32 - 2, device=device)
        strength = torch.tensor(p, device=device)
        return {"images": images, "p": strength, "seed": 5, "position": start, "stream": 9}

    return Case(name, make, set(tags))


register(
    Op(
        "ada",
        ada,
        ada_reference,
        [
            _ada_case("odd 8x3x9x7 p 0.8", (8, 3, 9, 7), 0.8, "quick", "full"),
            _ada_case("odd 4x3x6x11 p 0", (4, 3, 6, 11), 0.0, "quick", "full"),
            _ada_case("grey 6x1x16x17 p 1", (6, 1, 16, 17), 1.0, "full"),
            _ada_case("opacity 6x4x12x8 p 0.5", (6, 4, 12, 8), 0.5, "full"),
            _ada_case("tiny 1x3x3x2 p 1", (1, 3, 3, 2), 1.0, "gradcheck"),
            _ada_case("64x3x64x64 p 0.5", (64, 3, 64, 64), 0.5, "layer"),
        ],
        engines=("reference",),
        grad_inputs=("images",),
        outputs=("images",),
        directions=("forward", "backward", "double"),
        bytes=lambda kwargs, direction: 2 * kwargs["images"].nbytes,
        eager=ada,  # the engine is what users would write; its reference goes sample by sample
    )
)
