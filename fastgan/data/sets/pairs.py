"""Images that belong together: two folders, or side by side in one file; and two folders that do
not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastgan import files
from fastgan.data.aligned import Aligned
from fastgan.data.dataset import Dataset, printable
from fastgan.data.listing import Folder, stem
from fastgan.data.opening import open_dataset
from fastgan.errors import FastganError

LAYOUTS = ("auto", "folders", "side-by-side", "edges")
"""`auto` takes folders where there are a/ and b/, side-by-side where the first image is twice as
wide as high, and else draws edges."""


def layout_of(source: Any) -> str:
    """Which of `LAYOUTS` a source has."""
    path = files.path_of(str(source))
    if files.kind(path) != "folder":
        return "edges"
    if halves(path) is not None:
        return "folders"
    return "side-by-side" if _first_is_wide(path) else "edges"


def halves(path: Path) -> tuple[Path, Path] | None:
    """The sub-folders a and b (or A and B) of a folder that has both."""
    found = {entry.name.lower(): entry for entry in path.iterdir() if files.kind(entry) == "folder"}
    return (found["a"], found["b"]) if {"a", "b"} <= set(found) else None


def _first_is_wide(path: Path) -> bool:
    from PIL import Image

    for name in Folder(path).names[:20]:
        try:
            with Image.open(path / name) as image:
                return image.width == 2 * image.height
        except (OSError, Image.DecompressionBombError):
            continue
    return False


def open_pairs(
    source: Any, layout: str, *, reverse: bool = False, size: int | None, **options: Any
) -> Dataset:
    """Pairs as fields "source" (a, or the left half) and "image" (b, the right half); reverse
    exchanges them.

    layout: "folders" or "side-by-side". options: of `fastgan.data.open`. Raises FastganError.
    """
    path = files.path_of(str(source))
    if layout == "side-by-side":
        return _side_by_side(path, reverse, size, options)
    both = halves(path) if files.kind(path) == "folder" else None
    if both is None:
        raise FastganError(
            f"{printable(str(source))} has no sub-folders a and b: put sources into a/ and targets "
            "of the same names into b/"
        )
    a, b = reversed(both) if reverse else both
    unpaired = [
        name
        for one, other in ((a, b), (b, a))
        for name in sorted(set(map(stem, Folder(one).names)) - set(map(stem, Folder(other).names)))
    ]
    if unpaired:
        raise FastganError(
            f"{path}: {printable(unpaired[0])} is in only one of a/ and b/, so these are no pairs: "
            "give both halves the same name, or use --recipe cyclegan, which needs no pairs"
        )
    return open_dataset(Aligned(image=b, source=a), size=size, labels=False, **options)


def _side_by_side(path: Path, reverse: bool, size: int | None, options: dict[str, Any]) -> Dataset:
    wide = (size, 2 * size) if size is not None else None
    opened = open_dataset(path, size=wide, labels=False, **options)
    height, width, _ = opened.fields["image"].shape
    if width != 2 * height or not _first_is_wide(path):
        raise FastganError(
            f"{path}: side-by-side images are twice as wide as high, source left and target right"
        )
    both = opened.array("image")
    left, right = both[:, :, :height], both[:, :, height:]
    source, image = (right, left) if reverse else (left, right)
    return Dataset(
        opened.name,
        {"image": image, "source": source},
        {"image": "image", "source": "image"},
        skipped=opened.skipped,
        names=opened.names,
    )


def open_two(source: Any, **options: Any) -> dict[str, Dataset]:
    """The two folders a and b of unpaired images as streams: "source" (a) and "image" (b). Raises
    FastganError where they are not there, or differ in channels."""
    path = files.path_of(str(source))
    both = halves(path) if files.kind(path) == "folder" else None
    if both is None:
        raise FastganError(
            f"{printable(str(source))} has no sub-folders a and b: put the images of the two kinds "
            "into a/ and b/"
        )
    a, b = (open_dataset(folder, labels=False, **options) for folder in both)
    if a.fields["image"].shape != b.fields["image"].shape:
        shapes = ["x".join(map(str, part.fields["image"].shape)) for part in (a, b)]
        raise FastganError(
            f"{path}: images are {shapes[0]} in a/ and {shapes[1]} in b/: give --size and "
            "--channels"
        )
    return {"image": b, "source": a}


INK = {"a": (80, 160, 255), "b": (255, 200, 60)}
PAPER = {"a": (0, 0, 0), "b": (0, 0, 90)}


def two_colours(size: int | None, channels: int | None = None) -> dict[str, Dataset]:
    """Every other bundled image printed blue on black as "source", the rest yellow on dark blue as
    "image": unpaired, with a known map, `reprinted`. Raises FastganError for channels other than
    3."""
    if channels not in (None, 3):
        raise FastganError("two-colours has 3 channels: leave --channels out")
    clothes = open_dataset("fashion-mnist", size=size, labels=False)
    grey = clothes.array("image")
    return {"image": _printed(grey[1::2], "b"), "source": _printed(grey[::2], "a")}


def reprinted(source: Dataset) -> Dataset:
    """The images of `two_colours` of kind a as they are in kind b."""
    return _printed(source.array("image")[..., 2:], "b")


def two_colours_paired(
    size: int | None, channels: int | None = None, reverse: bool = False
) -> Dataset:
    """The sources of `two_colours`, each as "source" beside the "image" that it should become, or
    the other way round."""
    source = two_colours(size, channels)["source"]
    both = [source.array("image"), reprinted(source).array("image")]
    arrays = dict(zip(("source", "image"), both[::-1] if reverse else both, strict=True))
    return Dataset("two-colours", arrays, dict.fromkeys(arrays, "image"))


def _printed(grey: np.ndarray, kind: str) -> Dataset:
    ink, paper = (np.array(part[kind], np.uint32) for part in (INK, PAPER))
    colours = (grey * ink + (255 - grey.astype(np.uint32)) * paper + 127) // 255
    return Dataset(f"clothes {kind}", {"image": colours.astype(np.uint8)}, {"image": "image"})


def split(dataset: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """(what training sees, what it never sees): every k-th sample is held out, k = 1 / share.

    With share 0, or one sample, both are the whole. The parts are copies.
    """
    if share <= 0 or len(dataset) < 2:
        return dataset, dataset
    every = max(2, round(1 / share))
    index = np.arange(len(dataset))
    held = index % every == min(every, len(dataset)) - 1
    return dataset.take(index[~held]), dataset.take(index[held])
