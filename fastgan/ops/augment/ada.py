"""The augmentations of StyleGAN2-ADA's `bgc` pipe, differentiable to any order.

Karras, Aittala, Hellsten, Laine, Lehtinen, Aila, "Training generative adversarial networks with
limited data", 2020, appendix B. Each operation fires with probability p for each sample:

    blit      mirror; turn by a quarter k of 4; shift by whole pixels, U(-1/8, 1/8) of the side
    geometry  scale 2^N(0, 0.2); turn by U(-pi, pi); scale by (s, 1/s), s = 2^N(0, 0.2); turn again;
              shift by N(0, 1/8) of the side. Each turn fires with 1 - sqrt(1 - p)
    colour    brightness N(0, 0.2); contrast 2^N(0, 0.5); luma flipped; hue U(-pi, pi); saturation
              2^N(0, 1)

Blit and geometry are one affine map of the plane: the picture is doubled in size by sym6 wavelets,
read bilinearly where the map points, beyond its edges as in mirrors, and halved again. Doubling and
halving are products with constant matrices, and reading is an index, whose adjoint adds up in a
fixed order. Colours are one affine map of each pixel. p lies on the device, and nothing is read
from there.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.ops.random import normal, uniform

# sym6's scaling filter (Daubechies, "Ten lectures on wavelets", 1992), as PyWavelets lists it.
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
EDGE = 5
"""Values of a doubled row before its first pixel, and one more behind its last: halving needs
them."""

GATES = (
    *("mirror", "quarter", "whole", "scale", "turn", "aspect", "turn_again", "fraction"),
    *("brightness", "contrast", "luma", "hue", "saturation"),
)
UNIFORM = ("mirror", "quarter", "whole_x", "whole_y", "turn", "turn_again", "luma", "hue")
NORMAL = (*("scale", "aspect", "fraction_x", "fraction_y", "brightness", "contrast", "saturation"),)
SPREAD = {"scale": 0.2, "aspect": 0.2, "contrast": 0.5, "saturation": 1.0}
"""Standard deviations of the exponents of 2."""


def draws(
    p: Tensor, height: int, width: int, n: int, seed: int, position: Tensor, stream: int
) -> dict[str, Tensor]:
    """What each of n samples gets, (n,) each in fp32; what does not fire is what changes nothing.

    mirror and luma 0 or 1, quarter 0 to 3, whole_x, whole_y, fraction_x, fraction_y in pixels,
    turn, turn_again and hue in radians, brightness an offset, the others factors.
    """
    u = uniform(seed, position, n, (len(GATES) + len(UNIFORM),), stream=stream).unbind(1)
    z = normal(seed, position, n, (len(NORMAL),), stream=stream ^ 0x5A5A5A5A).unbind(1)
    turning = 1 - (1 - p).clamp(0, 1).sqrt()
    fires = {
        name: value < (turning if name.startswith("turn") else p) for name, value in zip(GATES, u)
    }
    raw = dict(zip(UNIFORM, u[len(GATES) :]))
    gauss = dict(zip(NORMAL, z))
    made = {
        "mirror": (raw["mirror"] * 2).floor(),
        "quarter": (raw["quarter"] * 4).floor(),
        "whole_x": ((raw["whole_x"] * 2 - 1) * 0.125 * width).round(),
        "whole_y": ((raw["whole_y"] * 2 - 1) * 0.125 * height).round(),
        "turn": (raw["turn"] * 2 - 1) * math.pi,
        "turn_again": (raw["turn_again"] * 2 - 1) * math.pi,
        "fraction_x": gauss["fraction_x"] * 0.125 * width,
        "fraction_y": gauss["fraction_y"] * 0.125 * height,
        "brightness": gauss["brightness"] * 0.2,
        "luma": (raw["luma"] * 2).floor(),
        "hue": (raw["hue"] * 2 - 1) * math.pi,
        **{name: (gauss[name] * spread).exp2() for name, spread in SPREAD.items()},
    }
    return {
        name: value.where(fires[name.removesuffix("_x").removesuffix("_y")], float(name in SPREAD))
        for name, value in made.items()
    }


def matrix(rows: list[list[Tensor | float]], like: Tensor) -> Tensor:
    """(n, r, c) from r rows of c numbers or (n,) tensors."""
    whole = [v if isinstance(v, Tensor) else torch.full_like(like, v) for row in rows for v in row]
    return torch.stack(whole, 1).view(-1, len(rows), len(rows[0]))


def plane(d: dict[str, Tensor], like: Tensor) -> Tensor:
    """(n, 2, 3): where in the picture, in pixels from its centre, a pixel of the result is read."""
    zero = torch.zeros_like(like)

    def shift(x: Tensor, y: Tensor) -> Tensor:
        return matrix([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]], zero)

    def scale(x: Tensor, y: Tensor) -> Tensor:
        return matrix([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]], zero)

    def turn(angle: Tensor) -> Tensor:
        c, s = angle.cos(), angle.sin()
        return matrix([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], zero)

    # a quarter turn exactly: cos and sin of k pi / 2 without rounding
    quarter = d["quarter"]
    c = (quarter == 0).to(like.dtype) - (quarter == 2).to(like.dtype)
    s = (quarter == 1).to(like.dtype) - (quarter == 3).to(like.dtype)
    steps = [
        scale(1 - 2 * d["mirror"], zero + 1),
        matrix([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], zero),
        shift(-d["whole_x"], -d["whole_y"]),
        scale(1 / d["scale"], 1 / d["scale"]),
        turn(d["turn"]),
        scale(1 / d["aspect"], d["aspect"]),
        turn(d["turn_again"]),
        shift(-d["fraction_x"], -d["fraction_y"]),
    ]
    whole = steps[0]
    for step in steps[1:]:
        whole = whole @ step
    return whole[:, :2]


def colours(d: dict[str, Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
    """The map of a pixel's red, green and blue: (n, 3, 3) and what is added to each, (n, 1)."""
    grey = torch.full((3, 3), 1 / 3, dtype=like.dtype, device=like.device)
    unit = torch.eye(3, dtype=like.dtype, device=like.device)
    each = {name: value.view(-1, 1, 1) for name, value in d.items()}
    cos, sin = each["hue"].cos(), each["hue"].sin() / math.sqrt(3)
    around = torch.stack([unit[2] - unit[1], unit[0] - unit[2], unit[1] - unit[0]])
    turned = cos * unit + sin * around + (1 - cos) * grey
    linear = (grey + (unit - grey) * each["saturation"]) @ turned
    linear = linear @ (unit - 2 * each["luma"] * grey) * each["contrast"]
    # grey stays grey up to the sign of luma: brightness is added to all three alike
    offset = d["contrast"] * d["brightness"] * (1 - 2 * d["luma"])
    return linear, offset.unsqueeze(1)


