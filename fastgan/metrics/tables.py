"""Whether generated rows can stand for real ones: what a classifier learns from them, how far their
columns and correlations are from real ones, and whether they are copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fastgan.data.tables.columns import Column
from fastgan.metrics.fidelity import Table

SEEDS = 3
"""Sets of rows, and fits of the classifier, that are averaged over."""

UNITS, EPOCHS, BATCH = 32, 15, 128
"""Of the classifier: one hidden layer, Adam at 5e-3."""

COMPARED = 2000
"""Rows of each side whose distances to the nearest record are measured."""

Draw = Callable[[int, int], np.ndarray]
"""Rows of values, float64 (n, columns), of (n, seed)."""


def features(columns: Sequence[Column], values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """float64 (n, f): one-hot values over the root of 2, so that two that differ are 1 apart;
    numbers in deviations of those of the rows `like`, 0 where missing, and 1 for a missing one."""
    parts = []
    for i, column in enumerate(columns):
        if column.discrete:
            parts.append(np.eye(column.slots)[values[:, i].astype(np.int64)] / np.sqrt(2))
            continue
        known = like[np.isfinite(like[:, i]), i]
        scaled = (values[:, i] - known.mean()) / max(known.std(), 1e-12)
        gone = ~np.isfinite(values[:, i])
        parts += [np.where(gone, 0, scaled)[:, None], *([gone[:, None]] if column.missing else [])]
    return np.concatenate(parts, 1).astype(np.float64)


def classes_of(columns: Sequence[Column], target: int, values: np.ndarray, middle: float):
    """int64 (n,): the target's values, or whether it lies above `middle` where it is a number."""
    found = values[:, target]
    return found.astype(np.int64) if columns[target].discrete else (found > middle).astype(np.int64)


def learned(
    x: np.ndarray, y: np.ndarray, test: np.ndarray, truth: np.ndarray, seed: int
) -> tuple[float, float]:
    """(accuracy, mean recall of the classes in `truth`) on test (m, f) of a small network that was
    fitted to x (n, f) and y (n,)."""
    count = int(max(y.max(), truth.max())) + 1
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(x.shape[1], UNITS), nn.ReLU(), nn.Linear(UNITS, count))
        adam = torch.optim.Adam(net.parameters(), 5e-3, weight_decay=1e-4)
        given, wanted = torch.from_numpy(x).float(), torch.from_numpy(y)
        for _ in range(EPOCHS):
            for index in torch.randperm(len(x)).split(BATCH):
                adam.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(net(given[index]), wanted[index]).backward()
                adam.step()
        with torch.no_grad():
            said = net(torch.from_numpy(test).float()).argmax(1).numpy()
    right = said == truth
    recalls = [right[truth == kind].mean() for kind in np.unique(truth)]
    return float(right.mean()), float(np.mean(recalls))


def column_distances(
    columns: Sequence[Column], made: np.ndarray, real: np.ndarray
) -> tuple[list[float], list[float]]:
    """Total variations of the discrete columns, Kolmogorov-Smirnov distances of the others; a
    missing number counts as one below all."""
    tv, ks = [], []
    for i, column in enumerate(columns):
        if column.discrete:
            shares = [
                np.bincount(v[:, i].astype(np.int64), minlength=column.slots) / len(v)
                for v in (made, real)
            ]
            tv.append(float(np.abs(shares[0] - shares[1]).sum() / 2))
            continue
        a, b = (np.sort(np.nan_to_num(v[:, i], nan=-np.inf)) for v in (made, real))
        at = np.concatenate([a, b])
        reached = [np.searchsorted(v, at, side="right") / len(v) for v in (a, b)]
        ks.append(float(np.abs(reached[0] - reached[1]).max()))
    return tv, ks


def correlation_difference(columns: Sequence[Column], made: np.ndarray, real: np.ndarray) -> float:
    """Mean absolute difference of the correlations of two features of different columns."""
    sides = [features(columns, v, real) for v in (made, real)]
    wide = [c.slots if c.discrete else 1 + (c.missing > 0) for c in columns]
    owner = np.repeat(np.arange(len(columns)), wide)
    varied = (sides[1].std(0) > 0) & (sides[0].std(0) > 0)
    found = [np.corrcoef(side[:, varied], rowvar=False) for side in sides]
    apart = owner[varied][:, None] != owner[varied]
    return float(np.abs(found[0] - found[1])[apart].mean()) if apart.any() else 0.0


def nearest(rows: np.ndarray, records: np.ndarray) -> np.ndarray:
    """(n,) distances of rows (n, f) to the closest of records (m, f)."""
    among = torch.from_numpy(records)
    exact = "donot_use_mm_for_euclid_dist"  # the other way tells equal rows apart
    parts = [
        torch.cdist(part, among, compute_mode=exact).amin(1)
        for part in torch.from_numpy(rows).split(256)
    ]
    return torch.cat(parts).numpy()


def independent(real: np.ndarray) -> Draw:
    """Each column drawn from the real one by itself."""

    def draw(n: int, seed: int) -> np.ndarray:
        dice = np.random.default_rng([seed, 1])
        return np.stack([column[dice.integers(0, len(real), n)] for column in real.T], 1)

    return draw


FITTED_TO = 5000
"""Draws by which the copula's correlations are matched."""


