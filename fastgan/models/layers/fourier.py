"""Fast Fourier convolutions: each output sees the whole map (Chi et al. 2020, "Fast Fourier
convolution"; Suvorov et al. 2022, LaMa, arXiv 2109.07161, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastgan.errors import FastganError


def mixed(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution, batch norm, ReLU: (B, inputs, H, W) -> (B, outputs, H, W)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class FourierUnit(nn.Module):
    """(B, C, H, W) -> the same: a 1x1 convolution, batch norm and ReLU of the map's spectrum, whose
    real parts come first and imaginary parts after, 2 C channels (B, 2 C, H, W // 2 + 1).

    Both transforms are orthonormal and in fp32 or fp64 whatever autocast says: those in half
    precision take powers of two alone, and there are none in bf16.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.mix = mixed(2 * channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        spectrum = torch.fft.rfft2(x.to(wide), norm="ortho")
        parts = self.mix(torch.cat([spectrum.real, spectrum.imag], 1).to(x.dtype)).to(wide)
        real, imaginary = parts.chunk(2, 1)
        made = torch.fft.irfft2(torch.complex(real, imaginary), s=x.shape[2:], norm="ortho")
        return made.to(x.dtype)


class SpectralTransform(nn.Module):
    """(B, C, H, W) -> the same: a 1x1 convolution of h + FourierUnit(h), h of half the channels
    (Chi et al. 2020, figure 2, without its local unit, as in LaMa)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, narrow = channels, max(channels // 2, 1)
        self.narrow, self.unit = mixed(channels, narrow), FourierUnit(narrow)
        self.out = nn.Conv2d(narrow, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.narrow(x)
        return self.out(h + self.unit(h))


class FourierConv2d(nn.Module):
    """(B, C, H, W) -> the same. The last round(ratio * C) channels are global, g, the others
    local, l:

        y_l = W_ll x_l + W_gl x_g,    y_g = W_lg x_l + S(x_g).

    The W are 3x3 convolutions without bias, padded with zeros, W_ll and W_gl one of all channels; S
    is a `SpectralTransform`. Raises FastganError where a branch would have no channel.
    """

    def __init__(self, channels: int, ratio: float = 0.75) -> None:
        super().__init__()
        self.channels, self.ratio = channels, ratio
        spread = round(ratio * channels)
        if not 0 < spread < channels:
            raise FastganError(
                f"a ratio of {ratio} leaves {channels} channels without a local or a global part: "
                "use one between 0 and 1, or more channels"
            )
        self.parts = (channels - spread, spread)
        self.to_local = nn.Conv2d(channels, self.parts[0], 3, padding=1, bias=False)
        self.to_global = nn.Conv2d(*self.parts, 3, padding=1, bias=False)
        self.spectral = SpectralTransform(spread)

    def forward(self, x: Tensor) -> Tensor:
        near, far = x.split(self.parts, 1)
        return torch.cat([self.to_local(x), self.to_global(near) + self.spectral(far)], 1)


class FourierBlock(nn.Module):
    """x + f(f(x)), f a `FourierConv2d`, batch norm and ReLU: (B, C, H, W) -> the same (LaMa, figure
    2)."""

    def __init__(self, channels: int, ratio: float = 0.75) -> None:
        super().__init__()
        self.channels, self.ratio = channels, ratio
        self.layers = nn.Sequential(
            *(
                layer
                for _ in "ab"
                for layer in (FourierConv2d(channels, ratio), nn.BatchNorm2d(channels), nn.ReLU())
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)
