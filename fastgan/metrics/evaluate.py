"""How good a run's images are, measured against the real ones on any machine: classes seen, feature
distances, what neighbours tell, copies.

Scores called small rest on a small network fitted on the reals themselves, scores called EffLite0
on ImageNet features: they compare generators on one data set, and are no FID or KID.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastgan.data import Dataset
from fastgan.errors import FastganError
from fastgan.judges import efficientnet, instruments
from fastgan.judges.classifier import EPOCHS, FEATURES, SIDE, Classifier
from fastgan.judges.neighbours import NEAR, K
from fastgan.judges.patches import CLOSE, FEWEST, close_up, some_patches
from fastgan.judges.patches import SIDE as PATCH
from fastgan.judges.scores import RESAMPLES, Scores
from fastgan.metrics.judged import Judged, Split, judge

MIN_SHARE = 0.02
GENERAL = 2000
"""Reference reals of the general network, which takes 20 ms of a core for each image."""


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
class Report:
    """What `evaluate` found.

    small: by the classifier's features. general: by those of EfficientNet-Lite0, None where the
    extra is missing or images have an opacity. close: Frechet distances of patches of 8x8
    pixels ("samples", "floor", "untrained"; 1 is one flat colour), of images larger than the
    classifier sees, which would miss a grid of pixels. n_floor: reals held apart, as many as there
    were samples where possible. worst: uint8 (2, pairs, C, H, W), samples above the reals that they
    are nearest to.
    """

    source: str
    data: str
    n: int
    n_reference: int
    n_floor: int
    n_data: int
    small: Judged
    general: Judged | None
    close: dict[str, float]
    balance: Balance | None
    classifier_accuracy: float
    protocol: str
    key: str
    worst: Tensor = field(compare=False, repr=False)

    @property
    def best(self) -> Judged:
        """The general instrument's verdict, or the small one's."""
        return self.general or self.small

    @property
    def samples(self) -> Scores:
        return self.small.samples

    @property
    def floor(self) -> Scores:
        return self.small.floor

    @property
    def untrained(self) -> Scores | None:
        return self.small.untrained

    @property
    def share_of_untrained(self) -> float | None:
        """FD-small against the untrained generator's: 0 is perfect, 1 has learned nothing."""
        ceiling = self.untrained
        return self.samples.fd / ceiling.fd if ceiling and ceiling.fd > 0 else None

    def as_dict(self) -> dict[str, Any]:
        """JSON values: headlines first, then every score of both instruments."""
        head: dict[str, Any] = {"source": self.source, "data": self.data, "judge": self.best.name}
        head["n"] = self.n
        head |= {"n_reference": self.n_reference, "n_floor": self.n_floor, "n_data": self.n_data}
        for judged in filter(None, (self.general, self.small)):
            for score in ("kd", "fd"):
                title = f"{score.upper()}-{judged.name}"
                head |= {
                    title: getattr(judged.samples, score),
                    f"{title} floor": getattr(judged.floor, score),
                }
                if judged.untrained is not None:
                    head[f"{title} untrained"] = getattr(judged.untrained, score)
        for one, value in self.close.items():
            head[CLOSE if one == "samples" else f"{CLOSE} {one}"] = value
        for score in ("precision", "recall", "density", "coverage"):
            head[score] = getattr(self.best.samples, score)
        head |= {"memorised": self.best.copies.closer, "near_copies": self.best.copies.near}
        head |= {"memorised_floor": self.best.copies_floor.closer}
        head |= {"share_of_untrained": self.share_of_untrained, "seconds": self.seconds}
        head |= {"classifier_accuracy": self.classifier_accuracy, "key": self.key}
        head |= {"protocol": self.protocol}
        balance = asdict(self.balance) if self.balance is not None else None
        if balance is not None and self.balance is not None:
            balance["classes_seen"] = self.balance.classes_seen()
        rest = {"balance": balance, "small": asdict(self.small)}
        rest["general"] = asdict(self.general) if self.general is not None else None
        alike = {name: getattr(self, name) for name in ("samples", "floor", "untrained")}
        rest |= {name: asdict(s) if s is not None else None for name, s in alike.items()}
        return _plain({**head, **rest})

    @property
    def seconds(self) -> float:
        """Spent on features and scores, the classifier's fit left out."""
        return self.small.seconds + (self.general.seconds if self.general else 0)

    def __str__(self) -> str:
        lines = [
            f"{self.source}: {self.n:,} samples against {self.data}",
            "",
            *_table([one for one in (self.general, self.small) if one is not None], self.close),
            *_copies(self.best, self.n_data),
        ]
        if self.general is None:
            lines += _wrapped(efficientnet.MISSING)
        if self.balance is not None:
            seen, total = self.balance.classes_seen(), len(self.balance.names)
            even = f"(entropy {self.balance.entropy:.2f}, even is {math.log(total):.2f})"
            share = f"{100 * MIN_SHARE:.0f} % of the samples"
            lines += ["", f"  {seen} of {total} classes with at least {share} {even}"]
            lines += _bars(self.balance)
        lines += ["", *_wrapped(f"{self.protocol} {self.seconds:.0f} s.")]
        return "\n".join(lines)


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _wrapped(text: str) -> list[str]:
    lines = textwrap.wrap(text, 77, break_on_hyphens=False)
    return [f"  {line}" for line in lines]