def gaussian_copula(real: np.ndarray) -> Draw:
    """The real columns' own values, by the quantiles of a normal distribution whose correlations
    are such that normal scores of what it draws correlate as those of the real rows do (Nelsen
    2006, section 2.3; ties have the score of their mean rank)."""
    n, width = real.shape
    ordered = np.sort(np.nan_to_num(real, nan=-np.inf), 0)
    first = np.stack([np.searchsorted(c, c, side="left") for c in ordered.T], 1)
    last = np.stack([np.searchsorted(c, c, side="right") for c in ordered.T], 1)
    scores = torch.special.ndtri(torch.from_numpy((first + last) / (2 * n))).numpy()

    def index_of(normal: np.ndarray) -> np.ndarray:
        u = torch.special.ndtr(torch.from_numpy(normal)).numpy()
        return np.minimum((u * n).astype(np.int64), n - 1)

    def correlated(wanted: np.ndarray) -> np.ndarray:
        return np.corrcoef(wanted, rowvar=False).reshape(width, width)

    known = np.nan_to_num(real, nan=-np.inf)
    rank = np.stack([np.searchsorted(a, b) for a, b in zip(ordered.T, known.T)], 1)
    target = correlated(np.take_along_axis(scores, rank, 0))
    plain = np.random.default_rng(0).standard_normal((FITTED_TO, width))
    latent = target
    for _ in range(5):
        root = _root(latent)
        made = np.take_along_axis(scores, index_of(plain @ root.T), 0)
        latent = np.clip(latent + target - correlated(made), -0.999, 0.999)
    root = _root(latent)

    def draw(count: int, seed: int) -> np.ndarray:
        normal = np.random.default_rng([seed, 2]).standard_normal((count, width)) @ root.T
        made = np.take_along_axis(ordered, index_of(normal), 0)
        return np.where(np.isfinite(made), made, np.nan)

    return draw


def _root(correlations: np.ndarray) -> np.ndarray:
    """A matrix R with R R^T the nearest correlations that can be, by dropping what is negative."""
    values, vectors = np.linalg.eigh((correlations + correlations.T) / 2)
    root = vectors * np.sqrt(values.clip(1e-9))
    return root / np.linalg.norm(root, axis=1, keepdims=True)


@dataclass(frozen=True)
class TableReport:
    """What `measure` found: two tables."""

    title: str
    learning: Table
    distances: Table

    def as_dict(self) -> dict[str, Any]:
        learning = {f"from {name}": dict(row) for name, row in self.learning.rows.items()}
        distances = {f"of {name}": dict(row) for name, row in self.distances.rows.items()}
        return {"title": self.title, **learning, **distances}

    def __str__(self) -> str:
        return f"{self.title}\n\n{self.learning}\n\n{self.distances}"


def measure(
    title: str,
    columns: Sequence[Column],
    ways: Mapping[str, Draw],
    train: np.ndarray,
    held_out: np.ndarray,
    target: int,
    seed: int = 0,
) -> TableReport:
    """Rows of each way, as many as `train` has, beside the real rows themselves.

    train, held_out: values float64 (n, columns). The classifier tells the target from the other
    columns; it is tested on the held-out rows.
    """
    others = [i for i in range(len(columns)) if i != target]
    middle = float(np.nanmedian(train[:, target]))
    without = [columns[i] for i in others]
    seen = lambda values: features(without, values[:, others], train[:, others])
    truth = classes_of(columns, target, held_out, middle)
    test, records = seen(held_out), features(columns, train, train)
    unseen = nearest(features(columns, held_out[:COMPARED], train), records)
    real: dict[str, Draw] = {"real rows": lambda n, s: train}
    learning: dict[str, dict[str, float]] = {}
    distances: dict[str, dict[str, float]] = {}
    for name, draw in {**real, **ways}.items():
        found, apart = [], []
        for k in range(SEEDS):
            rows = draw(len(train), seed + k)
            given, wanted = seen(rows), classes_of(columns, target, rows, middle)
            found.append(learned(given, wanted, test, truth, seed + k))
            if name in ways:
                apart.append(distances_of(columns, rows, train, records))
        mean, spread = np.mean(found, 0).tolist(), np.std(found, 0, ddof=1).tolist()
        learning[name] = dict(zip(("accuracy", "balanced"), mean)) | {"+- accuracy": spread[0]}
        if apart:
            distances[name] = {key: float(np.mean([d[key] for d in apart])) for key in apart[0]}
            distances[name]["nearest"] /= max(float(np.median(unseen)), 1e-12)
    share = np.bincount(truth).max() / len(truth)
    learning["always the commonest"] = {
        "accuracy": float(share),
        "balanced": 1 / len(np.unique(truth)),
    }
    floor = distances_of(columns, held_out, train, records) | {"nearest": 1.0}
    return TableReport(
        title,
        Table(
            f"a classifier of {columns[target].name}, fitted to each, tested on "
            f"{len(held_out):,} held-out rows",
            learning,
            f"means over {SEEDS} sets and fits of {len(train):,} rows; balanced: mean recall",
        ),
        Table(
            "distances from the rows of training",
            {**distances, "held-out rows": floor},
            "TV, KS: mean over columns; correlation: mean difference; nearest: median distance to "
            "a\n  row of training, held-out rows have 1: far below it, rows are copies",
        ),
    )


def distances_of(
    columns: Sequence[Column], rows: np.ndarray, train: np.ndarray, records: np.ndarray
) -> dict[str, float]:
    """Of rows (n, columns) from those of training, whose features are `records`."""
    tv, ks = column_distances(columns, rows, train)
    near = nearest(features(columns, rows[:COMPARED], train), records)
    return {
        **({"TV": float(np.mean(tv))} if tv else {}),
        **({"KS": float(np.mean(ks))} if ks else {}),
        "correlation": correlation_difference(columns, rows, train),
        "nearest": float(np.median(near)),
        "copies %": 100 * float((near < 1e-9).mean()),
    }
