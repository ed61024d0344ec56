"""Several sources read in step: pairs, triples, images with their texts."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from fastgan.data.dataset import Dataset, left_out
from fastgan.data.listing import stem
from fastgan.errors import FastganError, printable


class Aligned:
    """Several sources read in step, sample i of each belonging together: `Aligned(image="photos",
    source="sketches")`.

    Each value is anything `fastgan.data.open` takes. Field names: `Aligned(image=a, source=b)`
    gives a's fields as they are and b's image as "source", its other fields as "source_label" and
    so on. Equal lengths are required.
    """

    def __init__(self, **sources: Any) -> None:
        if not sources:
            raise FastganError(
                "Aligned() needs at least one source: Aligned(image=..., source=...)"
            )
        self.sources = sources


def open_aligned(aligned: Aligned, opened: Callable[[str, frozenset[str]], Dataset]) -> Dataset:
    """All sources in step; files are paired by name without extension where names match, else in
    sorted order.

    opened(key, exclude) opens one source without the files of the stems in exclude: a file left out
    on one side is left out on the other. Raises FastganError where samples can not be told to
    belong together.
    """
    parts = {key: opened(key, frozenset()) for key in aligned.sources}
    skipped = [
        (f"{part.name}/{name}", reason) for part in parts.values() for name, reason in part.skipped
    ]
    stems = {
        key: [stem(name) for name in part.names]
        for key, part in parts.items()
        if part.names is not None
    }
    if len(parts) > 1 and skipped:
        for key, part in parts.items():
            if part.skipped and not (
                len(stems) == len(parts) and isinstance(aligned.sources[key], (str, os.PathLike))
            ):
                raise FastganError(
                    f"{part.name}: {left_out(part.skipped)}, so pairs no longer match: repair or "
                    "remove them"
                )
        bad = frozenset(stem(name) for part in parts.values() for name, _ in part.skipped)
        parts = {key: opened(key, bad) for key in aligned.sources}
        stems = {key: [stem(name) for name in part.names or ()] for key, part in parts.items()}
    _check_partners(parts, stems, bool(skipped))
    arrays: dict[str, np.ndarray] = {}
    kinds: dict[str, str] = {}
    for key, part in parts.items():
        for field, spec in part.fields.items():
            name = field if key == "image" else key if field == "image" else f"{key}_{field}"
            arrays[name], kinds[name] = part.array(field), spec.kind
    main = parts.get("image")
    return Dataset(
        " + ".join(part.name for part in parts.values()),
        arrays,
        kinds,
        classes=parts["label"].classes if "label" in parts else main.classes if main else None,
        skipped=skipped,
        names=main.names if main else None,
        notes=[f"{key}: {note}" for key, part in parts.items() for note in part.guessed],
    )


def _check_partners(parts: dict[str, Dataset], stems: dict[str, list[str]], by_name: bool) -> None:
    """Refuse files that share names only in part: sorted order would pair unrelated ones."""
    keys = list(stems)
    for first, second in pairwise(keys):
        one, other = stems[first], stems[second]
        if one == other:
            continue
        common = set(one) & set(other)
        if common or by_name:
            alone = sorted(set(one) ^ set(other))
            where, there = (first, second) if alone and alone[0] in one else (second, first)
            named = printable(alone[0]) if alone else "a repeated name"
            raise FastganError(
                f"{parts[where].name}: {named} has no partner in {parts[there].name}: give both "
                "halves of a pair the same name"
            )
