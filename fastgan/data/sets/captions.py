"""Images with captions, which are read from files beside them, or drawn."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Container, Iterable, Sequence

import numpy as np

from fastgan import files
from fastgan.data.dataset import Dataset, left_out
from fastgan.data.listing import Folder, Listing, Zip
from fastgan.data.opening import open_dataset
from fastgan.data.rendered import shapes
from fastgan.data.sets.caption_files import ENDINGS, Captions, read_captions
from fastgan.errors import FastganError

GENERATED = "shapes"
LENGTH = 16
"""Words of a caption that are kept."""

MOST = 4000
"""Words that are known, the commonest of all captions."""

REMEDY = (
    "put a .txt of the same name beside each image, or into the folder a captions.txt with lines "
    "such as cat.png<TAB>a sleeping cat, or a captions.csv, .tsv, .json or .jsonl of file_name and "
    "caption"
)


class Captioned(Dataset):
    """Images with "tokens" (n, LENGTH) int64: 0 is no word, k + 1 the k-th of `words`.

    captions: one a sample. words: the known ones, the commonest first.
    """

    def __init__(
        self,
        name: str,
        images: np.ndarray,
        captions: Sequence[str],
        *,
        names: Sequence[str] | None = None,
        skipped: Iterable[tuple[str, str]] = (),
        notes: Iterable[str] = (),
    ) -> None:
        counts = Counter(word for caption in captions for word in split(caption))
        self.captions = list(captions)
        self.words = tuple(word for word, _ in counts.most_common(MOST))
        index = {word: i + 1 for i, word in enumerate(self.words)}
        tokens = np.zeros((len(captions), LENGTH), np.int64)
        for row, caption in zip(tokens, captions, strict=True):
            known = [index[word] for word in split(caption) if word in index][:LENGTH]
            row[: len(known)] = known
        arrays = {"image": images, "tokens": tokens}
        kinds = {"image": "image", "tokens": "tensor"}
        super().__init__(name, arrays, kinds, names=names, skipped=skipped, notes=notes)


def split(caption: str) -> list[str]:
    """The lower-case words of a text; signs part them."""
    return re.findall(r"[^\W_]+", caption.lower())


def spoken(caption: str, words: Container[str]) -> str:
    """A caption, or what is left of it without words that are not known."""
    known = [word for word in split(caption) if word in words]
    return caption if len(known) == len(split(caption)) else " ".join(known)


def open_captioned(
    source: str,
    *,
    size: int | None,
    channels: int | None,
    strict: bool = False,
    column: str | None = None,
    only_captioned: bool = False,
) -> Captioned:
    """A folder or .zip of images with captions, or "shapes", 6,000 drawn ones.

    column: of a table, or of JSON objects. only_captioned: leave out images without a caption.
    Raises FastganError where there are no captions, or an image has none.
    """
    if source == GENERATED:
        return _drawn(size, channels, column)
    path = files.path_of(source)
    listing: Listing | None = None
    if files.kind(path) == "folder":
        listing = Folder(path)
    elif files.kind(path) == "file" and zipfile.is_zipfile(path):
        listing = Zip(path)
    captions = read_captions(listing, column) if listing is not None else Captions()
    dataset = open_dataset(source, size=size, channels=channels, labels=False)
    names = dataset.names
    if names is None:
        raise FastganError(f"{source} holds no files with captions: give a folder or .zip of them")
    skipped = [one for one in dataset.skipped if not one[0].lower().endswith(ENDINGS)]
    if strict and skipped:
        raise FastganError(
            f"{source}: {left_out(skipped)}; repair or remove, or run without --strict"
        )
    found = [captions.of(name) for name in names]
    lacking = [name for name, caption in zip(names, found, strict=True) if not caption]
    if len(lacking) == len(found):
        raise _none(source, captions, column, lacking[0])
    if lacking and not only_captioned:
        raise FastganError(
            f"{source}: {len(lacking)} of {len(found)} images have no caption in "
            f"{captions.source}, such as {lacking[0]}: add theirs, or leave such "
            "images out with --only-captioned"
        )
    images = dataset.array("image")
    if lacking:
        kept = [i for i, caption in enumerate(found) if caption]
        images, found, names = images[kept], [found[i] for i in kept], [names[i] for i in kept]
    skipped += [(name, "no caption") for name in lacking]
    notes = [f"captions are those of {captions.source}"]
    return Captioned(dataset.name, images, found, names=names, skipped=skipped, notes=notes)


def _drawn(size: int | None, channels: int | None, column: str | None) -> Captioned:
    if column is not None:
        raise FastganError("shapes are drawn with their captions: leave --caption-column out")
    images, captions = shapes.draw(size=size or 32)
    if channels == 1:
        images = images.mean(3, keepdims=True).astype(np.uint8)
    elif channels not in (None, 3):
        raise FastganError(f"shapes are drawn in 1 or 3 channels, not {channels}")
    return Captioned(GENERATED, images, captions)


def _none(source: str, captions: Captions, column: str | None, image: str) -> FastganError:
    """Why no image has a caption."""
    if file := captions.example():
        return FastganError(
            f"{source}: {captions.source} has captions of other files ({file}) than the images "
            f"({image}): name them alike"
        )
    if column is not None:
        return FastganError(f"{source} has no table or .json with a {column!r}: {REMEDY}")
    return FastganError(f"{source} has no captions: {REMEDY}")
