"""Torch Datasets, and anything else with a length and items: read once, in order, into arrays or a
scratch file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastgan import files
from fastgan.data import cache
from fastgan.data.arrays import check_whole, fit_array, float_range, float_scale
from fastgan.data.dataset import Dataset, as_labels, left_out, none_readable
from fastgan.data.pixels import MAX_FILE_BYTES, Unreadable, decode, fit
from fastgan.errors import FastganError, printable

MEMORY_BYTES = 1 << 30  # larger sets go to a scratch file in the cache directory
_IMAGE_KEYS = ("image", "images", "img", "pixel_values", "x")
_LABEL_KEYS = ("label", "labels", "class", "target", "targets", "y", "fine_label")
_ROWS = 64


def from_items(
    items: Any,
    size: tuple[int, int] | None,
    channels: int | None,
    *,
    directory: Path,
    strict: bool,
    workers: int | None,
    bar: Callable[[int], Any],
    use_labels: bool,
) -> Dataset:
    """Each item an image, (image, label) or a dict of fields; images as Pillow images, arrays (H,
    W[, C]), tensors ([C,] H, W) or paths of image files.

    Random transforms are applied once: the data set keeps what the first reading gave. Strings and
    other things that are no numbers are dropped. Raises FastganError where items disagree in shape.
    """
    name = type(items).__name__
    count = len(items)
    classes = getattr(items, "classes", None)
    reader = _Reader(items, name, size, channels, strict, workers, use_labels)
    for scale in (
        "unit",
        "signed",
        "byte",
    ):  # what floats mean is known once all were seen: start again when it was wrong
        try:
            arrays, kinds, skipped, digests = reader.read(count, scale, directory, bar)
            break
        except _OtherScale:
            continue
    else:
        low, high = reader.range
        raise float_range(low, high, name)
    if "label" in arrays:
        arrays["label"], texts = reader.labels(arrays["label"])
        kinds["label"] = "label" if arrays["label"].dtype == np.int64 else "tensor"
        digests = {key: value for key, value in (digests or {}).items() if key != "label"}
        classes = texts or classes
    varying = not skipped and reader.varies(arrays["image"][:4])
    named = (
        classes if isinstance(classes, (list, tuple)) and kinds.get("label") == "label" else None
    )
    return Dataset(
        name,
        arrays,
        kinds,
        classes=[str(c) for c in named] if named else None,
        skipped=skipped,
        digests=digests,
        notes=[
            f"{name} gives other images each time it is read (a random transform?): the first "
            "reading is kept, so nothing random remains; use flip= and augment= instead"
        ]
        if varying
        else (),
    )


class _OtherScale(Exception):
    """A floating-point image outside the range assumed so far."""


class _Reader:
    def __init__(
        self,
        items: Any,
        name: str,
        size: Any,
        channels: int | None,
        strict: bool,
        workers: int | None,
        use_labels: bool,
    ) -> None:
        self.items, self.name, self.size, self.channels = items, name, size, channels
        self.strict, self.workers, self.use_labels = strict, workers, use_labels
        self.range = (np.inf, -np.inf)
        self.texts: dict[str, int] = {}

    def labels(self, values: np.ndarray) -> tuple[np.ndarray, list[str] | None]:
        """Labels of all items -> (int64 or float array, class names in sorted order for texts)."""
        values, _ = as_labels(np.asarray(values), named=True)
        if not self.texts:
            return values, None
        classes = sorted(self.texts)
        number = np.empty(len(classes), np.int64)
        number[[self.texts[name] for name in classes]] = np.arange(len(classes))
        return number[values], classes

    def varies(self, first: np.ndarray) -> bool:
        """Whether the first items are not the same when they are read again."""
        guarded = _Guarded(self.items, len(first))
        for i, before in enumerate(first):
            try:
                _, fields = self._fields(guarded[i])
            except Exception:  # read once, which is all that was asked of it
                return False
            if not np.array_equal(fields["image"], before):
                return True
        return False

    def read(self, count: int, scale: str, directory: Path, bar: Callable[[int], Any]) -> Any:
        """All items under one meaning of floats: (arrays, kinds, skipped, digests)."""
        self.bounds = {"unit": (0.0, 1.0), "signed": (-1.0, 1.0), "byte": (0.0, 255.0)}[scale]
        self.scale = float_scale(*self.bounds, self.name)
        skipped: list[tuple[str, str]] = []
        store: _Memory | cache.Writer | None = None
        layout: dict[str, tuple[str, tuple[int, ...], np.dtype]] = {}
        waiting: list[dict[str, np.ndarray]] = []
        try:
            with bar(count) as shown:
                for i, item in self._items(count):
                    shown.update(1)
                    try:
                        if isinstance(item, Exception):
                            raise Unreadable(f"{type(item).__name__}: {item}")
                        kinds, fields = self._fields(item)
                    except Unreadable as error:
                        skipped.append((f"item {i}", str(error)))
                        if self.strict:
                            raise FastganError(f"{self.name}: {left_out(skipped)}") from None
                        continue
                    found = {
                        key: (kinds[key], value.shape, value.dtype) for key, value in fields.items()
                    }
                    if store is None:
                        layout = found
                        store = _store(layout, count, directory)
                    elif found != layout:
                        raise FastganError(self._differs(i, layout, found))
                    waiting.append(fields)
                    if len(waiting) == _ROWS:
                        _flush(store, waiting)
            if store is None:
                raise none_readable(self.name, left_out(skipped) if skipped else "it is empty")
            _flush(store, waiting)
            kinds = {key: kind for key, (kind, _, _) in layout.items()}
            if isinstance(store, _Memory):
                return store.arrays(), kinds, skipped, None
            store.finish()
            entry = store.scratch()
            return entry.arrays, kinds, skipped, entry.digests
        finally:
            if isinstance(store, cache.Writer):
                store.abort()

    def _items(self, count: int) -> Iterator[tuple[int, Any]]:
        guarded = _Guarded(self.items, count)
        if not self.workers:
            yield from ((i, guarded[i]) for i in range(count))
            return
        from torch.utils.data import DataLoader

        dataset: Any = guarded
        loader: Any = DataLoader(
            dataset, batch_size=None, num_workers=self.workers, collate_fn=_as_it_is
        )
        yield from enumerate(loader)

    def _differs(self, i: int, layout: Mapping[str, Any], found: Mapping[str, Any]) -> str:
        for key in sorted(set(layout) | set(found)):
            if layout.get(key) != found.get(key):
                show = lambda f: (
                    f"{'x'.join(map(str, f[1])) or 'a scalar'} {f[2]}" if f else "missing"
                )
                remedy = (
                    ": give size= and channels="
                    if key in found and found[key][0] == "image"
                    else ": make all items alike"
                )
                return (
                    f"{self.name}: item {i} differs in {key} ({show(found.get(key))}, before "
                    f"{show(layout.get(key))}){remedy}"
                )
        return f"{self.name}: item {i} differs"

    def _fields(self, item: Any) -> tuple[dict[str, str], dict[str, np.ndarray]]:
        kinds: dict[str, str] = {}
        fields: dict[str, np.ndarray] = {}
        for key, value in _named(item, self.name).items():
            kind, array = self._field(key, value)
            if array is not None and (self.use_labels or key != "label"):
                kinds[key], fields[key] = kind, array
        if "image" not in fields:
            raise FastganError(
                f"{self.name}: items hold no image: return an image, (image, label) or a dict with "
                "an 'image'"
            )
        return kinds, fields

    def _field(self, key: str, value: Any) -> tuple[str, np.ndarray | None]:
        """(kind, array) of one part of an item; (.., None) for what is dropped."""
        if key == "image" and isinstance(value, (str, os.PathLike)):
            return "image", decode(_file(value), self.size, self.channels)
        if hasattr(value, "convert") and hasattr(value, "getbands"):
            return "image", fit(value, self.size, self.channels)
        if key == "label" and isinstance(value, str):
            return "label", np.array(self.texts.setdefault(value, len(self.texts)), np.int64)
        tensor = hasattr(value, "detach")
        array = value.detach().cpu().numpy() if tensor else np.asarray(value)
        if array.dtype.kind not in "uifb":
            return "", None
        if array.ndim == 0:
            return (
                ("label", array.astype(np.int64))
                if array.dtype.kind in "uib"
                else ("tensor", array)
            )
        axis = next(
            (
                a
                for a in ((0, 2) if tensor else (2, 0))
                if array.ndim == 3 and array.shape[a] in (1, 3, 4)
            ),
            None,
        )
        if axis is None and not (array.ndim == 2 and (key == "image" or array.dtype == np.uint8)):
            return "tensor", array
        image = self._eight_bit(array)
        image = image[:, :, None] if axis is None else np.moveaxis(image, axis, 2)
        fits = (self.size in (None, image.shape[:2])) and self.channels in (None, image.shape[2])
        return "image", np.ascontiguousarray(image) if fits else fit_array(
            image, self.size, self.channels or image.shape[2]
        )

    def _eight_bit(self, array: np.ndarray) -> np.ndarray:
        if array.dtype == np.uint8:
            return array
        if array.dtype.kind == "b":
            return array.astype(np.uint8) * np.uint8(255)
        low, high = float(array.min()), float(array.max())
        if not np.isfinite((low, high)).all():
            raise Unreadable("values that are not finite")
        self.range = (min(self.range[0], low), max(self.range[1], high))
        if array.dtype.kind in "ui":
            check_whole(low, high, self.name)
            return array.astype(np.uint8)
        if self.range[0] < self.bounds[0] - 1e-3 or self.range[1] > self.bounds[1] + 1e-3:
            raise _OtherScale
        return self.scale(array)


class _Guarded:
    """Items by number, an exception in place of an item that could not be read."""

    def __init__(self, items: Any, count: int) -> None:
        self.items, self.count = items, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Any:
        try:
            return self.items[i]
        except Exception as error:
            return error


def _file(path: str | os.PathLike[str]) -> bytes:
    try:
        return files.read(files.path_of(path), MAX_FILE_BYTES, follow=True)
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise Unreadable(f"{printable(str(path))}: {error}") from None


def _as_it_is(item: Any) -> Any:
    return item


def _named(item: Any, name: str) -> dict[str, Any]:
    """An item's parts by field name."""
    if isinstance(item, Mapping):
        out = {}
        for key, value in item.items():
            key = str(key)
            known = (
                "image"
                if key in _IMAGE_KEYS and "image" not in item
                else "label"
                if key in _LABEL_KEYS
                else key
            )
            out[key if known in out or (known != key and known in item) else known] = value
        return out
    if isinstance(item, (tuple, list)):
        if len(item) == 1:
            return {"image": item[0]}
        if len(item) != 2:
            raise FastganError(
                f"{name}: an item has {len(item)} parts: return an image, (image, label) or a dict"
            )
        second = item[1]
        scalar = (
            isinstance(second, (int, float, str, np.integer, np.floating))
            or getattr(second, "ndim", None) == 0
        )
        return {"image": item[0], "label" if scalar else "target": second}
    return {"image": item}


