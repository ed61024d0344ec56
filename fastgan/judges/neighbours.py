"""What nearest neighbours in feature space tell: precision, recall, density, coverage, copies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastgan.errors import FastganError

K = 5
"""Neighbours that make the ball of a sample (Naeem et al. 2020 use 5)."""

NEAR = 0.5
"""Share of the reals' own spacing below which a sample is called a near copy."""


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (n, m) of features a (n, d) and b (m, d), in float64."""
    return torch.cdist(a.double(), b.double())


def radii(within: Tensor, k: int = K) -> Tensor:
    """(n,) distance of each to its k-th nearest other, of the distances (n, n) within a set."""
    if len(within) <= k:
        raise FastganError(f"{len(within)} samples have no {k} nearest others: measure more")
    return within.kthvalue(k + 1, dim=1).values  # the nearest is itself


def prdc(
    across: Tensor, real_radii: Tensor, fake_radii: Tensor, k: int = K
) -> tuple[float, float, float, float]:
    """Precision, recall (Kynkaanniemi et al. 2019), density, coverage (Naeem et al. 2020).

    across: distances (n, m) of n fakes to m reals. Precision: fakes inside of any real's ball.
    Recall: reals inside of any fake's ball. Density: balls of reals around a fake, over k; may
    exceed 1. Coverage: reals whose ball holds a fake.
    """
    inside = across < real_radii
    return (
        float(inside.any(1).double().mean()),
        float((across < fake_radii[:, None]).any(0).double().mean()),
        float(inside.sum(1).double().mean() / k),
        float((across.amin(0) < real_radii).double().mean()),
    )


@dataclass(frozen=True)
class Copies:
    """How near samples come to single reals.

    closer: share of samples nearer to a real than that real is to any other (1 - AuthPct of Alaa
    et al. 2022). near: share nearer than NEAR times that. worst: (sample, real, ratio) of the
    nearest pairs, ratio being distance over that real's own spacing.
    """

    closer: float
    near: float
    worst: list[tuple[int, int, float]]


def copies(samples: Tensor, reals: Tensor, pairs: int = 10) -> Copies:
    """Of features samples (n, d) and reals (m, d), m >= 2. Each real is in one of the worst pairs
    at most, so that a collapse onto one shows the others, too."""
    spacing = torch.cat(
        [distances(part, reals).kthvalue(2, dim=1).values for part in reals.split(1000)]
    )
    nearest = [distances(part, reals).min(1) for part in samples.split(1000)]
    distance = torch.cat([found.values for found in nearest])
    which = torch.cat([found.indices for found in nearest])
    # Twins among the reals have no spacing: a sample upon them is a copy all the same.
    ratio = distance / spacing[which].clamp_min(1e-6 * float(reals.double().norm(dim=1).mean()))
    worst: dict[int, tuple[int, int, float]] = {}
    for i in ratio.argsort().tolist():
        worst.setdefault(int(which[i]), (i, int(which[i]), float(ratio[i])))
        if len(worst) == pairs:
            break
    return Copies(
        float((ratio < 1).double().mean()),
        float((ratio < NEAR).double().mean()),
        list(worst.values()),
    )
