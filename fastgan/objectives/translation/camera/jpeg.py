"""What JPEG leaves of an image: the cosine transform of 8x8 blocks, quantised by standard tables
at each sample's own quality (ITU-T T.81, annexes A and K)."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
"""Tables K.1 and K.2, row by row."""

TIE = 1e-4
"""A quotient that is half a step by more or less than float32's error is rounded away from zero, as
by libjpeg: flat blocks have such ones often, and must not depend on the device."""


@functools.cache  # a captured graph reads it: never let go
def constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """The transform (8, 8) and both tables (2, 8, 8), float32."""
    k = torch.arange(8, dtype=torch.float64)
    rows = torch.cos(k[:, None] * (2 * k + 1) * math.pi / 16) / 2
    rows[0] /= math.sqrt(2)
    tables = torch.tensor([LUMA, CHROMA], dtype=torch.float32).view(2, 8, 8)
    return rows.float().to(device), tables.to(device)


def quantised(planes: Tensor, table: Tensor) -> Tensor:
    """(B, C, H, W) around 0, H and W multiples of 8, with the coefficients of each block rounded to
    multiples of `table` (B, 8, 8)."""
    n, channels, height, width = planes.shape
    rows, _ = constants(planes.device)
    step = table.view(n, 1, 1, 1, 8, 8)
    blocks = planes.reshape(n, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    q = (rows @ blocks @ rows.T) / step
    q = (q.abs() + (0.5 + TIE)).floor().copysign(q) * step
    return (rows.T @ q @ rows).transpose(3, 4).reshape(planes.shape)


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """(B, 1 or 3, H, W) in [0, 1], on 8 bits, after JPEG at `quality` (B,), whole floats in 1 to
    100 as libjpeg counts. Colour is halved in both directions (4:2:0) and enlarged bilinearly; what
    lacks of a block is repeated from the edge."""
    channels, height, width = images.shape[1:]
    whole = 8 if channels == 1 else 16
    x = (images * 255).round().clamp(0, 255)
    x = F.pad(x, (0, -width % whole, 0, -height % whole), mode="replicate")
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).floor()
    scaled = (constants(x.device)[1] * percent.view(-1, 1, 1, 1) + 50) / 100
    luma, chroma = scaled.floor().clamp(1, 255).unbind(1)
    if channels == 1:
        x = quantised(x - 128, luma) + 128
    else:
        r, g, b = x.split(1, 1)
        y = 0.299 * r + 0.587 * g + 0.114 * b
        colours = torch.cat([(b - y) / 1.772, (r - y) / 1.402], 1).round()
        y = quantised(y.round() - 128, luma) + 128
        colours = quantised(F.avg_pool2d(colours, 2).round(), chroma)
        large = F.interpolate(colours, scale_factor=2, mode="bilinear", align_corners=False)
        cb, cr = large.split(1, 1)
        r, b = y + 1.402 * cr, y + 1.772 * cb
        x = torch.cat([r, (y - 0.299 * r - 0.114 * b) / 0.587, b], 1)
    return x[..., :height, :width].round().clamp(0, 255) / 255
