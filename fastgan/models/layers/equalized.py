"""What progressive growing and StyleGAN build on: equalised learning rates, pixel norm, deviation
over the batch (Karras et al. 2018, arXiv 1710.10196)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class EqualizedConv2d(nn.Conv2d):
    """A convolution with padding k // 2 whose weights are N(0, 1) and are scaled by gain / sqrt(fan
    in) at each call (section 4.1)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, gain: float = 2**0.5
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.gain = gain
        self.scale = gain / (in_channels * kernel_size * kernel_size) ** 0.5
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight * self.scale, self.bias)


class EqualizedLinear(nn.Linear):
    """A linear map whose weights are N(0, 1 / lr^2), scaled by lr * gain / sqrt(fan in) at each
    call; lr scales the learning rate (Karras et al. 2019: 0.01 in the mapping network)."""

    def __init__(
        self, in_features: int, out_features: int, gain: float = 2**0.5, lr: float = 1.0
    ) -> None:
        super().__init__(in_features, out_features)
        self.gain, self.lr = gain, lr
        self.scale = lr * gain / in_features**0.5
        nn.init.normal_(self.weight, std=1.0 / lr)
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight * self.scale, self.bias * self.lr)


class PixelNorm(nn.Module):
    """x / sqrt(mean over channels of x^2 + 1e-8), (B, C, ...) -> the same (eq. 2)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class MinibatchDeviation(nn.Module):
    """(B, C, H, W) -> (B, C + 1, H, W): the standard deviation over groups of at most `group`
    samples, averaged to one number a group (section 3).

    Sample i is in group i modulo B / group; a batch that doesn't divide is one group.
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        count = self.group if len(x) % self.group == 0 else len(x)
        grouped = x.unflatten(0, (count, -1))
        deviation = (grouped.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3), keepdim=True)
        planes = deviation.repeat(count, 1, 1, 1).expand(-1, -1, *x.shape[2:])
        return torch.cat([x, planes], 1)


def last_layers(width: int) -> list[nn.Module]:
    """Maps (B, width, 4, 4) -> logits (B, 1): how the discriminators end that see the deviation
    over the batch (table 2)."""
    act = nn.LeakyReLU(0.2)
    return [
        MinibatchDeviation(),
        EqualizedConv2d(width + 1, width, 3),
        act,
        nn.Flatten(),
        EqualizedLinear(16 * width, width),
        act,
        EqualizedLinear(width, 1, gain=1.0),
    ]
