"""Residual networks for CIFAR-sized images.

Sources: SNGAN (Miyato et al. 2018, table 4) and WGAN-GP (Gulrajani et al. 2017, appendix F).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.errors import FastganError


def levels(size: int) -> int:
    """How often 4 pixels double to `size`. Raises FastganError for other sizes."""
    count = size.bit_length() - 3
    if size < 8 or size != 4 * 2**count:
        raise FastganError(
            f"residual networks make images of 8, 16, 32, 64 or 128 pixels, not {size}: use --size "
            "32"
        )
    return count


class UpBlock(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, 2H, 2W): BN, ReLU, nearest upsampling, 3x3; BN, ReLU, 3x3;
    the shortcut's 1x1 comes before its upsampling.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)
        self.upsample = nn.Upsample(scale_factor=2.0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self.upsample(F.relu(self.norm1(x))))
        h = self.conv2(F.relu(self.norm2(h)))
        return h + self.upsample(self.shortcut(x))


class DownBlock(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H/2, W/2), or the same side with down=False.

    first: no ReLU before the first convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, *, down: bool = True, first: bool = False
    ) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if down or inputs != outputs else None
        self.pool = nn.AvgPool2d(2) if down else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        # a 1x1 convolution of a pooled map is the pooled 1x1 convolution, for a quarter of the work
        return self.pool(h) + self._short(self.pool(x))

    def _short(self, x: Tensor) -> Tensor:
        return x if self.shortcut is None else self.shortcut(x)


def init_weights(module: nn.Module) -> None:
    """Glorot uniform, sqrt(2) wider before a ReLU, zero biases (as in Miyato's code for the
    ResNets)."""
    for name, layer in module.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            residual = isinstance(layer, nn.Conv2d) and "shortcut" not in name
            nn.init.xavier_uniform_(layer.weight, 2**0.5 if residual else 1.0)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Generator(nn.Module):
    """(B, latent) -> (B, channels, size, size) in [-1, 1]."""

    def __init__(
        self, size: int = 32, channels: int = 3, latent: int = 128, width: int = 256
    ) -> None:
        super().__init__()
        self.size, self.channels, self.latent, self.width = size, channels, latent, width
        self.dense = nn.Linear(latent, 16 * width)
        self.blocks = nn.Sequential(*(UpBlock(width, width) for _ in range(levels(size))))
        self.last = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, channels, 3, 1, 1), nn.Tanh()
        )
        init_weights(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.last(self.blocks(self.dense(z).view(-1, self.width, 4, 4)))


class Discriminator(nn.Module):
    """(B, channels, size, size) -> logits (B, 1).

    spectral: spectral norm on every layer and sum pooling (SNGAN), else neither (WGAN-GP's critic).
    """

    def __init__(
        self, size: int = 32, channels: int = 3, width: int = 128, spectral: bool = True
    ) -> None:
        super().__init__()
        self.size, self.channels, self.width, self.spectral = size, channels, width, spectral
        down = levels(size) - 2  # the last map is 8x8, two plain blocks follow
        blocks = [DownBlock(channels, width, first=True)]
        blocks += [DownBlock(width, width, down=i < down) for i in range(down + 2)]
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Linear(width, 1)
        init_weights(self)
        if spectral:
            for layer in [m for m in self.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]:
                torch.nn.utils.parametrizations.spectral_norm(layer)

    def forward(self, images: Tensor) -> Tensor:
        h = F.relu(self.blocks(images))
        return self.dense(h.sum((2, 3)) if self.spectral else h.mean((2, 3)))
