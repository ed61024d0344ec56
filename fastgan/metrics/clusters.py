"""How well codes that nobody labelled agree with what is known: a clustering with classes, judged
on samples that did not name the clusters, and numbers with independent factors."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.errors import FastganError


def cluster_error(clusters: Tensor, labels: Tensor, seed: int = 0) -> float:
    """Share of wrong labels on a random half, where each cluster (int64 (n,)) is named after the
    commonest label (int64 (n,)) of its samples in the other half.

    A cluster without a sample there takes the commonest label of all. Raises FastganError for
    fewer than two samples.
    """
    if len(clusters) != len(labels) or len(labels) < 2:
        raise FastganError(f"{len(clusters)} clusters for {len(labels)} labels: give one for each")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    fit, test = order[: len(order) // 2], order[len(order) // 2 :]
    count, kinds = int(clusters.max()) + 1, int(labels.max()) + 1
    table = torch.bincount(clusters[fit] * kinds + labels[fit], minlength=count * kinds)
    table = table.view(count, kinds)
    names = table.argmax(1)
    names[table.sum(1) == 0] = table.sum(0).argmax()
    return float((names[clusters[test]] != labels[test]).float().mean())


def k_means(x: Tensor, clusters: int, *, rounds: int = 50, tries: int = 4, seed: int = 0) -> Tensor:
    """int64 (n,) clusters of float x (n, d): Lloyd 1982 from k-means++ (Arthur & Vassilvitskii
    2007), the best of `tries`."""
    dice = torch.Generator().manual_seed(seed)
    best, found = float("inf"), torch.zeros(len(x), dtype=torch.int64)
    for _ in range(tries):
        centres = x[torch.randint(len(x), (1,), generator=dice)]
        while len(centres) < clusters:
            near = torch.cdist(x, centres).square().amin(1) + 1e-12
            centres = torch.cat([centres, x[torch.multinomial(near, 1, generator=dice)]])
        for _ in range(rounds):
            distance, mine = torch.cdist(x, centres).min(1)
            sums = torch.zeros_like(centres).index_add_(0, mine, x)
            counts = torch.bincount(mine, minlength=clusters)
            moved = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centres)
            if torch.equal(moved, centres):
                break
            centres = moved
        if (total := float(distance.square().sum())) < best:
            best, found = total, mine
    return found


BINS = 20
"""Parts of equal count that a continuous code is cut into."""


def gap(codes: Tensor, factors: Tensor) -> float:
    """The mutual information gap (Chen et al. 2018, arXiv 1802.04942, eq. 6) of codes (n, k >= 2)
    about factors (int64 (n, m), levels from 0), in [0, 1].

    The mean over factors of how much more the best code knows of it than the second best, as a
    share of the factor's entropy; a factor of one level is left out. A code of more than `BINS`
    values is cut into that many.
    """
    binned = [binned_code(code) for code in codes.T]
    gaps = []
    for factor in factors.T:
        if entropy := mutual_information(factor, factor):
            known = sorted((mutual_information(code, factor) for code in binned), reverse=True)
            gaps.append((known[0] - known[1]) / entropy)
    return sum(gaps) / max(len(gaps), 1)


def binned_code(code: Tensor) -> Tensor:
    """int64 (n,), the value's number or its part of `BINS` of equal count."""
    values, numbers = code.unique(return_inverse=True)
    if len(values) <= BINS:
        return numbers
    edges = code.double().quantile(torch.linspace(0, 1, BINS + 1, dtype=torch.double)[1:-1])
    return torch.bucketize(code.double().contiguous(), edges)


def mutual_information(one: Tensor, other: Tensor) -> float:
    """The mutual information of two int64 (n,) in nats, by counting; of one with itself its
    entropy."""
    width = int(other.max()) + 1
    joint = torch.bincount(one * width + other, minlength=(int(one.max()) + 1) * width)
    shares = joint.double().view(-1, width) / len(one)
    apart = shares.sum(1, keepdim=True) * shares.sum(0, keepdim=True)
    there = shares > 0
    return float((shares[there] * (shares[there] / apart[there]).log()).sum())


def principal(x: Tensor, count: int) -> Tensor:
    """(n, count) principal components of float x (n, d), the largest first."""
    centred = x - x.mean(0)
    return centred @ torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -count:].flip(1)
