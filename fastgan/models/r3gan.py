"""R3GAN's networks, mirror images of each other (Huang et al. 2024, arXiv 2501.05441), for square
images of 4, 5, 6 or 7 times a power of two."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.models.dcgan import plan
from fastgan.models.layers.grouped import GroupedBlock, convolution
from fastgan.models.layers.heads import Head

ATTENDED = 16
"""The largest side of a map with attention."""


def blocks(
    channels: int, count: int, side: int, group: int, heads: int, magnitude: bool
) -> list[nn.Module]:
    here = heads if side <= ATTENDED else 0
    return [
        GroupedBlock(channels, group=group, heads=here, magnitude=magnitude) for _ in range(count)
    ]


class Up(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, 2H, 2W): 1x1, bilinear."""

    def __init__(self, inputs: int, outputs: int, magnitude: bool) -> None:
        super().__init__()
        self.inputs, self.outputs, self.magnitude = inputs, outputs, magnitude
        self.conv = convolution(inputs, outputs, 1, 1, magnitude, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Down(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H/2, W/2): mean of 2x2, 1x1."""

    def __init__(self, inputs: int, outputs: int, magnitude: bool) -> None:
        super().__init__()
        self.inputs, self.outputs, self.magnitude = inputs, outputs, magnitude
        self.conv = convolution(inputs, outputs, 1, 1, magnitude, 1.0)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.pool(x))


class Generator(nn.Module):
    """(B, latent) -> (B, channels, size, size), unbounded as in the article.

    width: channels of the largest map; inner ones double up to 8 times it. count: blocks of each
    map.
    """

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        latent: int = 64,
        width: int = 32,
        count: int = 2,
        group: int = 16,
        heads: int = 0,
        magnitude: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.channels, self.latent, self.width, self.count = (
            size,
            channels,
            latent,
            width,
            count,
        )
        self.group, self.heads, self.magnitude = group, heads, magnitude
        side, widths = plan(size, width)
        widths = [*(min(w * 2, 8 * width) for w in widths[:1]), *widths]
        self.basis = nn.Parameter(torch.randn(widths[0], side, side))
        self.coefficients = nn.Linear(latent, widths[0])
        layers = blocks(widths[0], count, side, group, heads, magnitude)
        for inner, outer in itertools.pairwise(widths):
            side *= 2
            layers += [
                Up(inner, outer, magnitude),
                *blocks(outer, count, side, group, heads, magnitude),
            ]
        self.blocks = nn.Sequential(*layers)
        self.last = convolution(widths[-1], channels, 1, 1, False, 1.0)

    def forward(self, z: Tensor) -> Tensor:
        h = self.basis * self.coefficients(z)[:, :, None, None]
        return self.last(self.blocks(h))


class Discriminator(nn.Module):
    """(B, channels, size, size) -> logits (B, 1)."""

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        width: int = 32,
        count: int = 2,
        group: int = 16,
        heads: int = 0,
        magnitude: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.channels, self.width, self.count = size, channels, width, count
        self.group, self.heads, self.magnitude = group, heads, magnitude
        side, widths = plan(size, width)
        widths = [*widths[::-1], min(widths[0] * 2, 8 * width)]
        self.first = convolution(channels, widths[0], 1, 1, False, 1.0)
        here, layers = size, []
        for outer, inner in itertools.pairwise(widths):
            layers += blocks(outer, count, here, group, heads, magnitude)
            layers += [Down(outer, inner, magnitude)]
            here //= 2
        layers += blocks(widths[-1], count, here, group, heads, magnitude)
        self.blocks = nn.Sequential(*layers)
        self.pool = nn.Conv2d(widths[-1], widths[-1], side, groups=widths[-1], bias=False)
        self.logit = Head(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.logit(self.pool(self.blocks(self.first(images))).flatten(1))
