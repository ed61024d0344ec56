"""`fastgan.data.open`: whatever people have, as a Dataset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from fastgan.data.arrays import Images, Rows, idx_labels_beside, image_axis, open_idx, open_npy, open_npz
from fastgan.data.dataset import Dataset, finish
from fastgan.errors import FastganError

FASHION_CLASSES = (
    "t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
ASSETS = Path(__file__).parent / "assets"


def open_dataset(
    source: Any = "fashion-mnist",
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    strict: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool | None = None,
    labels: Any = None,
) -> Dataset:
    """Open images as a Dataset."""
    if isinstance(source, Dataset):
        return source
    wanted = _size(size)
    if isinstance(source, (str, os.PathLike)):
        return _open_path(os.fspath(source), wanted, channels, strict, labels)
    if isinstance(source, np.ndarray):
        return _from_rows("array", {"image": Rows.of(source)}, wanted, channels, labels)
    if type(source).__module__.partition(".")[0] == "torch" and hasattr(source, "detach"):
        array = source.detach().cpu().numpy()
        return _from_rows("tensor", {"image": Rows.of(array, channels_first=True)}, wanted, channels, labels)
    raise FastganError(f"cannot open {type(source).__name__}")


def _size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise FastganError(f"size must be a number of pixels or (height, width), not {size!r}")
    return int(pair[0]), int(pair[1])


def _open_path(text: str, size: tuple[int, int] | None, channels: int | None, strict: bool, labels: Any) -> Dataset:
    if text == "fashion-mnist":
        base = ASSETS / "fashion-mnist"
        rows = {"image": open_idx(base / "t10k-images-idx3-ubyte.gz"), "label": open_idx(base / "t10k-labels-idx1-ubyte.gz")}
        return _from_rows(text, rows, size, channels, labels, classes=FASHION_CLASSES)
    path = Path(text).expanduser()
    if not path.exists():
        raise FastganError(f"no data at {path}: give a folder of images, a .zip, .npz, .npy or idx file, or fashion-mnist")
    if path.is_dir():
        return _folder(path, size, channels, strict)
    if path.suffix == ".npy":
        return _from_rows(path.name, {"image": open_npy(path)}, size, channels, labels)
    if path.suffix == ".npz":
        return _from_rows(path.name, dict(open_npz(path)), size, channels, labels)
    rows = {"image": open_idx(path)}
    beside = idx_labels_beside(path)
    if beside:
        rows["label"] = open_idx(beside)
    return _from_rows(path.name, rows, size, channels, labels)


def _from_rows(
    name: str, rows: dict[str, Rows], size: tuple[int, int] | None, channels: int | None, labels: Any, classes: Any = None
) -> Dataset:
    arrays: dict[str, np.ndarray] = {}
    kinds: dict[str, str] = {}
    if labels is not None and labels is not False:
        rows["label"] = Rows.of(np.asarray(labels))
    for key, part in rows.items():
        is_image, axis = image_axis(part.shape, part.dtype, channels_first=part.channels_first, primary=key == "image")
        if is_image:
            images = Images(part, name, size, channels, axis)
            ready = images.ready
            arrays[key] = ready if ready is not None else np.concatenate(list(images.chunks()))
            kinds[key] = "image"
        else:
            values, found = finish(part.load())
            arrays[key], kinds[key] = values, "label" if values.dtype == np.int64 and values.ndim == 1 else "tensor"
            classes = found or classes
    return Dataset(name, arrays, kinds, classes=classes)


def _folder(path: Path, size: tuple[int, int] | None, channels: int | None, strict: bool) -> Dataset:
    from fastgan.data.pixels import Unreadable, decode

    kept, images, skipped = [], [], []
    for file in sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")):
        try:
            images.append(decode(file.read_bytes(), size, channels or 3))
            kept.append(file.relative_to(path).parts)
        except Unreadable as error:
            skipped.append((file.name, str(error)))
    if not images:
        raise FastganError(f"no readable image in {path}")
    arrays, kinds, classes = {"image": np.stack(images)}, {"image": "image"}, None
    if all(len(parts) > 1 for parts in kept):
        classes = sorted({parts[0] for parts in kept})
        arrays["label"] = np.array([classes.index(parts[0]) for parts in kept], dtype=np.int64)
        kinds["label"] = "label"
    return Dataset(path.name, arrays, kinds, classes=classes, skipped=skipped)
