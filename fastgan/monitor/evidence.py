"""What the watch's rules read from metric rows and samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def describe(images: Tensor) -> Tensor:
    """Features (n <= 64, F) of images (n, C, H, W): means and standard deviations of an 8x8 grid of
    cells, on the CPU.

    Cell means see layout and brightness, deviations see texture; both ignore single pixels, which
    samples and reals differ in.
    """
    images = images.detach()[:64].float()
    rows, columns = (_pooling(side, min(8, side)).to(images.device) for side in images.shape[2:])
    mean = rows @ (images @ columns.T)
    variance = rows @ (images.square() @ columns.T) - mean * mean
    return torch.cat([mean.flatten(1), variance.clamp_min(0).sqrt().flatten(1)], dim=1).cpu()


def _pooling(side: int, cells: int) -> Tensor:
    """The matrix (cells, side) that averages over `cells` nearly equal runs: faster than a pooling
    op."""
    matrix = torch.zeros(cells, side)
    for cell in range(cells):
        first, last = cell * side // cells, -(-(cell + 1) * side // cells)
        matrix[cell, first:last] = 1 / (last - first)
    return matrix


def distances(features: Tensor) -> tuple[float, float]:
    """Mean distance of pairs, and median distance to the nearest other."""
    apart = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    count = len(features)
    mean = float(apart.sum()) / (count * (count - 1))
    nearest = apart.fill_diagonal_(math.inf).amin(dim=1).median()
    return mean, float(nearest)


def facts_of(row: Mapping[str, float]) -> dict[str, float]:
    """What the rules need of a row; several discriminators are averaged."""

    def find(*names: str) -> float | None:
        found = [value for key, value in row.items() if key.rsplit("/", 1)[-1] in names]
        return sum(found) / len(found) if found else None

    facts: dict[str, float | None] = {
        "loss_d": row.get("loss/D"),
        "loss_g": row.get("loss/G"),
        "rate": row.get("lr/G", row.get("lr")),
    }
    real, fake, hit_real, hit_fake = (
        find("logit_real"),
        find("logit_fake"),
        find("acc_real"),
        find("acc_fake"),
    )
    if real is not None and fake is not None:
        facts |= {"real": real, "fake": fake, "margin": real - fake}
    if hit_real is not None and hit_fake is not None:
        facts |= {"accuracy": (hit_real + hit_fake) / 2, "bias": hit_real - hit_fake}
    return {key: value for key, value in facts.items() if value is not None}


def mean_of(buckets: list[dict[str, float]], key: str) -> float:
    values = [b[key] for b in buckets if key in b]
    return sum(values) / len(values)


def swing_of(buckets: list[dict[str, float]], key: str) -> float:
    values = [b[key] for b in buckets if key in b]
    return max(values) - min(values) if values else 0.0


def lead_changes(values: list[float], low: float, high: float) -> int:
    """How often a series went from at most `low` to at least `high` or back."""
    if high <= low:
        return 0
    sides = [1 if value >= high else -1 for value in values if value >= high or value <= low]
    return sum(a != b for a, b in itertools.pairwise(sides))


def last_run(
    looks: list[dict[str, float]], test: Callable[[dict[str, float]], bool]
) -> list[dict[str, float]]:
    """The longest run of looks at the end that all pass."""
    start = len(looks)
    while start and test(looks[start - 1]):
        start -= 1
    return looks[start:]
