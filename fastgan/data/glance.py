"""What a set is like, before it is decoded: enough to choose networks by."""

from __future__ import annotations

import os
import statistics
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgan import files
from fastgan.data.listing import Folder, Zip, class_labels
from fastgan.data.opening import open_dataset
from fastgan.data.pixels import Unreadable, decode

LOOKED_AT = 32
"""Files that are decoded, evenly spaced."""


@dataclass(frozen=True)
class Glance:
    """images: how many, about (files that will be left out may be counted). side: the median of the
    shorter sides in pixels. channels: 1 or 3. classes: 0 without labels."""

    images: int
    side: int
    channels: int
    classes: int


def glance(source: Any) -> Glance:
    """Look at what `open` takes. A folder or zip is listed, and a few of its files are read.

    Raises FastganError for what can't be opened.
    """
    listing: Folder | Zip | None = None
    if isinstance(source, (str, os.PathLike)):
        path = files.path_of(source)
        if files.kind(path) == "folder":
            listing = Folder(path)
        elif path.suffix.lower() == ".zip" and files.kind(path) == "file":
            listing = Zip(path)
    found = _few(listing) if listing is not None else []
    if listing is None or not found:
        dataset = open_dataset(source)
        shape = dataset.fields["image"].shape
        return Glance(len(dataset), min(shape[:2]), shape[2], len(dataset.classes or ()))
    kinds = {Path(name).suffix.lower() for name, _ in found}
    names = [name for name in listing.names if Path(name).suffix.lower() in kinds]
    labels, _ = class_labels(names)
    return Glance(
        len(names),
        round(statistics.median(min(shape[:2]) for _, shape in found)),
        max(shape[2] for _, shape in found),
        len(labels[1]) if labels is not None else 0,
    )


def _few(listing: Folder | Zip) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of some of the images."""
    found = []
    for i in range(0, len(listing), max(1, len(listing) // LOOKED_AT)):
        with suppress(Unreadable):
            found.append((listing.names[i], decode(listing.read(i)).shape))
    return found
