"""How good a run's images are, measured against the real ones on any machine: classes seen and
feature distances.

The scores are called FD-small and KD-small, because their features come from a small network fitted
on the reals themselves: they compare generators on one data set, and are no FID or KID.
"""

from __future__ import annotations

import math
import os
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastgan import paths
from fastgan.data import Dataset
from fastgan.errors import FastganError
from fastgan.judges.classifier import EPOCHS, FEATURES, SIDE, Classifier, cached
from fastgan.judges.distances import frechet_distance, kernel_distance

MIN_SHARE = 0.02
REFERENCE = 5000
"""Reals that the samples are compared with, where there are enough."""


@dataclass(frozen=True)
class Balance:
    """Which classes a classifier sees in n samples. entropy: in nats; log(number of classes) is
    even, 0 is one class."""

    names: list[str]
    counts: list[int]
    shares: list[float]
    entropy: float

    def classes_seen(self, min_share: float = MIN_SHARE) -> int:
        """Classes with at least this share of the samples."""
        return sum(share >= min_share for share in self.shares)


def class_balance(samples: Tensor, classifier: Classifier) -> Balance:
    """Count the classes of samples, float (n, C, H, W) in [0, 1]. Raises FastganError for a
    classifier fitted without labels."""
    if classifier.task != "classes":
        raise FastganError("class balance needs labelled data: give class sub-folders or labels")
    counts = torch.bincount(classifier.predict(samples), minlength=len(classifier.names)).tolist()
    shares = [count / len(samples) for count in counts]
    return Balance(
        list(classifier.names), counts, shares, -sum(s * math.log(s) for s in shares if s > 0)
    )


@dataclass(frozen=True)
class Distances:
    """FD-small and KD-small of one set of images against the reference reals."""

    fd: float
    kd: float


@dataclass(frozen=True)
class Report:
    """What `evaluate` found. floor: reals (as many as there were samples, where possible) against
        other reals: no generator is
    expected below it. untrained: samples of the same generator before training, where those could
        be made.
    """

    source: str
    data: str
    n: int
    n_reference: int
    n_floor: int
    samples: Distances
    floor: Distances
    untrained: Distances | None
    balance: Balance | None
    classifier_accuracy: float
    protocol: str
    key: str

    @property
    def share_of_untrained(self) -> float | None:
        """FD-small against the untrained generator's: 0 is perfect, 1 has learned nothing."""
        return (
            self.samples.fd / self.untrained.fd
            if self.untrained and self.untrained.fd > 0
            else None
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        found = asdict(self)
        found["share_of_untrained"] = self.share_of_untrained
        if self.balance is not None:
            found["balance"]["classes_seen"] = self.balance.classes_seen()
        return found

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.n:,} samples against {self.data}", ""]
        lines.append(f"  {'':<22}{'FD-small':>10}{'KD-small':>12}")
        rows = [
            ("samples", self.samples),
            ("reals (the floor)", self.floor),
            ("untrained generator", self.untrained),
        ]
        lines += [f"  {name:<22}{d.fd:>10.3f}{d.kd:>12.3f}" for name, d in rows if d is not None]
        if self.share_of_untrained is not None:
            lines.append(
                f"  FD-small is {100 * self.share_of_untrained:.1f} % of the untrained generator's"
            )
        if self.balance is not None:
            seen, total = self.balance.classes_seen(), len(self.balance.names)
            lines += [
                "",
                f"  {seen} of {total} classes with at least {100 * MIN_SHARE:.0f} % of the samples",
            ]
            lines[-1] += f" (entropy {self.balance.entropy:.2f}, even is {math.log(total):.2f})"
            lines += _bars(self.balance)
        lines += [
            "",
            *textwrap.wrap(
                self.protocol,
                100,
                initial_indent="  ",
                subsequent_indent="  ",
                break_on_hyphens=False,
            ),
        ]
        return "\n".join(lines)


