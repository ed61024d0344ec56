"""Whether images look like others close up: a Frechet distance of small patches, on a scale from
the others themselves (0) to one flat colour (1)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.judges.distances import frechet_distance

CLOSE = "FD-patches"
"""What the distance is called where it is shown."""

SIDE = 8
"""Pixels: where details are, and few enough that a few hundred images hold thousands of patches."""

COUNT = 8000
"""Patches of a set. The distance of equal sets falls with it: 0.04 of colour images, 0.01 of grey
ones, which is what a floor shows."""

FEWEST = 32
"""Images of a set below which nothing is said."""

A_DIRECTION = 5
"""Patches on each side for every direction, below which equal sets would look far apart."""

VISIBLE = 4 / 255
"""Of the range from black to white: a direction in which patches differ less counts less."""


class Directions:
    """The uncorrelated directions of patches (n, d) in [0, 1], each divided by its deviation and
    VISIBLE together: lost detail counts as much as lost outlines, which blur leaves alone, and
    nothing counts that nobody sees. No network, nothing to fit or to download."""

    def __init__(self, patches: Tensor) -> None:
        self.mean = patches.mean(0)
        variance, directions = torch.linalg.eigh(torch.cov(patches.T))
        deviation = (variance.clamp_min(0) + VISIBLE**2).sqrt()
        self.scale = directions / deviation
        self.whole = float((variance.clamp_min(0) / deviation.square()).sum())

    def __call__(self, patches: Tensor) -> Tensor:
        """float64 (n, d) patches in these directions."""
        return (patches - self.mean) @ self.scale

    def distance(self, made: Tensor, real: Tensor) -> float:
        """The Frechet distance of two sets in these directions, (n, d) and (m, d), as a share of
        the variance of those that the directions are of: 1 is the mean of these everywhere."""
        return frechet_distance(made, real) / self.whole


class Patches:
    """Patches of images that have each a target, taken at the same random places of both, a batch
    at a time, of several sets of such images."""

    def __init__(self, images: int, seed: int = 0) -> None:
        """`images`: how many there will be in all."""
        self.each = max(1, COUNT // max(images, 1))
        self.dice = torch.Generator().manual_seed(seed)
        self.found: dict[str, list[Tensor]] = {}
        self.halves: list[Tensor] = []

    def add(self, targets: Tensor, sets: dict[str, Tensor], where: Tensor | None = None) -> None:
        """A batch: targets (B, C, H, W) in [-1, 1], and by name as many images of each set. where
        (B, 1, H, W): only patches that are at least half in it. Images smaller than a patch
        are left out."""
        count, _, height, width = targets.shape
        down, across = height - SIDE + 1, width - SIDE + 1
        if min(down, across) < 1:
            return
        chance = torch.rand(count, down * across, generator=self.dice)
        half = torch.rand(count, generator=self.dice) < 0.5
        if where is not None:
            inside = _cut(where.detach().cpu().float()).mean((1, 4, 5)) >= 0.5
            chance = chance * inside.flatten(1)
        best, place = chance.topk(min(self.each, down * across), dim=1)
        image, rank = (best > 0).nonzero(as_tuple=True)
        y, x = place[image, rank] // across, place[image, rank] % across
        self.halves.append(half[image])
        for name, images in {"": targets, **sets}.items():
            cut = _cut(images.detach().cpu().float().add(1).div(2).clamp(0, 1))
            self.found.setdefault(name, []).append(cut[image, :, y, x].flatten(1))

    def distances(self) -> dict[str, float]:
        """The distance of each set, by name, and of "" for the targets themselves: the floor. The
        images of a random half are compared with the targets of the other half, and the other way
        round. Empty where there are too few patches, or targets of one colour."""
        if not self.found:
            return {}
        half, real = torch.cat(self.halves), torch.cat(self.found[""]).double()
        if min(int(half.sum()), int((~half).sum())) < A_DIRECTION * real.shape[1]:
            return {}
        directions = Directions(real)
        if directions.whole == 0:
            return {}
        real, found = directions(real), {}
        for name, parts in self.found.items():
            made = directions(torch.cat(parts).double())
            there, back = (directions.distance(made[h], real[~h]) for h in (half, ~half))
            found[name] = (there + back) / 2
        return found


def close_up(real: Tensor, sets: dict[str, Tensor]) -> dict[str, float]:
    """How far the patches of each set, as `some_patches` draws them, are from those of the reals:
    blur lies between 0 and 1, noise and grids can go beyond. Empty for reals of one colour."""
    directions = Directions(real)
    if directions.whole == 0:
        return {}
    scaled = directions(real)
    return {name: directions.distance(directions(x), scaled) for name, x in sets.items()}


def some_patches(images: Tensor, seed: int, rows: Tensor | None = None) -> Tensor:
    """(COUNT, C * 64) patches in [0, 1], float64, from random places of images (n, C, H, W), those
    at `rows` or all: uint8, or floats in [0, 1]. Sides of SIDE pixels at least."""
    height, width = images.shape[2:]
    dice, at = torch.Generator().manual_seed(seed), torch.arange(SIDE)
    which = torch.randint(len(images if rows is None else rows), (COUNT, 1, 1), generator=dice)
    y = torch.randint(height - SIDE + 1, (COUNT, 1, 1), generator=dice) + at[:, None]
    x = torch.randint(width - SIDE + 1, (COUNT, 1, 1), generator=dice) + at
    patches = images[which if rows is None else rows[which], :, y, x].flatten(1).cpu().double()
    return patches / 255 if images.dtype == torch.uint8 else patches


def _cut(images: Tensor) -> Tensor:
    """(B, C, H, W) -> a view of all patches, (B, C, H - 7, W - 7, 8, 8)."""
    return images.unfold(2, SIDE, 1).unfold(3, SIDE, 1)
