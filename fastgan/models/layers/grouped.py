"""The blocks of R3GAN: residual, grouped, without normalisation (Huang et al. 2024, arXiv
2501.05441, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.models.layers.attention import CosineAttention

GAIN = (2 / (1 + 0.2**2)) ** 0.5
"""What keeps the size of values through LeakyReLU(0.2) (He et al. 2015)."""


class MagnitudeConv2d(nn.Conv2d):
    """A convolution whose weights have length 1 for each output channel (Karras et al. 2024, arXiv
    2312.02696, section 2.3), so that it preserves the size of values; no bias."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, groups: int = 1
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
        )
        nn.init.normal_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        norm = self.weight.flatten(1).norm(dim=1).clamp_min(1e-6).view(-1, 1, 1, 1)
        return self._conv_forward(input, self.weight / norm, None)


def convolution(
    inputs: int, outputs: int, side: int, groups: int, magnitude: bool, gain: float
) -> nn.Conv2d:
    """Without bias; N(0, gain^2 / fan in), or with weights of length 1."""
    if magnitude:
        return MagnitudeConv2d(inputs, outputs, side, groups)
    made = nn.Conv2d(inputs, outputs, side, padding=side // 2, groups=groups, bias=False)
    nn.init.normal_(made.weight, std=gain / (side * side * inputs / groups) ** 0.5)
    return made


class GroupedBlock(nn.Module):
    """x + 1x1(act(grouped 3x3(act(1x1(x))))), (B, C, H, W) -> the same; with `heads`, attention
    comes first.

    The last convolution starts at 0, so that the block does nothing at first (Fixup, Zhang et al.
    2019); with `magnitude`, weights have length 1 instead, and a learned gain from 0 does that.
    """

    def __init__(
        self,
        channels: int,
        expansion: int = 2,
        group: int = 16,
        heads: int = 0,
        magnitude: bool = False,
    ) -> None:
        super().__init__()
        self.channels, self.expansion, self.group = channels, expansion, group
        self.heads, self.magnitude = heads, magnitude
        inner = channels * expansion
        groups = max(inner // group, 1)
        while inner % groups:
            groups -= 1
        self.attention = CosineAttention(channels, heads) if heads else None
        self.widen = convolution(channels, inner, 1, 1, magnitude, GAIN)
        self.mix = convolution(inner, inner, 3, groups, magnitude, GAIN)
        self.narrow = convolution(inner, channels, 1, 1, magnitude, 0.0)
        self.bias1 = nn.Parameter(torch.zeros(inner, 1, 1))
        self.bias2 = nn.Parameter(torch.zeros(inner, 1, 1))
        self.gain = nn.Parameter(torch.zeros(())) if magnitude else None

    def forward(self, x: Tensor) -> Tensor:
        if self.attention is not None:
            x = x + self.attention(x)
        h = F.leaky_relu(self.widen(x) + self.bias1, 0.2)
        h = F.leaky_relu(self.mix(h) + self.bias2, 0.2)
        h = self.narrow(h)
        return x + (h if self.gain is None else self.gain * h)
