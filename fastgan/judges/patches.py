"""Whether images look like others close up: a kernel distance between small patches of both."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.judges.distances import kernel_distance

SIDE = 8
"""Pixels: where details are, and few enough that a few hundred images hold thousands of patches."""

COUNT = 4000
"""Patches of a set, at most. The distance has a standard error of about a thousandth then."""

FEWEST = 64
"""Patches on each side, below which nothing is said."""

NOISE = (2 / 255) ** 2 / 12
"""The variance of 8 bits in [-1, 1], added to every direction's before it is scaled to 1."""


class Patches:
    """Patches of several sets of images, taken at the same random places, a batch at a time.

    Pixels are turned into uncorrelated directions of variance 1 among the targets' patches: in them
    lost detail counts as much as lost outlines, which blur leaves alone. No network, nothing to
    fit or to download.
    """

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
            cut = _cut(images.detach().cpu().float().clamp(-1, 1))
            self.found.setdefault(name, []).append(cut[image, :, y, x].flatten(1))

    def distances(self) -> dict[str, float]:
        """The kernel distance of each set, by name, and of "" for the targets themselves: the
        floor. The images of a random half are compared with the targets of the other half, and
        the other way round. Empty where there are too few patches."""
        if not self.found:
            return {}
        half, targets = torch.cat(self.halves), torch.cat(self.found[""]).double()
        if min(int(half.sum()), int((~half).sum())) < FEWEST:
            return {}
        mean = targets.mean(0)
        variance, directions = torch.linalg.eigh(torch.cov(targets.T))
        scale = directions / (variance.clamp_min(0) + NOISE).sqrt()

        real = (targets - mean) @ scale
        found = {}
        for name, parts in self.found.items():
            made = (torch.cat(parts).double() - mean) @ scale
            there, back = (kernel_distance(made[h], real[~h]) for h in (half, ~half))
            found[name] = (there + back) / 2
        return found


def _cut(images: Tensor) -> Tensor:
    """(B, C, H, W) -> a view of all patches, (B, C, H - 7, W - 7, 8, 8)."""
    return images.unfold(2, SIDE, 1).unfold(3, SIDE, 1)
