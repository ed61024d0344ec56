"""Networks for sounds: WaveGAN's one-dimensional convolutions (Donahue et al. 2019, arXiv
1802.04208, tables 3 and 4), four times as far at each layer."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

FIRST = 16
"""Samples of the first layer's maps."""

KERNEL = 25


def widths(length: int, width: int) -> list[int]:
    """Channels of each layer from the first maps to the sound. Raises ValueError for a length that
    is not FIRST times a power of 4."""
    layers = 0
    while FIRST * 4**layers < length:
        layers += 1
    if FIRST * 4**layers != length or not layers:
        raise ValueError(f"sounds of {length} samples: --length is 1024, 4096 or 16384")
    return [*(width * 2**i for i in range(layers - 1, -1, -1)), 1]


class Generator(nn.Module):
    """z (B, latent) -> sounds (B, 1, length) in [-1, 1]."""

    def __init__(self, length: int = 4096, latent: int = 100, width: int = 16) -> None:
        super().__init__()
        self.length, self.latent, self.width = length, latent, width
        wide = widths(length, width)
        self.first = nn.Linear(latent, FIRST * wide[0])
        layers: list[nn.Module] = []
        for given, made in pairwise(wide):
            layers += [
                nn.ReLU(),
                nn.ConvTranspose1d(given, made, KERNEL, 4, padding=11, output_padding=1),
            ]
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(self.first(z).unflatten(1, (-1, FIRST)))


class PhaseShuffle(nn.Module):
    """In training, moves each sample's maps (B, C, L) by a random -reach ... reach, the ends
    mirrored, so that a critic can't go by the phase (section 3.3)."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.reach:
            return x
        last = x.shape[2] - 1
        moved = torch.randint(-self.reach, self.reach + 1, (len(x), 1), device=x.device)
        at = (torch.arange(last + 1, device=x.device) + moved).abs()
        at = last - (last - at).abs()
        return x.gather(2, at[:, None].expand_as(x))


class Critic(nn.Module):
    """Sounds (B, 1, length) -> (B, 1)."""

    def __init__(self, length: int = 4096, width: int = 16, shuffle: int = 2) -> None:
        super().__init__()
        self.length, self.width, self.shuffle = length, width, shuffle
        wide = widths(length, width)[::-1]
        layers: list[nn.Module] = []
        for given, made in pairwise(wide):
            layers += [nn.Conv1d(given, made, KERNEL, 4, padding=11), nn.LeakyReLU(0.2)]
            layers += [PhaseShuffle(shuffle)] if made != wide[-1] else []
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(FIRST * wide[-1], 1))

    def forward(self, sounds: Tensor) -> Tensor:
        return self.layers(sounds)
