"""DCGAN's networks (Radford et al. 2016) for square images of 4, 5, 6 or 7 times a power of two: 28
to 256 pixels."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from fastgan.errors import FastganError


def plan(size: int, base_width: int) -> tuple[int, list[int]]:
    """(side of the innermost map, channels from the innermost level outwards) for `size` pixels;
    channels double inwards up to 16 * base_width.

    64 pixels with base width 64 gives (4, [512, 256, 128, 64]), the networks of the PyTorch
    tutorial. Raises FastganError for other sizes.
    """
    side, levels = size, 0
    while side > 7 and side % 2 == 0:
        side, levels = side // 2, levels + 1
    if not 4 <= side <= 7 or levels < 1:
        fitting = sorted(s * 2**k for s in (4, 5, 6, 7) for k in range(1, 9))
        near = sorted(fitting, key=lambda s: abs(s - size))[:2]
        raise FastganError(
            f"can't make {size}x{size} images: use --size {' or '.join(map(str, sorted(near)))}"
        )
    return side, [base_width * min(2**i, 16) for i in reversed(range(levels))]


def init_weights(module: nn.Module) -> None:
    """N(0, 0.02) for convolutions, N(1, 0.02) for the scales of batch normalisation (Radford et al.
    2016, section 4)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class Generator(nn.Sequential):
    """(B, latent, 1, 1) -> (B, channels, size, size) in [-1, 1]."""

    def __init__(
        self, size: int = 64, channels: int = 3, latent: int = 100, base_width: int = 64
    ) -> None:
        side, widths = plan(size, base_width)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent, widths[0], side, 1, 0, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(True),
        ]
        for inner, outer in itertools.pairwise(widths):
            layers += [
                nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False),
                nn.BatchNorm2d(outer),
                nn.ReLU(True),
            ]
        layers += [nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1, bias=False), nn.Tanh()]
        super().__init__(*layers)
        self.size, self.channels, self.latent, self.base_width = size, channels, latent, base_width
        self.apply(init_weights)


class Discriminator(nn.Sequential):
    """(B, channels, size, size) -> logits (B, 1, 1, 1)."""

    def __init__(self, size: int = 64, channels: int = 3, base_width: int = 64) -> None:
        side, widths = plan(size, base_width)
        widths = widths[::-1]
        layers: list[nn.Module] = [
            nn.Conv2d(channels, widths[0], 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, True),
        ]
        for outer, inner in itertools.pairwise(widths):
            layers += [
                nn.Conv2d(outer, inner, 4, 2, 1, bias=False),
                nn.BatchNorm2d(inner),
                nn.LeakyReLU(0.2, True),
            ]
        layers += [nn.Conv2d(widths[-1], 1, side, 1, 0, bias=False)]
        super().__init__(*layers)
        self.size, self.channels, self.base_width = size, channels, base_width
        self.apply(init_weights)


class ConditionalGenerator(nn.Module):
    """(z (B, latent, 1, 1), label (B,)) -> images: the one-hot label is put beside z (Mirza &
    Osindero 2014, section 3.2)."""

    def __init__(
        self,
        size: int = 64,
        channels: int = 3,
        latent: int = 100,
        base_width: int = 64,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.size, self.channels, self.latent, self.base_width, self.classes = (
            size,
            channels,
            latent,
            base_width,
            classes,
        )
        self.body = Generator(size, channels, latent + classes, base_width)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return self.body(torch.cat([z, one_hot(label, self.classes, z)], 1))


class ConditionalDiscriminator(nn.Module):
    """(images, label (B,)) -> logits (B, 1, 1, 1): the one-hot label is put beside the image as
    constant planes (Mirza & Osindero 2014).
    """

    def __init__(
        self, size: int = 64, channels: int = 3, base_width: int = 64, classes: int = 10
    ) -> None:
        super().__init__()
        self.size, self.channels, self.base_width, self.classes = (
            size,
            channels,
            base_width,
            classes,
        )
        self.body = Discriminator(size, channels + classes, base_width)

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        planes = one_hot(label, self.classes, images).expand(-1, -1, *images.shape[2:])
        return self.body(torch.cat([images, planes], 1))


def one_hot(label: Tensor, classes: int, like: Tensor) -> Tensor:
    """(B, classes, 1, 1) in the type of `like`; compares instead of torch's one_hot, which reads
    the device."""
    return (label[:, None] == torch.arange(classes, device=label.device)).to(like.dtype)[
        :, :, None, None
    ]
