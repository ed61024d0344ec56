"""What needs no training, for a generator to be compared with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.objectives.translation.degradations import blur, flux, stretch


def filled(image: Tensor, hole: Tensor, rounds: int = 500) -> Tensor:
    """`image` (B, C, H, W) with the harmonic surface in `hole` (B, 1, H, W) bool: every pixel there
    becomes the mean of its four neighbours, by `rounds` sweeps from the mean of what is known."""
    known = (~hole).to(image.dtype)
    mean = (image * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp_min(1)
    found = torch.where(hole, mean, image)
    for _ in range(rounds):
        padded = F.pad(found, (1, 1, 1, 1), mode="replicate")
        around = (
            padded[..., :-2, 1:-1]
            + padded[..., 2:, 1:-1]
            + padded[..., 1:-1, :-2]
            + padded[..., 1:-1, 2:]
        ) / 4
        found = torch.where(hole, around, image)
    return found


def smoothed(image: Tensor, sigma: float) -> Tensor:
    """A stretched image (B, C, H, W) in [-1, 1] whose flux is blurred once more: less noise."""
    return stretch(blur(flux(image), sigma))


def richardson_lucy(image: Tensor, sigma: float, rounds: int = 10, sky: float = 0.1) -> Tensor:
    """A stretched image (B, C, H, W) in [-1, 1] deconvolved with a Gaussian (Richardson 1972, Lucy
    1974), in flux; `sky` is added first, so that noise stays positive."""
    seen = (flux(image) + sky).clamp_min(1e-4)
    found = seen.clone()
    for _ in range(rounds):
        found = found * blur(seen / blur(found, sigma).clamp_min(1e-4), sigma)
    return stretch(found - sky)