def _table(judged: list[Judged], close: dict[str, float]) -> list[str]:
    """79 columns: a row a score, the generator's with its standard error between floor and
    ceiling."""

    def line(title: str, values: list[float | None], better: str) -> str:
        cells = [
            f"{'-' if v is None or math.isnan(v) else f'{v:.4g}':>{w}}"
            for v, w in zip(values, (12, 10, 12, 12))
        ]
        return f"  {title:<20}{''.join(cells)}  {better}"

    lines = [f"  {'':<20}{'samples':>12}{'+-':>10}{'floor':>12}{'untrained':>12}"]
    rows = [(one, name) for one in judged for name in ("kd", "fd")]
    rows += [(judged[0], name) for name in ("precision", "recall", "density", "coverage")]
    for one, name in rows:
        title = f"{name.upper()}-{one.name}" if name in ("kd", "fd") else name
        found = [one.samples, one.error, one.floor, one.untrained]
        values = [None if s is None else getattr(s, name) for s in found]
        lines.append(line(title, values, _BETTER[name]))
    if close:
        values = [close["samples"], None, close["floor"], close.get("untrained")]
        lines.insert(1 + 2 * len(judged), line(CLOSE, values, "lower"))
    return lines


_BETTER = dict.fromkeys(("kd", "fd"), "lower") | dict.fromkeys(
    ("precision", "recall", "density", "coverage"), "higher"
)


