"""StyleGAN2's networks, small (Karras et al. 2020, arXiv 1912.04958, sections 2 and 4): a mapping
network, a generator that adds up images, a residual discriminator."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.errors import FastganError
from fastgan.models.layers.equalized import EqualizedConv2d, EqualizedLinear, PixelNorm, last_layers
from fastgan.models.layers.modulated import ModulatedConv2d
from fastgan.models.progressive import channels_at

GAIN = 2**0.5
SIZES = (8, 16, 32, 64, 128)


def levels_of(size: int) -> int:
    """The doublings from 4 pixels. Raises FastganError."""
    if size not in SIZES:
        raise FastganError(
            f"stylegan2-small makes images of 8, 16, 32, 64 or 128 pixels, not {size}: use --size "
            f"{min(SIZES, key=lambda s: abs(s - size))}"
        )
    return SIZES.index(size) + 1


class Blur(nn.Module):
    """[1, 2, 1] / 4 down and across, edges repeated; after nearest doubling it is the filter
    [1, 3, 3, 1] of the paper."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", (row[:, None] * row)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv2d(padded, self.kernel.to(x.dtype).expand(channels, 1, 3, 3), groups=channels)


class Generator(nn.Module):
    """(z (B, latent)[, other (B, latent), cut (B,)]) -> images (B, channels, size, size),
    unbounded; with styles=True also w (B, layers, latent), with its graph.

    The first cut * layers layers take their style from z, the others from `other` (style mixing).
    """

    def __init__(
        self,
        size: int = 32,
        channels: int = 3,
        latent: int = 64,
        width: int = 16,
        most: int = 128,
        mapping: int = 2,
    ) -> None:
        super().__init__()
        self.size, self.channels, self.latent = size, channels, latent
        self.width, self.most, self.mapping = width, most, mapping
        levels = levels_of(size)
        w = [channels_at(i, width, most) for i in range(levels + 1)]
        act = nn.LeakyReLU(0.2)
        hidden = [(EqualizedLinear(latent, latent, lr=0.01), act) for _ in range(mapping)]
        self.map = nn.Sequential(PixelNorm(), *(layer for pair in hidden for layer in pair))
        self.constant = nn.Parameter(torch.randn(1, w[0], 4, 4))
        inner = [(w[0], w[0]), *((w[i + j], w[i + 1]) for i in range(levels) for j in (0, 1))]
        self.convolutions = nn.ModuleList(ModulatedConv2d(*c, 3, latent) for c in inner)
        self.to_image = nn.ModuleList(ModulatedConv2d(c, channels, 1, latent, False) for c in w)
        self.doubled = nn.Upsample(scale_factor=2.0)
        self.blur = Blur()
        self.layers = len(inner) + 1  # the last image has the style after its convolutions'

    def forward(
        self,
        z: Tensor,
        other: Tensor | None = None,
        cut: Tensor | None = None,
        styles: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        w = self.map(z)[:, None].expand(-1, self.layers, -1)
        if other is not None and cut is not None:
            index = torch.arange(self.layers, device=z.device) / self.layers
            w = torch.where(index[:, None] < cut[:, None, None], w, self.map(other)[:, None])
        images = self.synthesis(w)
        return (images, w) if styles else images

    def synthesis(self, w: Tensor) -> Tensor:
        """Images from styles (B, layers, latent); each image is told the style of the layer after
        it, as in the paper."""

        def layer(h: Tensor, i: int) -> Tensor:
            return F.leaky_relu(self.convolutions[i](h, w[:, i]), 0.2) * GAIN

        h = layer(self.constant.expand(w.shape[0], -1, -1, -1), 0)
        images = self.to_image[0](h, w[:, 1])
        for level in range(1, len(self.to_image)):
            h = layer(layer(self.doubled(h), 2 * level - 1), 2 * level)
            images = self.blur(self.doubled(images))
            images = images + self.to_image[level](h, w[:, 2 * level + 1])
        return images


class Down(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H/2, W/2): two convolutions and a skip, halved by the
    mean, over the root of 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        act = nn.LeakyReLU(0.2)
        self.branch = nn.Sequential(
            EqualizedConv2d(inputs, inputs, 3),
            act,
            EqualizedConv2d(inputs, outputs, 3),
            act,
            nn.AvgPool2d(2),
        )
        self.skip = nn.Sequential(nn.AvgPool2d(2), EqualizedConv2d(inputs, outputs, 1, gain=1.0))

    def forward(self, x: Tensor) -> Tensor:
        return (self.branch(x) + self.skip(x)) / GAIN


class Discriminator(nn.Module):
    """Images (B, channels, size, size) -> logits (B, 1); sees the deviation over groups of 4."""

    def __init__(self, size: int = 32, channels: int = 3, width: int = 16, most: int = 128) -> None:
        super().__init__()
        self.size, self.channels, self.width, self.most = size, channels, width, most
        levels = levels_of(size)
        w = [channels_at(i, width, most) for i in range(levels + 1)]
        act = nn.LeakyReLU(0.2)
        self.blocks = nn.Sequential(
            EqualizedConv2d(channels, w[-1], 1),
            act,
            *(Down(w[i + 1], w[i]) for i in reversed(range(levels))),
            *last_layers(w[0]),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(images)