def _bars(balance: Balance) -> list[str]:
    wide = min(18, max(len(name) for name in balance.names))
    shown = (
        sorted(range(len(balance.names)), key=lambda i: -balance.counts[i])[:20]
        if len(balance.names) > 20
        else None
    )
    lines = []
    for index in shown if shown is not None else range(len(balance.names)):
        share = balance.shares[index]
        bar = "█" * round(60 * share) or "·"
        lines.append(f"    {balance.names[index][:wide]:<{wide}} {100 * share:5.1f} %  {bar}")
    return lines + ([f"    and {len(balance.names) - 20} more"] if shown is not None else [])


def evaluate(
    source: Tensor | np.ndarray,
    data: Dataset,
    n: int = 1000,
    *,
    untrained: Tensor | None = None,
    seed: int = 0,
    cache: Path | None = None,
    name: str | None = None,
) -> Report:
    """Measure images, float (n, C, H, W) in [0, 1], such as those of `fastgan.sample`, against a
    data set.

    The reals are split by the seed: up to 5,000 are the reference, n others give the floor.
    untrained: samples of the untrained generator, for comparison (trainer.reuse.load.samples_of
        makes both). cache: where fitted classifiers are kept.
    name: what the report calls the images.
    Raises FastganError where images and data do not fit together, or there are too few of them.
    """
    if isinstance(source, (str, os.PathLike)):
        raise FastganError(
            "evaluate takes images, not the path of a run: pass "
            f"fastgan.sample({os.fspath(source)!r}, {n})"
        )
    if "image" not in data.fields:
        raise FastganError(f"{data.name} has no images to compare with")
    images = torch.as_tensor(source)[:n]
    reals = torch.from_numpy(np.array(data.array("image"))).permute(0, 3, 1, 2).contiguous()
    if images.shape[1:] != reals.shape[1:]:
        raise FastganError(
            f"samples are {tuple(images.shape[1:])}, {data.name} is {tuple(reals.shape[1:])}: open "
            "it with that size"
        )
    if len(images) < 2:
        raise FastganError(f"{len(images)} samples are too few to measure")
    labels = (
        torch.from_numpy(np.array(data.array("label")))
        if data.fields.get("label") and data.classes
        else None
    )
    folder = cache if cache is not None else paths.cache_dir() / "metrics"
    judge = cached(
        reals, labels, fingerprint=data.fingerprint, folder=folder, classes=data.classes, seed=0
    )
    order = torch.randperm(len(reals), generator=torch.Generator().manual_seed(seed))
    n_floor = min(len(images), len(reals) // 2)
    reference = _real_features(judge, reals, order[n_floor : n_floor + REFERENCE])
    floor = _real_features(judge, reals, order[:n_floor])

    def against(features: Tensor) -> Distances:
        return Distances(
            frechet_distance(features, reference), kernel_distance(features, reference)
        )

    return Report(
        source=name or "images",
        data=data.name,
        n=len(images),
        n_reference=len(reference),
        n_floor=n_floor,
        samples=against(judge.features(images)),
        floor=against(floor),
        untrained=against(judge.features(untrained)) if untrained is not None else None,
        balance=class_balance(images, judge) if judge.task == "classes" else None,
        classifier_accuracy=judge.accuracy,
        protocol=_protocol(judge, images, reference, n_floor),
        key=judge.key,
    )


def _real_features(judge: Classifier, reals: Tensor, index: Tensor) -> Tensor:
    return torch.cat([judge.features(reals[part].float() / 255) for part in index.split(1000)])


def _protocol(judge: Classifier, images: Tensor, reference: Tensor, n_floor: int) -> str:
    size = "x".join(map(str, images.shape[2:]))
    resize = (
        f"{size} brought down to {SIDE} (bilinear, antialiased)"
        if max(images.shape[2:]) > SIDE
        else f"{size}, not resized"
    )
    taught = (
        f"{len(judge.names)} classes"
        if judge.task == "classes"
        else "four rotations (there are no labels)"
    )
    return (
        f"Protocol: {len(images):,} samples and {n_floor:,} held-apart reals against "
        f"{len(reference):,} reals; images {resize}; "
        f"{FEATURES} features of a CNN fitted on the reals to tell {taught} ({EPOCHS} epochs, "
        f"{100 * judge.accuracy:.1f} % right "
        f"on {judge.held_out:,} held-out; key {judge.key}). Not FID, not KID: comparable only for "
        "equal keys and numbers."
    )