def _copies(one: Judged, n_data: int) -> list[str]:
    found, floor = one.copies, one.copies_floor
    part = "" if one.searched == n_data else f" ({one.searched:,} of {n_data:,} searched)"
    return [
        "",
        *_wrapped(
            f"Memorisation: {100 * found.closer:.1f} % of samples are nearer to a real image than "
            f"that image is to any other, {100 * found.near:.1f} % within {NEAR:g} of that; of "
            f"reals held apart it is {100 * floor.closer:.1f} % and {100 * floor.near:.1f} %{part}."
        ),
    ]


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
        bar = "█" * round(40 * share) or "·"
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

    The reals are split by the seed: up to 5,000 are the reference, n others give the floor. Two
    instruments: a classifier fitted on the reals, and EfficientNet-Lite0 where the extra `metrics`
    is there and images are grey or RGB.
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
    instruments.has_images(data)
    images = torch.as_tensor(source)[:n]
    reals = instruments.reals_of(data)
    if images.shape[1:] != reals.shape[1:]:
        raise FastganError(
            f"samples are {tuple(images.shape[1:])}, {data.name} is {tuple(reals.shape[1:])}: open "
            "it with that size"
        )
    if len(images) < 2:
        raise FastganError(f"{len(images)} samples are too few to measure")
    classifier = instruments.fitted(data, reals, cache)
    split = Split.of(reals, len(images), seed)

    def through(name: str, features: Callable[[Tensor], Tensor]) -> Judged:
        few = replace(split, reference=split.reference[:GENERAL])
        return judge(
            name, features, images, few if name != instruments.SMALL else split, untrained, seed
        )

    close = _close_up(images, split, untrained, seed)
    small = through(instruments.SMALL, classifier.features)
    net = efficientnet.load() if images.shape[1] in (1, 3) else None
    general = (
        through(instruments.GENERAL, partial(efficientnet.features, net))
        if net is not None
        else None
    )
    pairs = (general or small).copies.worst
    rows = split.searched  # the general network's reference is the beginning of the other
    worst = [torch.stack([images[i].mul(255).round().byte(), reals[rows[j]]]) for i, j, _ in pairs]
    return Report(
        source=name or "images",
        data=data.name,
        n=len(images),
        n_reference=len(split.reference),
        n_floor=len(split.floor),
        n_data=len(reals),
        small=small,
        general=general,
        close=close,
        balance=class_balance(images, classifier) if classifier.task == "classes" else None,
        classifier_accuracy=classifier.accuracy,
        protocol=_protocol(classifier, images, split, general is not None, bool(close)),
        key=classifier.key,
        worst=torch.stack(worst, 1),
    )


def _close_up(
    images: Tensor, split: Split, untrained: Tensor | None, seed: int
) -> dict[str, float]:
    reals, few = split.reals, min(len(images), len(split.reference), len(split.floor)) < FEWEST
    if few or max(images.shape[2:]) <= SIDE or min(images.shape[2:]) < PATCH:
        return {}
    sets = {"samples": some_patches(images, seed + 1)}
    sets |= {"floor": some_patches(reals, seed + 1, split.floor)}
    if untrained is not None:
        sets["untrained"] = some_patches(untrained, seed + 1)
    return close_up(some_patches(reals, seed, split.reference), sets)


def _protocol(
    classifier: Classifier, images: Tensor, split: Split, general: bool, close: bool
) -> str:
    size, large = "x".join(map(str, images.shape[2:])), max(images.shape[2:]) > SIDE
    resize = (
        f"{size} brought down to {SIDE} (bilinear, antialiased)"
        if large
        else f"{size}, not resized"
    )
    taught = (
        f"{len(classifier.names)} classes"
        if classifier.task == "classes"
        else "four rotations (there are no labels)"
    )
    side, wide = efficientnet.SIDE, efficientnet.WIDTH
    patches = "patches: 8x8 pixels of the images as they are, 1 is one flat colour. "
    more = (
        f"EffLite0: {min(len(split.reference), GENERAL):,} of these; {wide} "
        f"features of EfficientNet-Lite0 on ImageNet, images scaled to "
        f"{side}x{side} (bicubic, antialiased). "
        if general
        else ""
    )
    return (
        f"Protocol: {len(images):,} samples and {len(split.floor):,} held-apart reals against "
        f"{len(split.reference):,} reals. {more}small: images {resize}; "
        f"{FEATURES} features of a CNN fitted on the reals to tell {taught} ({EPOCHS} epochs, "
        f"{100 * classifier.accuracy:.1f} % right on {classifier.held_out:,} held-out; key "
        f"{classifier.key}). {patches if close else ''}Neighbours: k = {K}. +- is the standard "
        f"error, by {RESAMPLES} random halves of the samples. Not FID, not KID (--fid FILE has "
        "those): comparable only for equal keys and numbers."
    )
