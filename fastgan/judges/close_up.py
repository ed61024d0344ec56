"""Whether sets of images look like others close up: a Frechet distance of small patches, on a scale
from the reals (0) to one flat colour (1)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.judges.distances import frechet_distance
from fastgan.judges.patches import FEWEST, SIDE

COUNT = 8000
"""Patches of a set: 0.04 of reals against reals of painted landscapes, most of it of few images."""

VISIBLE = 4 / 255
"""Of the range from black to white: a direction in which patches differ less counts less."""


def close_up(reals: Tensor, sets: dict[str, Tensor], seed: int = 0) -> dict[str, float]:
    """How far the patches of each set are from those of the reals, float (n, C, H, W) in [0, 1]:
    0 alike, 1 as far as the reals' mean colour everywhere, which has no detail at all. Blur lies
    between these, noise and grids go beyond.

    Patches of 8x8 pixels from random places, in the uncorrelated directions of the reals' patches,
    each divided by its deviation and VISIBLE together, so that lost detail counts as much as lost
    outlines; then the Frechet distance, divided by the reals' whole variance. Nothing is fitted.
    Empty for images smaller than a patch, fewer than 64 of them, or reals of one colour.
    """
    if min(reals.shape[2:]) < SIDE or min(map(len, (reals, *sets.values()))) < FEWEST:
        return {}
    targets = _some(reals, seed)
    mean = targets.mean(0)
    variance, directions = torch.linalg.eigh(torch.cov(targets.T))
    scale = directions / (variance.clamp_min(0) + VISIBLE**2).sqrt()
    real = (targets - mean) @ scale
    whole = float(real.var(0).sum())
    if whole == 0:
        return {}
    return {
        name: frechet_distance((_some(images, seed + 1) - mean) @ scale, real) / whole
        for name, images in sets.items()
    }


def _some(images: Tensor, seed: int) -> Tensor:
    """(COUNT, C * 64) patches of (n, C, H, W), in float64."""
    count, _, height, width = images.shape
    dice, at = torch.Generator().manual_seed(seed), torch.arange(SIDE)
    which = torch.randint(count, (COUNT, 1, 1), generator=dice)
    y = torch.randint(height - SIDE + 1, (COUNT, 1, 1), generator=dice) + at[:, None]
    x = torch.randint(width - SIDE + 1, (COUNT, 1, 1), generator=dice) + at
    return images.detach().cpu()[which, :, y, x].flatten(1).double()
