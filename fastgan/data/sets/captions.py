"""Images with captions: `captions.txt` in the folder, or a .txt beside each image."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastgan import files
from fastgan.data.dataset import Dataset, printable
from fastgan.data.opening import open_dataset
from fastgan.data.rendered import shapes
from fastgan.errors import FastganError

GENERATED = "shapes"
LENGTH = 16
"""Words of a caption that are kept."""

MOST = 4000
"""Words that are known, the commonest of all captions."""

REMEDY = (
    "put a .txt of the same name beside each image, or a captions.txt into the folder with lines "
    "such as cat.png<TAB>a sleeping cat"
)


class Captioned(Dataset):
    """Images with "tokens" (n, LENGTH) int64: 0 is no word, k + 1 the k-th of `words`.

    captions: one a sample. words: the known ones, the commonest first.
    """

    def __init__(self, name: str, images: np.ndarray, captions: Sequence[str]) -> None:
        counts = Counter(word for caption in captions for word in split(caption))
        self.captions = list(captions)
        self.words = tuple(word for word, _ in counts.most_common(MOST))
        index = {word: i + 1 for i, word in enumerate(self.words)}
        tokens = np.zeros((len(captions), LENGTH), np.int64)
        for row, caption in zip(tokens, captions, strict=True):
            known = [index[word] for word in split(caption) if word in index][:LENGTH]
            row[: len(known)] = known
        arrays = {"image": images, "tokens": tokens}
        super().__init__(name, arrays, {"image": "image", "tokens": "tensor"})


def split(caption: str) -> list[str]:
    """The lower-case words of a text; signs part them."""
    return re.findall(r"[^\W_]+", caption.lower())


def open_captioned(
    source: str, *, size: int | None, channels: int | None, strict: bool = False
) -> Captioned:
    """A folder of images with captions, or "shapes", 6,000 drawn ones. Raises FastganError where
    there are no captions, or an image has none."""
    if source == GENERATED:
        images, captions = shapes.draw(size=size or 32)
        if channels == 1:
            images = images.mean(3, keepdims=True).astype(np.uint8)
        elif channels not in (None, 3):
            raise FastganError(f"shapes are drawn in 1 or 3 channels, not {channels}")
        return Captioned(GENERATED, images, captions)
    folder = files.path_of(source)
    if files.kind(folder) not in (None, "folder"):
        raise FastganError(f"{source} is no folder: captions are read from a folder of images")
    dataset = open_dataset(source, size=size, channels=channels, strict=strict, labels=False)
    listed = _listed(folder / "captions.txt")
    found = [_caption(folder, name, listed) for name in dataset.names or ()]
    lacking = [name for name, caption in zip(dataset.names or (), found) if not caption]
    if len(lacking) == len(found):
        raise FastganError(f"{source} has no captions: {REMEDY}")
    if lacking:
        raise FastganError(
            f"{source}: {len(lacking)} of {len(found)} images have no caption, such as "
            f"{printable(lacking[0])}: {REMEDY}"
        )
    return Captioned(dataset.name, dataset.array("image"), found)


def _listed(path: Path) -> dict[str, str]:
    """captions.txt as {file name: caption}: the name, then a tab, comma or bar, then the caption;
    of several for one image the first."""
    if files.kind(path) != "file":
        return {}
    found: dict[str, str] = {}
    for line in _text(path).splitlines():
        parts = re.match(r"\s*([^\t,|]+?)(?:#\d+)?\s*[\t,|]\s*(.+)", line)
        if parts:
            found.setdefault(parts[1], parts[2].strip())
    return found


def _caption(folder: Path, name: str, listed: dict[str, str]) -> str:
    path = Path(name)
    for key in (name, path.name, path.stem):
        if key in listed:
            return listed[key]
    beside = (folder / path).with_suffix(".txt")
    if files.kind(beside) == "file":
        return " ".join(_text(beside).split())
    return ""


def _text(path: Path) -> str:
    with files.explained(f"can't read {path}"):
        return files.read(path, files.TEXT, follow=True).decode("utf-8", "replace")
