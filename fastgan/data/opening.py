"""`fastgan.data.open`: whatever people have, as a Dataset."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fastgan import arguments, files, paths
from fastgan.data.aligned import Aligned, open_aligned
from fastgan.data.arrays import Rows, idx_labels_beside, open_idx, open_npy, open_npz
from fastgan.data.building import from_listing
from fastgan.data.dataset import Dataset
from fastgan.data.formats.naming import HEAD, named
from fastgan.data.from_rows import from_rows, progress_bar
from fastgan.data.listing import Folder, Listing, OneFile, Zip
from fastgan.data.mapstyle import from_items
from fastgan.data.options import OpenOptions
from fastgan.data.pixels import looks_like_image
from fastgan.data.rendered import RENDERED, rendered
from fastgan.errors import FastganError

BUNDLED = "fashion-mnist"
FASHION_CLASSES = (
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
_ASSETS = Path(__file__).parent / "assets"
_IMAGE_NAMES = ("image", "images", "x", "x_train", "data", "img", "arr_0")
_LABEL_NAMES = ("label", "labels", "y", "y_train", "target", "targets", "arr_1")
_FORMS = f"a folder of images, a .zip, .npz, .npy or idx(.gz) file, or {BUNDLED}"


def open_dataset(
    source: Any = BUNDLED,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    strict: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool | None = None,
    labels: Any = None,
    frames: bool = False,
) -> Dataset:
    """Open images as a Dataset.

    source: "fashion-mnist" (bundled: 10,000 labelled 28x28 images), a path to a folder (recursive,
    class sub-folders become labels), .zip, .npz, .npy or idx(.gz) file, an array or tensor, a torch
    Dataset or any other sequence of items, an `Aligned`, or a Dataset, which is returned as it is.
    size: pixels of a side, or (height, width): images are scaled until they cover it and cut to the
    centre. None keeps their own, which must then be one for all. channels: 1, 3 or 4; None takes 3,
    or 1 if every image is grey.
    strict: raise for a file that can't be read, which is otherwise left out and listed in
        `.skipped`.
    cache_dir: where decoded images are kept ($FASTGAN_CACHE, else the user's cache directory).
        workers: decoding threads.
    progress: show a bar; None means on a terminal only. labels: False ignores labels, True requires
    them; for array sources also the labels themselves or a file of them.
    frames: of files, take every frame of an animation (GIF, WebP, APNG) instead of the first, with
        names such as walk.gif#12; a file of its own will do. Labels then number the clips: an
        animation is one, and so are the images of a folder.
    Raises FastganError, one line that names the source and the remedy.
    """
    if channels is not None and (type(channels) is not int or channels not in (1, 3, 4)):
        raise FastganError(
            f"channels must be 1 (grey), 3 (colour) or 4 (colour and opacity), not "
            f"{arguments.shown(channels)}"
        )
    arguments.flag(frames, "frames")
    directory = (
        files.path_of(cache_dir, "cache_dir") if cache_dir is not None else paths.cache_dir()
    )
    wish = OpenOptions(_size(size), channels, strict, directory, workers, progress, labels, frames)
    dataset = _open(source, wish)
    if labels is True and dataset.classes is None:
        raise FastganError(
            f"{dataset.name} has no labels: put each class into a sub-folder, or give labels="
        )
    return dataset


def _size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    whole = (int, np.integer)
    pair = (size, size) if isinstance(size, whole) else size
    if (
        not isinstance(pair, (tuple, list))
        or len(pair) != 2
        or not all(isinstance(n, whole) and n is not True and 1 <= n <= 8192 for n in pair)
    ):
        raise FastganError(
            f"size must be a number of pixels from 1 to 8192, or (height, width), not {size!r}"
        )
    return int(pair[0]), int(pair[1])


def _open(source: Any, wish: OpenOptions) -> Dataset:
    if isinstance(source, Dataset):
        return _as_opened(source, wish)
    if isinstance(source, Aligned):
        return open_aligned(
            source, lambda key, exclude: _open(source.sources[key], _part(wish, key, exclude))
        )
    if isinstance(source, (str, os.PathLike)):
        return _open_path(os.fspath(source), wish)
    if isinstance(source, np.ndarray):
        return from_rows("array", {"image": Rows.of(source)}, wish)
    torch = sys.modules.get("torch")  # whoever holds a tensor has imported it
    if torch is not None and isinstance(source, torch.Tensor):
        tensor = source.detach().cpu()
        array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        return from_rows("tensor", {"image": Rows.of(array, channels_first=True)}, wish)
    if isinstance(source, Mapping):
        raise FastganError(
            "a dict is not one data set: use fastgan.data.Aligned(image=..., source=...) for pairs"
        )
    if (
        isinstance(source, (list, tuple))
        and not wish.primary
        and np.asarray(source[:1]).dtype.kind in "iufb"
    ):
        return from_rows("list", {"image": Rows.of(np.asarray(source))}, wish)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        if wish.given_labels is not None:
            raise FastganError(
                f"{type(source).__name__}: labels= is for arrays; return (image, label) items "
                "instead"
            )
        return from_items(
            source,
            wish.size,
            wish.channels,
            directory=wish.directory,
            strict=wish.strict,
            workers=wish.workers,
            bar=lambda total: progress_bar(total, wish.progress),
            use_labels=wish.use_labels,
        )
    if hasattr(source, "__iter__"):
        raise FastganError(
            f"{type(source).__name__} has no length and no random access: give a map-style Dataset "
            "or a folder"
        )
    raise FastganError(
        f"cannot read images from {type(source).__name__}: give {_FORMS}, an array, a tensor or a "
        "torch Dataset"
    )


def _part(wish: OpenOptions, key: str, exclude: frozenset[str]) -> OpenOptions:
    labels = wish.labels if key == "image" or isinstance(wish.labels, bool) else None
    return replace(wish, labels=labels, primary=key == "image", field=key, exclude=exclude)


def _as_opened(dataset: Dataset, wish: OpenOptions) -> Dataset:
    shape = dataset.fields["image"].shape if "image" in dataset.fields else ()
    if (wish.size and shape[:2] != wish.size) or (wish.channels and shape[2:] != (wish.channels,)):
        asked = "x".join(map(str, (*(wish.size or shape[:2]), wish.channels or shape[-1])))
        raise FastganError(
            f"{dataset.name} is open as {'x'.join(map(str, shape))}, not {asked}: open its source "
            "with that size"
        )
    return dataset


def _open_path(text: str, wish: OpenOptions) -> Dataset:
    if text == BUNDLED:
        base = _ASSETS / BUNDLED
        rows = {
            "image": open_idx(base / "t10k-images-idx3-ubyte.gz"),
            "label": open_idx(base / "t10k-labels-idx1-ubyte.gz"),
        }
        return from_rows(BUNDLED, rows, wish, classes=FASHION_CLASSES)
    if text in RENDERED:
        return rendered(text, wish.size, wish.channels)
    path = files.path_of(text, "the name of the data")
    kind = files.kind(path)
    if kind is None:
        raise FastganError(f"no data at {text}: give {_FORMS}")
    if kind == "other":
        raise FastganError(
            f"{text} is no file that can be read again, but a pipe or a device: give {_FORMS}"
        )
    if kind == "folder":
        return _from_files(Folder(path, wish.exclude), wish)
    try:
        with files.open_plain(path) as file:
            head = file.read(HEAD)
    except OSError as error:
        raise FastganError(f"cannot read {path}: {error.strerror}") from None
    if head.startswith(b"PK"):
        return _npz(path, wish) if _all_npy(path) else _from_files(Zip(path, wish.exclude), wish)
    if head.startswith(b"\x93NUMPY"):
        return from_rows(path.name, {"image": open_npy(path)}, wish, file=path)
    if looks_like_image(head):
        if wish.frames:
            return _from_files(OneFile(path), wish)
        raise FastganError(f"{path} is a single image: give the folder it is in")
    if head.startswith(b"\x1f\x8b") or _like_idx(head):
        found = {"image": open_idx(path)}
        beside = idx_labels_beside(path) if wish.given_labels is None else None
        if beside is not None:
            found["label"] = open_idx(beside)
        return from_rows(path.name, found, wish, file=path)
    if (name := named(head)) is not None:
        raise FastganError(f"{path} is {name}")
    if not head:
        raise FastganError(f"{path} is empty: make or download it again")
    raise FastganError(f"{path} is no data fastgan reads: give {_FORMS}")


def _from_files(listing: Listing, wish: OpenOptions) -> Dataset:
    if wish.given_labels is not None:
        raise FastganError(
            f"{listing.root}: labels= is for arrays; in a folder or zip, put each class into a "
            "sub-folder"
        )
    return from_listing(
        listing,
        wish.size,
        wish.channels,
        directory=wish.directory,
        strict=wish.strict,
        workers=wish.workers,
        progress=wish.progress,
        use_labels=wish.use_labels,
        frames=wish.frames,
    )


def _like_idx(head: bytes) -> bool:
    return head[:2] == b"\0\0" and all(0 < n < 256 for n in head[2:4]) and named(head) is None


def _all_npy(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return path.suffix == ".npz"
    return bool(names) and all(name.endswith(".npy") for name in names)


def _npz(path: Path, wish: OpenOptions) -> Dataset:
    """The main array by its name, or the only one with images; labels likewise; what else has one
    row a sample comes along."""
    found = open_npz(path)
    if not found:
        raise FastganError(
            f"{path} holds no array: save with numpy.savez(path, images=..., labels=...)"
        )
    candidates = [k for k, r in found.items() if len(r.shape) >= 3]
    main = next((k for k in _IMAGE_NAMES if k in found), None) or (
        candidates[0] if len(candidates) == 1 else None
    )
    if main is None:
        raise FastganError(
            f"{path}: which of {', '.join(found)} holds the images? name it 'images'"
        )
    rows = {"image": found.pop(main)}
    label = next(
        (k for k in _LABEL_NAMES if k in found and found[k].shape[:1] == rows["image"].shape[:1]),
        None,
    )
    if isinstance(wish.labels, str) and wish.labels in found:
        label, wish = wish.labels, replace(wish, labels=None)
    if label is not None:
        rows["label"] = found.pop(label)
    skipped = []
    for key, part in found.items():
        if part.shape[:1] == rows["image"].shape[:1]:
            rows[key] = part
        else:
            skipped.append(
                (
                    f"{path.name}:{key}",
                    f"shape {'x'.join(map(str, part.shape)) or 'scalar'}, not one row an image",
                )
            )
    return from_rows(path.name, rows, wish, file=path, skipped=skipped)