@lru_cache(maxsize=32)
def doubling(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """(2 size + 2 EDGE, size) and its counterpart: a row of pixels, continued as in mirrors, to
    twice the resolution and back. Value j of the doubled row lies at pixel (j - EDGE) / 2."""
    up = torch.zeros(2 * size + 2 * EDGE, size, dtype=torch.float64)
    down = torch.zeros(size, 2 * size + 2 * EDGE, dtype=torch.float64)
    for j in range(len(up)):
        for k in range(j % 2, len(SYM6), 2):
            i = (j - k) // 2 % (2 * size - 2)
            up[j, min(i, 2 * size - 2 - i)] += SYM6[k] * math.sqrt(2)
    for i in range(size):
        down[i, 2 * i : 2 * i + len(SYM6)] = torch.tensor(SYM6, dtype=torch.float64) / math.sqrt(2)
    return up.to(device, dtype), down.to(device, dtype)


def place(at: Tensor, size: int) -> Tensor:
    """Pixel coordinates as places in the doubled row: those beyond its ends as in mirrors at the
    first and the last pixel."""
    mirrored = (size - 1) - (at.remainder(2 * size - 2) - (size - 1)).abs()
    there = (at >= -EDGE / 2) & (at <= size - 1 + (EDGE + 1) / 2)
    return at.where(there, mirrored) * 2 + EDGE


def moved(x: Tensor, where: Tensor) -> Tensor:
    """(B, C, H, W) read at `where` (B, 2, 3), in x's type."""
    n, channels, height, width = x.shape
    (up_h, down_h), (up_w, down_w) = (doubling(s, x.dtype, x.device) for s in (height, width))
    double = (up_h @ x @ up_w.T).permute(0, 2, 3, 1).reshape(n, -1, channels)
    axis = lambda size: torch.arange(-EDGE, 2 * size + EDGE, device=x.device) / 2 - (size - 1) / 2
    rows, columns = axis(height).to(x.dtype).view(1, -1, 1), axis(width).to(x.dtype).view(1, 1, -1)
    a = where.view(n, 6, 1, 1).unbind(1)
    at_w = place(a[0] * columns + a[1] * rows + a[2] + (width - 1) / 2, width)
    at_h = place(a[3] * columns + a[4] * rows + a[5] + (height - 1) / 2, height)
    low_h, low_w = at_h.floor(), at_w.floor()
    part_h, part_w = at_h - low_h, at_w - low_w
    sample = torch.arange(n, device=x.device).view(n, 1, 1)
    last_h, last_w = len(up_h) - 1, len(up_w) - 1
    read = torch.zeros((), dtype=x.dtype, device=x.device)
    for step_h, share_h in ((0, 1 - part_h), (1, part_h)):
        row = (low_h.long() + step_h).clamp(max=last_h) * len(up_w)
        for step_w, share_w in ((0, 1 - part_w), (1, part_w)):
            pixels = double[sample, row + (low_w.long() + step_w).clamp(max=last_w)]
            read = read + (share_h * share_w).unsqueeze(3) * pixels
    return down_h @ read.permute(0, 3, 1, 2) @ down_w.T


def ada(
    images: Tensor, *, p: Tensor, seed: int, position: Tensor, stream: int, impl: str = "auto"
) -> Tensor:
    """Augment (B, C, H, W) images in [-1, 1], grey or colour; a second or fourth channel
    (opacity, a mask) keeps its values. Differentiable in the images, to any order.

    `p`: 0-dim fp32 tensor in [0, 1] on the images' device, the strength. `position` (0-dim int64,
    there too) is the global index of the first sample. Computed in fp32, or float64 for such
    images. `impl` is for the harness: there is one engine. Raises FastganError for other images.
    """
    if images.dim() != 4 or not images.is_floating_point() or not 1 <= images.shape[1] <= 4:
        raise FastganError(
            "ada takes floating (B, C, H, W) images of 1 to 4 channels, not "
            f"{tuple(images.shape)} {images.dtype}"
        )
    if min(images.shape[2:]) < 2:
        raise FastganError("ada takes images of at least 2x2 pixels")
    n, channels, height, width = images.shape
    with torch.autocast(images.device.type, enabled=False):
        x = images if images.dtype == torch.float64 else images.float()
        d = draws(p.detach(), height, width, n, seed, position, stream)
        d = {name: value.to(x.dtype) for name, value in d.items()}
        x = moved(x, plane(d, x.new_zeros(n)))
        linear, offset = colours(d, x)
        seen = 1 if channels < 3 else 3
        if seen == 1:
            shown = linear.sum(2).mean(1).view(n, 1, 1, 1) * x[:, :1] + offset.view(n, 1, 1, 1)
        else:
            shown = torch.einsum("nij,njhw->nihw", linear, x[:, :3]) + offset.view(n, 1, 1, 1)
        x = shown if channels == seen else torch.cat([shown, x[:, seen:]], 1)
        return x.to(images.dtype)
