"""All numbers of one set of features against another, and how far they are to be trusted."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from fastgan.judges.distances import frechet_distance, kernel_distance
from fastgan.judges.neighbours import K, distances, prdc, radii

RESAMPLES = 10


@dataclass(frozen=True)
class Scores:
    """Of one set of images: Frechet and kernel distance (lower is better), precision, recall,
    density, coverage with k = 5 (higher is better; NaN for sets of five or fewer)."""

    fd: float
    kd: float
    precision: float
    recall: float
    density: float
    coverage: float


def scores(features: Tensor, reference: Tensor) -> Scores:
    """Scores of features (n, d) against those of reals (m, d). Raises FastganError."""
    return Reference(reference).scores(features)


class Reference:
    """Features of reals (m, d) that several sets are compared with."""

    def __init__(self, features: Tensor) -> None:
        self.features = features
        few = len(features) <= K
        self.radii = None if few else radii(distances(features, features))

    def scores(self, features: Tensor) -> Scores:
        """Of features (n, d). Raises FastganError."""
        neighbours = (float("nan"),) * 4
        if self.radii is not None and len(features) > K:
            across = distances(features, self.features)
            neighbours = prdc(across, self.radii, radii(distances(features, features)))
        return Scores(
            frechet_distance(features, self.features),
            kernel_distance(features, self.features),
            *neighbours,
        )

    def spread(self, features: Tensor, seed: int = 0) -> Scores:
        """The standard error of each score, from RESAMPLES random halves of the samples.

        A half drawn without replacement varies about the whole as the whole does about the truth
        (Efron & Tibshirani 1993, delete-d jackknife with d = n / 2). That the reals are a sample,
        too, is not in it.
        """
        dice = torch.Generator().manual_seed(seed)
        n = len(features)
        halves = [torch.randperm(n, generator=dice)[: max(2, n // 2)] for _ in range(RESAMPLES)]
        found = [astuple(self.scores(features[half])) for half in halves]
        return Scores(*torch.tensor(found, dtype=torch.float64).std(0).tolist())
