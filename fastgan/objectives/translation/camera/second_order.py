"""Images made small as by a camera, an editor and the web: blur, resizing, noise and JPEG, twice
(Wang et al. 2021, "Real-ESRGAN", arXiv 2107.10833, section 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.objectives.base import Noise
from fastgan.objectives.translation.camera.blurring import (
    KINDS,
    blurred,
    cutoff_of,
    kernels,
    reach_of,
    sinc,
)
from fastgan.objectives.translation.camera.jpeg import jpeg
from fastgan.objectives.translation.camera.resizing import Sizes, repeated, resized
from fastgan.objectives.translation.degradations import Degradation


@dataclass(frozen=True)
class Pass:
    """One of the two degradations: probabilities, and ranges for images of WHOLE pixels.

    blur: its probability. sigma: the largest of a kernel, in pixels. up, down: probabilities of a
    larger and a smaller size. resize: least and largest factor of size, of the large image in the
    first pass and of the small one in the second. gaussian: the largest deviation of noise, of 255.
    poisson: the largest factor of the noise that LEVELS counts of light would have.
    """

    blur: float
    sigma: float
    up: float
    down: float
    resize: tuple[float, float]
    gaussian: float
    poisson: float


FIRST = Pass(1.0, 3.0, 0.2, 0.7, (0.15, 1.5), 30.0, 3.0)
SECOND = Pass(0.8, 1.5, 0.3, 0.4, (0.3, 1.2), 25.0, 2.5)
SIGMA, GAUSSIAN, POISSON = 0.2, 1.0, 0.05
"""The least of each."""
REACH, QUALITY = (3, 10), (30, 95)
"""Pixels that a kernel reaches, which is 7 to 21 wide; qualities of JPEG."""
FLAT, GREY, RINGING, LATE = 0.5, 0.4, 0.8, 0.5
"""Probabilities of Gaussian noise instead of Poisson's, of noise alike in all channels, of the last
low pass, and that the last JPEG comes after it."""
LEVELS = 256
"""Counts of light at white."""

WHOLE = 256
"""Pixels of the paper's training images, for which the ranges are."""

NUMBERS = (*("blur", *KINDS, "direction", "amount", "way"), *("flat", "grey", "level", "quality"))
"""The uniform numbers of a pass."""

LAST = ("ringing", "reach", "cutoff", "way", "late")
"""Those of the end."""