class _Memory:
    """Rows of several fields in memory, with the interface of cache.Writer."""

    def __init__(
        self, fields: Mapping[str, tuple[str, tuple[int, ...], np.dtype]], capacity: int
    ) -> None:
        self._arrays = {
            key: np.empty((capacity, *shape), dtype) for key, (_, shape, dtype) in fields.items()
        }
        self._count = dict.fromkeys(fields, 0)

    def append(self, field: str, rows: np.ndarray) -> None:
        start = self._count[field]
        self._arrays[field][start : start + len(rows)] = rows
        self._count[field] = start + len(rows)

    def arrays(self) -> dict[str, np.ndarray]:
        return {key: array[: self._count[key]] for key, array in self._arrays.items()}


def _store(
    fields: Mapping[str, tuple[str, tuple[int, ...], np.dtype]], count: int, directory: Path
) -> _Memory | cache.Writer:
    row = sum(
        int(np.prod(shape, dtype=np.int64)) * dtype.itemsize for _, shape, dtype in fields.values()
    )
    return (
        _Memory(fields, count)
        if row * count <= MEMORY_BYTES
        else cache.Writer(directory, fields, count)
    )


def _flush(store: _Memory | cache.Writer, waiting: list[dict[str, np.ndarray]]) -> None:
    if waiting:
        for key in waiting[0]:
            store.append(key, np.stack([fields[key] for fields in waiting]))
        waiting.clear()
