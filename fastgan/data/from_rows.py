"""Arrays by field name as a Dataset: used where they lie, else converted in memory or cached."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastgan import files
from fastgan.data import cache
from fastgan.data.arrays import Images, Rows, image_axis, open_idx, open_npy
from fastgan.data.building import terminal
from fastgan.data.dataset import Dataset, as_labels
from fastgan.data.mapstyle import MEMORY_BYTES
from fastgan.data.options import OpenOptions
from fastgan.errors import FastganError

# more images of an array file than this are not resized again at each start (about 0.1 ms each)
_QUICK = 20_000


def from_rows(
    name: str,
    rows: dict[str, Rows],
    wish: OpenOptions,
    *,
    file: Path | None = None,
    classes: tuple[str, ...] | list[str] | None = None,
    skipped: list[tuple[str, str]] | None = None,
) -> Dataset:
    """Arrays by field name as a Dataset: images used where they lie if possible, else converted in
    memory or into the cache."""
    if wish.given_labels is not None:
        rows["label"], classes = _label_rows(wish.given_labels), None
    if not wish.use_labels:
        rows.pop("label", None)
        classes = None
    arrays: dict[str, np.ndarray] = {}
    kinds: dict[str, str] = {}
    convert: dict[str, Images] = {}
    for key, part in rows.items():
        if not part.shape:
            raise FastganError(f"{name}: {key} is a single number: give one row a sample")
        primary = key == "image" and wish.primary
        if part.dtype.kind not in ("biuf" if primary else "biufUS"):
            raise FastganError(f"{name}: {key} holds {part.dtype} values: give numbers")
        if primary and len(part.shape) < 2:
            raise FastganError(
                f"{name}: an array of one axis, {len(part):,} numbers, holds no images: give "
                "(N, H, W) or (N, H, W, C)"
            )
        is_image, axis = image_axis(
            part.shape, part.dtype, channels_first=part.channels_first, primary=primary
        )
        if is_image:
            images = Images(part, name, wish.size, wish.channels, axis)
            kinds[key], ready = "image", images.ready
            if ready is not None:
                arrays[key] = ready
            else:
                convert[key] = images
        else:
            values, found = as_labels(part.load(), named="label" in (key, wish.field))
            kinds[key] = (
                "label"
                if values.dtype == np.int64 and values.ndim == 1 and not primary
                else "tensor"
            )
            arrays[key] = values
            classes = found if found is not None and key in ("image", "label") else classes
    if not len(rows["image"]):
        raise FastganError(f"{name} holds no samples: give at least one batch of images")
    digests: dict[str, str] = {}
    if file is not None and any(
        len(i) * int(np.prod(i.shape)) > MEMORY_BYTES or (i.resized and len(i) > _QUICK)
        for i in convert.values()
    ):
        entry = _cached_arrays(file, convert, wish)
        arrays, digests = {**arrays, **entry.arrays}, entry.digests
    else:
        for key, images in convert.items():
            arrays[key] = np.empty((len(images), *images.shape), np.uint8)
            start = 0
            for chunk in images.chunks():
                arrays[key][start : start + len(chunk)] = chunk
                start += len(chunk)
    arrays = {key: arrays[key] for key in rows}
    return Dataset(name, arrays, kinds, classes=classes, skipped=skipped or (), digests=digests)


def _label_rows(labels: Any) -> Rows:
    if isinstance(labels, (str, os.PathLike)):
        path = files.path_of(labels, "labels")
        if files.kind(path) != "file":
            raise FastganError(
                f"no labels at {path}: give a .npy or idx file, or the labels themselves"
            )
        return open_npy(path) if path.suffix == ".npy" else open_idx(path)
    return Rows.of(
        labels.detach().cpu().numpy() if hasattr(labels, "detach") else np.asarray(labels)
    )


def _cached_arrays(file: Path, convert: dict[str, Images], wish: OpenOptions) -> cache.Entry:
    """Images of a large array file, converted once into the cache."""
    stat = file.stat()
    wanted = f"{cache.VERSION} {wish.size} {wish.channels} {sorted(convert)} {stat.st_size}"
    here = f"{wanted} {os.path.realpath(file)} {stat.st_mtime_ns} {stat.st_ctime_ns}"

    def identify() -> str:
        with file.open("rb") as data:
            return hashlib.file_digest(data, "sha256").hexdigest()

    def build() -> tuple[cache.Writer, str]:
        fields = {key: ("image", images.shape, np.uint8) for key, images in convert.items()}
        writer = cache.Writer(
            wish.directory, fields, max(len(images) for images in convert.values())
        )
        try:
            with progress_bar(
                sum(len(images) for images in convert.values()), wish.progress
            ) as bar:
                for key, images in convert.items():
                    for chunk in images.chunks():
                        writer.append(key, chunk)
                        bar.update(len(chunk))
            writer.finish()
        except BaseException:
            writer.abort()
            raise
        return writer, identify()

    def settled() -> bool:
        now = file.stat()
        old = now.st_mtime_ns == stat.st_mtime_ns and now.st_ctime_ns == stat.st_ctime_ns
        return old and opened_ns - max(stat.st_mtime_ns, stat.st_ctime_ns) > 2e9

    opened_ns = time.time_ns()
    return cache.obtain(
        wish.directory,
        stamp=hashlib.sha256(here.encode("utf-8", "surrogateescape")).hexdigest(),
        family=hashlib.sha256(wanted.encode()).hexdigest(),
        settled=settled,
        identify=identify,
        build=build,
    )


def progress_bar(total: int, progress: bool | None) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc="reading",
        unit=" images",
        disable=not terminal(progress),
        leave=False,
        mininterval=0.5,
    )
