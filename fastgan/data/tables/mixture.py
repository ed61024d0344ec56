"""Modes of a column of numbers: a variational mixture of Gaussians in one dimension (Bishop 2006,
section 10.2), whose neighbours are merged where one Gaussian tells as much."""

from __future__ import annotations

import numpy as np

MOST = 10
"""Modes of a column, at most (Xu et al. 2019, section 4.2)."""

LEAST = 0.005
"""Weight below which a mode is left out."""

ATOM = 0.05
"""Share of the rows from which on one value is a mode."""

CONCENTRATION = 1e-3
"""Of the Dirichlet prior of the weights: far below 1, so that what is not needed goes."""

SPREAD = 1e-4
"""Of the Wishart prior, in variances of the column: how narrow a mode may well be, such as at 0."""

ROWS = 2000
"""Values that a mixture is fitted to, evenly taken from all in order of size."""

ROUNDS = 100


Modes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Weights, means and deviations, (k,) each."""


def digamma(x: np.ndarray) -> np.ndarray:
    """The derivative of log Gamma at x > 0, float64, by recurrence and the asymptotic series."""
    x = np.asarray(x, np.float64)
    total = np.zeros_like(x)
    for _ in range(8):
        total, x = total - 1 / x, x + 1
    square = 1 / (x * x)
    series = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240)))
    return total + np.log(x) - 0.5 / x - series


def fit(values: np.ndarray, most: int = MOST) -> Modes:
    """(weights, means, deviations), float64 (k,) each, by mean, of finite values (n,).

    A value that alone is an ATOM of the column, such as 0, is a mode of its own, as good as without
    a deviation. Deterministic: it begins with means at even quantiles. Six digits are kept, so that
    machines that round otherwise agree.
    """
    values = np.asarray(values, np.float64)
    known, counts = np.unique(values, return_counts=True)
    atoms = known[counts >= max(2, ATOM * len(values))][: most // 2]
    rest = np.sort(values[~np.isin(values, atoms)])
    centre, scale = values.mean(), values.std() or max(1.0, abs(float(values[0])))
    weights = np.array([(values == atom).mean() for atom in atoms])
    deviations = np.full(len(atoms), 1e-6 * scale)
    if len(rest):
        few = np.linspace(0, len(rest) - 1, min(ROWS, len(rest))).round().astype(int)
        x = (rest[few] - centre) / scale
        w, m, d = merged(x, *_fit(x, most - len(atoms)))
        weights = np.r_[weights, w * (len(rest) / len(values))]
        atoms, deviations = np.r_[atoms, m * scale + centre], np.r_[deviations, d * scale]
    order = np.argsort(atoms)
    found = (part[order] for part in (weights, atoms, deviations))
    a, b, c = (np.array([float(f"{value:.6g}") for value in part]) for part in found)
    return a, b, c


def _fit(x: np.ndarray, most: int) -> Modes:
    """Variational updates of a mixture of Gaussians of standardised values, with the priors
    Dirichlet(CONCENTRATION) and Gauss-Wishart(0, 1, 1 / SPREAD, 1), until nothing moves; those of
    little weight are left out."""
    means = np.unique(np.quantile(x, (np.arange(most) + 0.5) / most))
    k = len(means)
    alpha = np.full(k, 1 + len(x) / k)
    beta, degrees = alpha.copy(), alpha.copy()
    inverse = alpha / k**2  # of the Wishart's scale: deviations of 1 / k
    for _ in range(ROUNDS):
        logs = digamma(alpha) - digamma(alpha.sum())
        precision = digamma(degrees / 2) + np.log(2) - np.log(inverse)
        away = (x[:, None] - means) ** 2 * (degrees / inverse) + 1 / beta
        shares = logs + 0.5 * (precision - away)
        shares = np.exp(shares - shares.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        counts = shares.sum(0) + 1e-10
        centres = (shares * x[:, None]).sum(0) / counts
        spread = (shares * (x[:, None] - centres) ** 2).sum(0)
        alpha, beta, degrees = CONCENTRATION + counts, 1 + counts, 1 + counts
        new = counts * centres / beta
        inverse = SPREAD + spread + counts / beta * centres**2
        still = np.abs(new - means).max() < 1e-5
        means = new
        if still:
            break
    weights, order = alpha / alpha.sum(), np.argsort(means)
    kept = order[weights[order] >= LEAST]
    return weights[kept] / weights[kept].sum(), means[kept], np.sqrt(inverse / degrees)[kept]


def likelihood(x: np.ndarray, modes: Modes) -> float:
    """The log of the density of all values (n,) together."""
    weights, means, deviations = modes
    logs = np.log(weights / deviations) - 0.5 * ((x[:, None] - means) / deviations) ** 2
    top = logs.max(1)
    return float((top + np.log(np.exp(logs - top[:, None]).sum(1))).sum())


def merged(x: np.ndarray, *modes: np.ndarray) -> Modes:
    """The modes, in order of their means, after neighbours have become one Gaussian of their
    moments wherever that raises the Bayesian information criterion (three numbers fewer)."""
    best = (modes[0], modes[1], modes[2])
    now = likelihood(x, best)
    while len(best[0]) > 1:
        tried = [_joined(best, i) for i in range(len(best[0]) - 1)]
        found = [likelihood(x, one) for one in tried]
        i = int(np.argmax(found))
        if found[i] < now - 1.5 * np.log(len(x)):
            break
        best, now = tried[i], found[i]
    return best


def _joined(modes: Modes, i: int) -> Modes:
    """Modes i and i + 1 as one with their weight, mean and variance."""
    w, m, d = (part[i : i + 2] for part in modes)
    share = w / w.sum()
    mean = (share * m).sum()
    deviation = np.sqrt((share * (d**2 + (m - mean) ** 2)).sum())
    one = (w.sum(), mean, deviation)
    a, b, c = (np.r_[part[:i], new, part[i + 2 :]] for part, new in zip(modes, one))
    return a, b, c


def choose(values: np.ndarray, modes: Modes, u: np.ndarray) -> np.ndarray:
    """Which mode stands for each value, int64 (n,), drawn by the modes' densities there (Xu et al.
    2019, section 4.2, step 2); u: uniform numbers (n,)."""
    weights, means, deviations = modes
    away = -0.5 * ((values[:, None] - means) / deviations) ** 2
    logs = np.log(weights) - np.log(deviations) + away
    shares = np.exp(logs - logs.max(1, keepdims=True))
    reached = np.cumsum(shares, 1) / shares.sum(1, keepdims=True)
    return np.minimum((reached < u[:, None]).sum(1), len(means) - 1)
