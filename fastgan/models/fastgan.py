"""Light networks for few images, 32 to 256 pixels (Liu, Zhu, Song, Elgammal 2021, 2101.04775).

Skip-layer excitation in the generator, a discriminator whose features a decoder can draw the image
from. Without the paper's noise injection, second convolutions and second decoder.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from fastgan.errors import FastganError

WIDTHS = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1, 256: 0.5}
"""Channels of a level of the generator, by its side, in multiples of `width`."""


def sides(size: int) -> list[int]:
    """4, 8, ... `size`. Raises FastganError for other sizes than 32, 64, 128 and 256."""
    if size not in (32, 64, 128, 256):
        near = min((32, 64, 128, 256), key=lambda s: abs(s - size))
        raise FastganError(
            f"fastgan makes images of 32, 64, 128 or 256 pixels, not {size}: use --size {near}"
        )
    return [4 * 2**i for i in range(size.bit_length() - 2)]


def init_weights(module: nn.Module) -> None:
    """N(0, 0.02) for convolutions, N(1, 0.02) for the scales of batch normalisation."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def up(inputs: int, outputs: int) -> nn.Sequential:
    """(B, inputs, H, W) -> (B, outputs, 2H, 2W): nearest, 3x3, BN, GLU (paper, figure 3)."""
    return nn.Sequential(
        nn.Upsample(scale_factor=2),
        nn.Conv2d(inputs, 2 * outputs, 3, 1, 1, bias=False),
        nn.BatchNorm2d(2 * outputs),
        nn.GLU(1),
    )


class Excitation(nn.Module):
    """Skip-layer excitation: channels of a large map gated by a small one (paper, equation 1)."""

    def __init__(self, small: int, large: int) -> None:
        super().__init__()
        self.small, self.large = small, large
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Conv2d(small, large, 4, bias=False),
            nn.LeakyReLU(0.1),
            nn.Conv2d(large, large, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, small: Tensor, large: Tensor) -> Tensor:
        return large * self.gate(small)


class Generator(nn.Module):
    """(B, latent, 1, 1) -> (B, channels, size, size) in [-1, 1]."""

    def __init__(
        self, size: int = 64, channels: int = 3, latent: int = 256, width: int = 64
    ) -> None:
        super().__init__()
        self.size, self.channels, self.latent, self.width = size, channels, latent, width
        levels = sides(size)
        wide = {side: max(int(WIDTHS[side] * width), 4) for side in levels}
        self.first = nn.Sequential(
            nn.ConvTranspose2d(latent, 2 * wide[4], 4, bias=False),
            nn.BatchNorm2d(2 * wide[4]),
            nn.GLU(1),
        )
        self.up = nn.ModuleDict(
            {str(side): up(wide[side // 2], wide[side]) for side in levels if side > 4}
        )
        self.excite = nn.ModuleDict(
            {
                str(side): Excitation(wide[max(side // 16, 4)], wide[side])
                for side in levels
                if side >= 64 or side == size
            }
        )
        self.last = nn.Sequential(nn.Conv2d(wide[size], channels, 3, 1, 1), nn.Tanh())
        self.apply(init_weights)

    def forward(self, z: Tensor) -> Tensor:
        maps = {4: self.first(z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt())}
        for side in sides(self.size)[1:]:
            x = self.up[str(side)](maps[side // 2])
            if str(side) in self.excite:
                x = self.excite[str(side)](maps[max(side // 16, 4)], x)
            maps[side] = x
        return self.last(maps[self.size])


class Down(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H/2, W/2): the mean of two convolutions and of a pooled
    1x1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.2),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.2),
        )
        self.direct = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.main(x) + self.direct(x)) / 2


class Discriminator(nn.Module):
    """(B, channels, size, size) -> logits (B, 1, 5, 5); with `features` also (B, 8 width, 8, 8)."""

    def __init__(self, size: int = 64, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        self.size, self.channels, self.width = size, channels, width
        inner = [side for side in reversed(sides(size)) if 8 <= side < size]
        wide = [max(int(width * 64 / side), 4) for side in inner]
        # Spectral norm (torch's) where no batch norm follows: before one it changes nothing.
        spectral = torch.nn.utils.parametrizations.spectral_norm
        stem = nn.Conv2d(channels, wide[0], 4, 2, 1, bias=False)
        head = nn.Conv2d(wide[-1], 1, 4, bias=False)
        self.body = nn.Sequential(
            stem, nn.LeakyReLU(0.2), *(Down(a, b) for a, b in itertools.pairwise(wide))
        )
        self.head = nn.Sequential(
            nn.Conv2d(wide[-1], wide[-1], 1, bias=False),
            nn.BatchNorm2d(wide[-1]),
            nn.LeakyReLU(0.2),
            head,
        )
        self.apply(init_weights)
        spectral(stem)
        spectral(head)

    def forward(self, images: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        found = self.body(images)
        logits = self.head(found)
        return (logits, found) if features else logits


class Decoder(nn.Sequential):
    """Features (B, 8 width, 8, 8) of the discriminator -> the image at 32 pixels, in [-1, 1]."""

    def __init__(self, channels: int = 3, width: int = 64) -> None:
        wide = max(8 * width, 4)
        super().__init__(
            up(wide, max(2 * width, 4)),
            up(max(2 * width, 4), max(width, 4)),
            nn.Conv2d(max(width, 4), channels, 3, 1, 1),
            nn.Tanh(),
        )
        self.channels, self.width = channels, width
        self.apply(init_weights)
