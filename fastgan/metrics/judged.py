"""A set of samples through one instrument: scores with floor, ceiling and spread, and copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastgan.judges.neighbours import Copies, copies
from fastgan.judges.scores import Reference, Scores

REFERENCE = 5000
"""Reals that the samples are compared with, where there are enough."""


@dataclass(frozen=True)
class Judged:
    """One instrument's verdict.

    name: of its features, such as "small". floor: reals against other reals; no generator is
    expected below. untrained: the ceiling, None where such samples could not be made. error:
    standard errors of `samples`. copies: samples beside all reals searched; copies_floor: the same
    of held-apart reals, which no generator has seen.
    """

    name: str
    width: int
    samples: Scores
    floor: Scores
    untrained: Scores | None
    error: Scores
    copies: Copies
    copies_floor: Copies
    searched: int
    seconds: float = field(compare=False)


@dataclass(frozen=True)
class Split:
    """uint8 reals (n, C, H, W) and the rows that are reference and floor."""

    reals: Tensor
    reference: Tensor
    floor: Tensor

    @classmethod
    def of(cls, reals: Tensor, n: int, seed: int) -> Split:
        """n floor reals, where half of them are enough for that, and up to REFERENCE others."""
        order = torch.randperm(len(reals), generator=torch.Generator().manual_seed(seed))
        n_floor = min(n, len(reals) // 2)
        return cls(reals, order[n_floor : n_floor + REFERENCE], order[:n_floor])

    @property
    def searched(self) -> Tensor:
        """Rows that samples may be copies of."""
        return torch.cat([self.floor, self.reference])


def judge(
    name: str,
    features: Callable[[Tensor], Tensor],
    images: Tensor,
    split: Split,
    untrained: Tensor | None,
    seed: int = 0,
) -> Judged:
    """Through `features`, from images float (n, C, H, W) in [0, 1] to (n, d)."""
    began = time.monotonic()

    def of_reals(rows: Tensor) -> Tensor:
        return torch.cat([features(split.reals[part].float() / 255) for part in rows.split(1000)])

    reference, held, made = of_reals(split.reference), of_reals(split.floor), features(images)
    against = Reference(reference)
    return Judged(
        name,
        made.shape[1],
        against.scores(made),
        against.scores(held),
        against.scores(features(untrained)) if untrained is not None else None,
        against.spread(made, seed),
        copies(made, torch.cat([held, reference])),
        copies(held, reference),
        len(split.searched),
        time.monotonic() - began,
    )
