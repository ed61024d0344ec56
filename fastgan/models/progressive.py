"""The growing networks of progressive GANs (Karras et al. 2018, arXiv 1710.10196, table 2), for
images of 4 times a power of two."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fastgan.models.layers.equalized import EqualizedConv2d, EqualizedLinear, PixelNorm, last_layers


def channels_at(level: int, width: int, most: int) -> int:
    """Channels of the map of 4 * 2^level pixels: `most` inside, halved for each of the outer
    ones, never below `width`."""
    return max(most // 2 ** max(level - 1, 0), width)


def blend(before: Tensor, now: Tensor, alpha: Tensor | float) -> Tensor:
    """before at alpha 0 and now at 1, bit for bit, as torch.lerp promises in its two branches."""
    weight = torch.as_tensor(alpha, dtype=before.dtype, device=before.device)
    return torch.lerp(before, now.to(before.dtype), weight)


class Generator(nn.Module):
    """(z (B, latent), alpha) -> (B, channels, s, s), s = 4 * 2^level, unbounded.

    alpha, a 0-dim tensor: the share of the newest level; below 1 the rest comes from the level
    before, enlarged.
    """

    def __init__(
        self, level: int, channels: int = 3, latent: int = 128, width: int = 16, most: int = 64
    ) -> None:
        super().__init__()
        self.level, self.channels, self.latent = level, channels, latent
        self.width, self.most = width, most
        w = [channels_at(i, width, most) for i in range(level + 1)]
        act = nn.LeakyReLU(0.2)
        self.first = nn.Sequential(
            PixelNorm(),
            EqualizedLinear(latent, 16 * w[0], gain=2**0.5 / 4),
            nn.Unflatten(1, (w[0], 4, 4)),
            act,
            PixelNorm(),
            EqualizedConv2d(w[0], w[0], 3),
            act,
            PixelNorm(),
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(scale_factor=2.0),
                EqualizedConv2d(w[i], w[i + 1], 3),
                act,
                PixelNorm(),
                EqualizedConv2d(w[i + 1], w[i + 1], 3),
                act,
                PixelNorm(),
            )
            for i in range(level)
        )
        self.to_image = nn.ModuleList(EqualizedConv2d(c, channels, 1, gain=1.0) for c in w)
        self.upsample = nn.Upsample(scale_factor=2.0)

    def forward(self, z: Tensor, alpha: Tensor | float = 1.0) -> Tensor:
        h = self.first(z)
        if not self.level:
            return self.to_image[0](h)
        for block in self.blocks[:-1]:
            h = block(h)
        before = self.upsample(self.to_image[-2](h))
        return blend(before, self.to_image[-1](self.blocks[-1](h)), alpha)


class Discriminator(nn.Module):
    """(images (B, channels, s, s), alpha) -> logits (B, 1), s = 4 * 2^level."""

    def __init__(self, level: int, channels: int = 3, width: int = 16, most: int = 64) -> None:
        super().__init__()
        self.level, self.channels, self.width, self.most = level, channels, width, most
        w = [channels_at(i, width, most) for i in range(level + 1)]
        act = nn.LeakyReLU(0.2)
        self.from_image = nn.ModuleList(
            nn.Sequential(EqualizedConv2d(channels, c, 1), act) for c in w
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                EqualizedConv2d(w[i + 1], w[i + 1], 3),
                act,
                EqualizedConv2d(w[i + 1], w[i], 3),
                act,
                nn.AvgPool2d(2),
            )
            for i in range(level)
        )
        self.last = nn.Sequential(*last_layers(w[0]))
        self.pool = nn.AvgPool2d(2)

    def forward(self, images: Tensor, alpha: Tensor | float = 1.0) -> Tensor:
        h = self.from_image[-1](images)
        if self.level:
            before = self.from_image[-2](self.pool(images))
            h = blend(before, self.blocks[-1](h), alpha)
            for block in reversed(self.blocks[:-1]):
                h = block(h)
        return self.last(h)


@torch.no_grad()
def carry(before: Mapping[str, nn.Module], after: Mapping[str, nn.Module]) -> None:
    """Copy what the networks of the level before have in common with those of the next one: at
    alpha 0 these make and judge the same images, enlarged."""
    for name, net in after.items():
        old = before[name].state_dict()
        for key, value in net.state_dict().items():
            if key in old:
                value.copy_(old[key])
