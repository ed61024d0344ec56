"""What an image is made worse by on the fly, so that a network learns the way back.

Each is a dataclass called with (batch, noise): `batch["image"]` is (B, C, H, W) in [-1, 1], and the
result is what the generator is given. What is random is declared as `noise`, so a degradation is a
pure function of (seed, step, sample index).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.objectives.base import Noise


class Degradation:
    """From a batch and noise to the generator's input."""

    @property
    def noise(self) -> Mapping[str, Noise]:
        """What is random in it, by name: numbers of one sample."""
        return {}

    def __call__(self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class Edges(Degradation):
    """Dark lines on white where the image changes: Sobel's gradient of its mean channel, (B, 1, H,
    W)."""

    gain: float = 1.0

    def __call__(self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> Tensor:
        grey = F.pad(batch["image"].float().mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        across = grey[..., 2:] - grey[..., :-2]
        down = grey[..., 2:, :] - grey[..., :-2, :]
        x = (across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]) / 4
        y = (down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]) / 4
        strength = (x.square() + y.square()).sqrt().mul(self.gain).clamp(0, 2)
        return 1 - strength


@dataclass(frozen=True)
class Downscale(Degradation):
    """Antialiased bicubic reduction by a whole factor, rounded to 8 bits as a file would be."""

    factor: int = 4

    def __call__(self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> Tensor:
        image = batch["image"].float()
        size = (image.shape[2] // self.factor, image.shape[3] // self.factor)
        small = F.interpolate(
            image, size=size, mode="bicubic", antialias=True, align_corners=False
        ).clamp(-1, 1)
        return ((small + 1) * 127.5).round() / 127.5 - 1


@dataclass(frozen=True)
class Holes(Degradation):
    """The image without what lies in random boxes and thick strokes, and the mask as one more
    channel: (B, C + 1, H, W), holes 0 in the image and 1 in the mask, which is -1 elsewhere.

    A `batch["mask"]` (B, 1, H, W) takes the place of random holes: above 0 (white) is a hole.
    Sides of boxes are `least` to `largest` of the image's, strokes half as wide as `least`.
    """

    boxes: int = 2
    strokes: int = 2
    least: float = 0.15
    largest: float = 0.45

    @property
    def noise(self) -> Mapping[str, Noise]:
        return {"holes": Noise((4 * (self.boxes + self.strokes),), "uniform", 0.0, 1.0)}

    def mask(self, image: Tensor, numbers: Tensor) -> Tensor:
        """(B, 1, H, W) bool from uniform numbers (B, 4 * (boxes + strokes))."""
        height, width = image.shape[2:]
        y = (torch.arange(height, device=image.device) + 0.5).div(height)[:, None]
        x = (torch.arange(width, device=image.device) + 0.5).div(width)[None, :]
        u = numbers.float().view(len(numbers), -1, 4, 1, 1).unbind(1)
        hole = torch.zeros(len(image), height, width, dtype=torch.bool, device=image.device)
        for part in u[: self.boxes]:
            sides = self.least + (self.largest - self.least) * part[:, 2:]
            top, left = part[:, 0] * (1 - sides[:, 0]), part[:, 1] * (1 - sides[:, 1])
            hole |= (y >= top) & (y < top + sides[:, 0]) & (x >= left) & (x < left + sides[:, 1])
        for part in u[self.boxes :]:
            y0, x0, y1, x1 = (part[:, i] for i in range(4))
            length = (y1 - y0).square() + (x1 - x0).square() + 1e-6
            along = (((y - y0) * (y1 - y0) + (x - x0) * (x1 - x0)) / length).clamp(0, 1)
            gap = (y - y0 - along * (y1 - y0)).square() + (x - x0 - along * (x1 - x0)).square()
            hole |= gap < (self.least / 4) ** 2
        return hole[:, None]

    def __call__(self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> Tensor:
        image = batch["image"]
        hole = batch["mask"] > 0 if "mask" in batch else self.mask(image, noise["holes"])
        known = torch.where(hole, torch.zeros_like(image), image)
        return torch.cat([known, hole.to(image.dtype) * 2 - 1], 1)


@dataclass(frozen=True)
class Telescope(Degradation):
    """A galaxy through the atmosphere: Gaussian blur of the flux and white noise of the sky, seen
    through the asinh stretch (Schawinski et al. 2017, arXiv 1702.00403).

    sigma: of the point spread function in pixels. sky: standard deviation of the noise, in units of
    flux. shape: (C, H, W) of an image.
    """

    shape: tuple[int, ...]
    sigma: float = 1.5
    sky: float = 0.05

    @property
    def noise(self) -> Mapping[str, Noise]:
        return {"sky": Noise(tuple(self.shape))}

    def __call__(self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> Tensor:
        return stretch(blur(flux(batch["image"].float()), self.sigma) + self.sky * noise["sky"])


LOWEST, BRIGHTEST = -0.1, 4.0
"""Flux outside is cut off."""


def stretch(light: Tensor) -> Tensor:
    """Flux as an image in [-1, 1]: asinh(10 f) / 3, scaled so that LOWEST gives -1 and BRIGHTEST
    1."""
    low, high = (math.asinh(10 * f) for f in (LOWEST, BRIGHTEST))
    return (torch.asinh(10 * light.clamp(LOWEST, BRIGHTEST)) - low) / (high - low) * 2 - 1


def flux(image: Tensor) -> Tensor:
    """The inverse of `stretch`."""
    low, high = (math.asinh(10 * f) for f in (LOWEST, BRIGHTEST))
    return torch.sinh((image + 1) / 2 * (high - low) + low) / 10


def blur(light: Tensor, sigma: float) -> Tensor:
    """(B, C, H, W) convolved with a Gaussian, edges repeated; the kernel ends at 3 sigma."""
    reach = max(1, math.ceil(3 * sigma))
    at = torch.arange(-reach, reach + 1, dtype=light.dtype, device=light.device)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = light.shape[1]
    padded = F.pad(light, (reach, reach, reach, reach), mode="replicate")
    rows = F.conv2d(padded, kernel.expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(rows, kernel[:, None].expand(channels, 1, -1, 1), groups=channels)


def noise_of(degradation: Any) -> Mapping[str, Noise]:
    """The random inputs of a degradation, none for None."""
    return degradation.noise if degradation is not None else {}
