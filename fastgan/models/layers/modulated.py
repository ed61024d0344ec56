"""Convolutions whose weights a style scales (Karras et al. 2020, StyleGAN2, arXiv 1912.04958,
section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastgan.models.layers.equalized import EqualizedLinear


class ModulatedConv2d(nn.Module):
    """(x (B, in, H, W), w (B, latent)) -> (B, out, H, W): for each sample a convolution with its
    own weights s_i W_oik, s = A(w), divided by their length over (i, k) where `demodulate`
    (equations 1 and 3).

    Computed with shared weights: scaling an input channel by s and an output channel by the inverse
    length is the same, and needs no group for each sample.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        latent: int,
        demodulate: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = (
            in_channels,
            out_channels,
            kernel_size,
        )
        self.latent, self.demodulate = latent, demodulate
        self.style = EqualizedLinear(latent, in_channels, gain=1.0)
        nn.init.ones_(self.style.bias)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.scale = (in_channels * kernel_size * kernel_size) ** -0.5
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        s, weight = self.style(w), self.weight * self.scale
        h = nn.functional.conv2d(
            x * s[:, :, None, None].to(x.dtype), weight, padding=self.kernel_size // 2
        )
        if self.demodulate:
            squares = s.to(weight.dtype).square() @ weight.square().sum((2, 3)).T
            h = h * (squares + 1e-8).rsqrt()[:, :, None, None].to(h.dtype)
        return h + self.bias.view(1, -1, 1, 1)