@dataclass(frozen=True)
class Camera(Degradation):
    """The second-order degradation, each sample with settings of its own, rounded to 8 bits.

    Blur, another size, noise and JPEG at the large image; the same again around the small size;
    and, before or after the second JPEG, the small size itself and a low pass that rings. Images
    below WHOLE pixels are whole scenes of few pixels, of which that would leave nothing: see
    `share`. Poisson's noise is a Gaussian of its variance. Targets are not sharpened.

    shape: (C, H, W) of an image, grey or colour. factor: how many times smaller. Raises
    FastganError for another number of channels.
    """

    shape: tuple[int, ...]
    factor: int = 4

    def __post_init__(self) -> None:
        if self.shape[0] not in (1, 3):
            raise FastganError(
                f"a camera's images are grey or colour, not of {self.shape[0]} channels: use "
                "--channels 3, or --degradation bicubic"
            )

    @property
    def share(self) -> float:
        """The root of the longer side by WHOLE, 1 at most. Kernels, sigmas and the most of noise
        are multiplied by it; factors of size and shares of frequencies are raised to its power."""
        return min(1.0, math.sqrt(max(self.shape[1:]) / WHOLE))

    @property
    def small(self) -> tuple[int, int]:
        """(H, W) of the result."""
        return self.shape[1] // self.factor, self.shape[2] // self.factor

    @property
    def reach(self) -> tuple[int, int]:
        """The least and the most pixels that a kernel reaches."""
        low, high = (max(1, round(self.share * pixels)) for pixels in REACH)
        return low, high

    def around(self, one: Pass) -> tuple[int, int]:
        """(H, W) that a pass's factors of size are of."""
        return (self.shape[1], self.shape[2]) if one is FIRST else self.small

    def canvas(self, one: Pass) -> tuple[int, int]:
        """(H, W) that hold every size of a pass."""
        height, width = (int(side * one.resize[1] ** self.share) for side in self.around(one))
        return height, width

    @property
    def noise(self) -> Mapping[str, Noise]:
        channels = self.shape[0]
        return {
            "settings": Noise((2 * len(NUMBERS) + len(LAST),), "uniform", 0.0, 1.0),
            "first": Noise((channels, *self.canvas(FIRST))),
            "second": Noise((channels, *self.canvas(SECOND))),
        }

    def __call__(self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> Tensor:
        image = batch["image"]
        with torch.autocast(image.device.type, enabled=False):
            u = noise["settings"].float().unbind(1)
            count = len(NUMBERS)
            first, second = (dict(zip(NUMBERS, u[at:])) for at in (0, count))
            last = dict(zip(LAST, u[2 * count :]))
            x, sizes = (image.float().contiguous() + 1) / 2, every(self.shape[1:], u[0])
            x, sizes = self.degraded(x, sizes, FIRST, first, noise["first"].float())
            x = repeated(jpeg(repeated(x, sizes), quality(first)), sizes)
            x, sizes = self.degraded(x, sizes, SECOND, second, noise["second"].float())
            late = (last["late"] < LATE).view(-1, 1, 1, 1)
            x = torch.where(late, x, jpeg(repeated(x, sizes), quality(second)))
            x = resized(x, sizes, every(self.small, u[0]), self.small, third(last["way"]))
            reach = reach_of(last["reach"], self.reach)
            low_pass = sinc(cutoff_of(last["cutoff"], 1 / 3, self.share), reach, self.reach[1])
            x = blurred(x, low_pass, last["ringing"] < RINGING).clamp(0, 1)
            x = torch.where(late, jpeg(x, quality(second)), x)
            return (x * 255).round() / 127.5 - 1

    def degraded(
        self, x: Tensor, sizes: Sizes, one: Pass, u: Mapping[str, Tensor], z: Tensor
    ) -> tuple[Tensor, Sizes]:
        """Blur, another size and noise: images in [0, 1] of `sizes` in the corner of (B, C, H, W),
        and after it. u: `NUMBERS` (B,). z: N(0, 1), (B, C, *canvas)."""
        sigma = (SIGMA, max(SIGMA, one.sigma * self.share))
        x = blurred(x, kernels(u, sigma, self.reach, self.share), u["blur"] < one.blur)
        wanted = self.sizes(one, u)
        x = resized(x, sizes, wanted, self.canvas(one), third(u["way"])).clamp(0, 1)
        return self.noisy(x, one, u, z), wanted

    def sizes(self, one: Pass, u: Mapping[str, Tensor]) -> Sizes:
        """Heights and widths after a pass."""
        low, high = (factor**self.share for factor in one.resize)
        scale = torch.where(u["direction"] < one.up, 1 + (high - 1) * u["amount"], 1.0)
        down = u["direction"] >= 1 - one.down
        scale = torch.where(down, low + (1 - low) * u["amount"], scale)
        height, width = (
            (side * scale).floor().clamp(1, most)
            for side, most in zip(self.around(one), self.canvas(one))
        )
        return height, width

    def noisy(self, x: Tensor, one: Pass, u: Mapping[str, Tensor], z: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] with Gaussian noise, or with one whose variance is proportional to
        light; alike in all channels where it is grey."""
        flat, grey, level = (u[name].view(-1, 1, 1, 1) for name in ("flat", "grey", "level"))
        light = x
        if x.shape[1] == 3:
            r, g, b = x.split(1, 1)
            light = torch.where(grey < GREY, 0.299 * r + 0.587 * g + 0.114 * b, x)
            z = torch.where(grey < GREY, z[:, :1], z)
        gaussian, poisson = (
            low + (max(low, most * self.share) - low) * level
            for low, most in ((GAUSSIAN, one.gaussian), (POISSON, one.poisson))
        )
        deviation = torch.where(flat < FLAT, gaussian / 255, poisson * (light / LEVELS).sqrt())
        return (x + deviation * z).clamp(0, 1)


def every(sizes: tuple[int, ...], like: Tensor) -> Sizes:
    """One height and width for every sample of `like` (B,)."""
    return torch.full_like(like, sizes[0]), torch.full_like(like, sizes[1])


def third(u: Tensor) -> Tensor:
    """0, 1 or 2 of u in [0, 1), the ways of resizing."""
    return (u * 3).floor()


def quality(u: Mapping[str, Tensor]) -> Tensor:
    """(B,) whole qualities of JPEG."""
    return QUALITY[0] + (u["quality"] * (QUALITY[1] - QUALITY[0] + 1)).floor()
