"""Distances between two sets of features: Frechet (FD) and kernel (KD). Not FID and KID: those use
Inception."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.errors import FastganError


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2)) of the Gaussians fitted to features a (n, d) and
    b (m, d), in float64.

    The trace of the root comes from the eigenvalues of A^(1/2) B A^(1/2), which is symmetric: no
    complex root; exact for singular covariances (n <= d) too, where those of the n x n matrix
    X_a X_b^T X_b X_a^T, which are the same, cost less. Biased upwards for small n: compare
    only at equal n, with the real-vs-real floor beside it. (Dowson & Landau 1982; Heusel et al.
    2017.) Raises FastganError for fewer than two samples or non-finite features.
    """
    a, b = _check(a, b)
    mean = (a.mean(0) - b.mean(0)).square().sum()
    if len(b) < len(a):  # the distance is symmetric
        a, b = b, a
    x, y = a - a.mean(0), b - b.mean(0)
    traces = x.square().sum() / (len(a) - 1) + y.square().sum() / (len(b) - 1)
    if len(a) < a.shape[1]:  # the same eigenvalues, but for zeros, from a smaller matrix
        across = x @ y.T
        inner = across @ across.T / ((len(a) - 1) * (len(b) - 1))
    else:
        values, vectors = torch.linalg.eigh(_covariance(x))
        root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        inner = root @ _covariance(y) @ root
    cross = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt().sum()
    return max(0.0, float(mean + traces - 2 * cross))


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Unbiased squared MMD of features a (n, d) and b (m, d) under the cubic kernel (x.y/d + 1)^3,
    in float64.

    Around 0, also below it, for two samples of one distribution, whatever n. (Binkowski et al.
    2018.)
    """
    a, b = _check(a, b)
    n, m, width = len(a), len(b), a.shape[1]

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / width + 1) ** 3

    aa, bb = kernel(a, a), kernel(b, b)
    within_a = (aa.sum() - aa.trace()) / (n * (n - 1))
    within_b = (bb.sum() - bb.trace()) / (m * (m - 1))
    return float(within_a + within_b - 2 * kernel(a, b).mean())


def _covariance(centred: Tensor) -> Tensor:
    return centred.T @ centred / (len(centred) - 1)


def _check(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise FastganError(
            f"features must be (n, d) and (m, d), not {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if len(a) < 2 or len(b) < 2:
        raise FastganError("a distance needs at least two samples on each side")
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise FastganError("features are not finite: the images hold NaN or infinity")
    return a, b
