"""Networks as other people write them, from their descriptions and with none of our classes: what a
user brings along."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def init_normal(module: nn.Module) -> None:
    """N(0, 0.02) for convolutions, N(1, 0.02) for the scales of batch normalisation (Radford et al.
    2016; Isola et al. 2017)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class DcganGenerator(nn.Module):
    """The DCGAN tutorial's generator: (B, latent, 1, 1) -> (B, channels, size, size) in [-1, 1].
    size: a power of two from 8."""

    def __init__(
        self, size: int = 64, channels: int = 3, latent: int = 100, width: int = 64
    ) -> None:
        super().__init__()
        levels = size.bit_length() - 3
        now = width * 2 ** (levels - 1)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent, now, 4, 1, 0, bias=False),
            nn.BatchNorm2d(now),
            nn.ReLU(True),
        ]
        for _ in range(levels - 1):
            layers += [
                nn.ConvTranspose2d(now, now // 2, 4, 2, 1, bias=False),
                nn.BatchNorm2d(now // 2),
                nn.ReLU(True),
            ]
            now //= 2
        self.main = nn.Sequential(
            *layers, nn.ConvTranspose2d(now, channels, 4, 2, 1, bias=False), nn.Tanh()
        )
        self.apply(init_normal)

    def forward(self, z: Tensor) -> Tensor:
        return self.main(z)


class DcganDiscriminator(nn.Module):
    """The DCGAN tutorial's discriminator, its last sigmoid left to the loss: (B, channels, size,
    size) -> logits (B, 1, 1, 1)."""

    def __init__(self, size: int = 64, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        now = width
        for _ in range(size.bit_length() - 4):
            layers += [
                nn.Conv2d(now, 2 * now, 4, 2, 1, bias=False),
                nn.BatchNorm2d(2 * now),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            now *= 2
        self.main = nn.Sequential(*layers, nn.Conv2d(now, 1, 4, 1, 0, bias=False))
        self.apply(init_normal)

    def forward(self, images: Tensor) -> Tensor:
        return self.main(images)


class UNetLevel(nn.Module):
    """One level of pix2pix's U-Net: down, whatever lies inside, up, and the skip beside it.

    The in-place LeakyReLU at the start alters the tensor that is handed past: the skip carries
    activated values, as published.
    """

    def __init__(
        self, outer: int, inner: int, inside: nn.Module | None, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(outer, inner, 4, 2, 1, bias=False),
        ]
        if inside is not None:
            layers += [nn.BatchNorm2d(inner), inside]
        up = inner if inside is None else 2 * inner
        layers += [
            nn.ReLU(True),
            nn.ConvTranspose2d(up, outer, 4, 2, 1, bias=False),
            nn.BatchNorm2d(outer),
        ]
        self.model = nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.model(x)], 1)


class UNet(nn.Module):
    """pix2pix's generator (Isola et al. 2017, appendix 6.1.1): (B, channels, size, size) -> the
    same shape in [-1, 1].

    `levels` halvings (8 for 256 pixels), dropout in the three levels around the innermost one.
    """

    def __init__(
        self, channels: int = 3, levels: int = 8, width: int = 64, dropout: float = 0.5
    ) -> None:
        super().__init__()
        widths = [width * min(2**i, 8) for i in range(levels)]
        block: nn.Module | None = None
        for level in range(levels - 1, 0, -1):
            drop = dropout if 4 <= level < levels - 1 else 0.0
            block = UNetLevel(widths[level - 1], widths[level], block, dropout=drop)
        assert block is not None
        self.model = nn.Sequential(
            nn.Conv2d(channels, width, 4, 2, 1),
            block,
            nn.ReLU(True),
            nn.ConvTranspose2d(2 * width, channels, 4, 2, 1),
            nn.Tanh(),
        )
        self.apply(init_normal)

    def forward(self, source: Tensor) -> Tensor:
        return self.model(source)


class PatchGan(nn.Module):
    """pix2pix's 70x70 discriminator: (B, 2 * channels, size, size) -> a map of logits (Isola et al.
    2017, appendix 6.1.2)."""

    def __init__(self, channels: int = 6, width: int = 64, levels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        now = width
        for level in range(1, levels + 1):
            new = width * min(2**level, 8)
            stride = 2 if level < levels else 1
            layers += [
                nn.Conv2d(now, new, 4, stride, 1, bias=False),
                nn.BatchNorm2d(new),
                nn.LeakyReLU(0.2, True),
            ]
            now = new
        self.model = nn.Sequential(*layers, nn.Conv2d(now, 1, 4, 1, 1))
        self.apply(init_normal)

    def forward(self, pair: Tensor) -> Tensor:
        return self.model(pair)
