"""What the engine sees of any data: named fields of equal length, random access, a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastgan.errors import FastganError, printable

_CHUNK_BYTES = 4 << 20

NARROW = 32
"""Range of pixel values, of 256, below which a set is said to be odd: an eighth."""


@dataclass(frozen=True)
class Field:
    """One named array of a data set.

    kind: "image" (uint8, shape (H, W, C)), "label" (int64, shape ()) or "tensor" (anything else).
        shape is one sample's.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype


class Dataset:
    """A data set of named fields, all of one length, held as arrays or memory maps (images uint8
    NHWC).

    fields: name -> Field. classes: names of the labels (their numbers where they have none), or
        None without labels.
    skipped: (name, reason) of what was left out. notes: what was guessed, a line each.
    """

    def __init__(
        self,
        name: str,
        arrays: Mapping[str, np.ndarray],
        kinds: Mapping[str, str],
        *,
        classes: Sequence[str] | None = None,
        skipped: Iterable[tuple[str, str]] = (),
        names: Sequence[str] | Callable[[], Sequence[str]] | None = None,
        digests: Mapping[str, str] | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        lengths = {key: len(array) for key, array in arrays.items()}
        if len(set(lengths.values())) != 1:
            listed = ", ".join(f"{key} has {count:,}" for key, count in lengths.items())
            raise FastganError(
                f"{name}: all parts must have the same number of samples, but {listed}"
            )
        self.name = name
        self._arrays = dict(arrays)
        self.fields = {
            key: Field(kinds[key], tuple(a.shape[1:]), a.dtype) for key, a in arrays.items()
        }
        named = list(classes) if classes is not None and self._fit(len(classes)) else None
        self.classes = named if named is not None else self._numbered()
        self.skipped = list(skipped)
        self._names = names
        self._digests = dict(digests or {})
        self.guessed = list(notes)
        self._length = next(iter(lengths.values()))

    def __len__(self) -> int:
        return self._length

    @property
    def names(self) -> Sequence[str] | None:
        """One relative file name a sample where it came from files, or None."""
        if callable(self._names):
            self._names = self._names()
        return self._names

    def read(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Copies of the samples at index, int64 (b,): name -> array (b, *shape); images uint8
        NHWC."""
        return {key: np.take(array, index, axis=0) for key, array in self._arrays.items()}

    def array(self, field: str) -> np.ndarray:
        """A whole field (n, *shape), an array or a memory map. Not a copy: do not write to it."""
        return self._arrays[field]

    def take(self, index: np.ndarray) -> Dataset:
        """A data set of copies of the samples at index, int64 (b,)."""
        names = self.names
        return Dataset(
            self.name,
            self.read(index),
            {key: spec.kind for key, spec in self.fields.items()},
            classes=self.classes,
            skipped=self.skipped,
            names=[names[i] for i in index] if names is not None else None,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all fields together, decoded."""
        return sum(array.nbytes for array in self._arrays.values())

    def _fit(self, count: int) -> bool:
        """Whether all labels are numbers of that many classes."""
        label = self._arrays.get("label")
        if label is None or self.fields["label"].kind != "label":
            return True
        return int(label.min(initial=0)) >= 0 and int(label.max(initial=0)) < count

    def _numbered(self) -> list[str] | None:
        """Class names for plain numbers 0, 1, 2, ..."""
        if "label" not in self.fields or self.fields["label"].kind != "label":
            return None
        low, high = (
            int(self._arrays["label"].min(initial=0)),
            int(self._arrays["label"].max(initial=0)),
        )
        return [str(i) for i in range(high + 1)] if low >= 0 and high < 2**16 else None

    @property
    def present(self) -> np.ndarray:
        """The numbers of the classes that have an image, int64, in order; empty without classes."""
        if not self.classes or "label" not in self._arrays:
            return np.empty(0, np.int64)
        return np.flatnonzero(np.bincount(self._arrays["label"], minlength=len(self.classes)))

    @property
    def notes(self) -> list[str]:
        """What people should know before training, a line each: what was guessed, and a range of
        values so narrow that something must be amiss."""
        dark = [
            f"{name} values lie in {low} to {high} of 0 to 255, less than an eighth of the scale: "
            "stretch them if that is not meant (12 bits in files of 16, masks of 0 and 1)"
            for name, field in self.fields.items()
            if field.kind == "image" and len(self)
            for low, high in [self._range(name)]
            if high - low < NARROW
        ]
        return [printable(note) for note in (*self.guessed, *dark)]

    def _range(self, name: str) -> tuple[int, int]:
        """The smallest and largest value of a field, or of as many rows as show that its range is
        not narrow."""
        array, low, high = self._arrays[name], 255, 0
        step = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
        for start in range(0, len(array), step):
            rows = array[start : start + step]
            low, high = min(low, int(rows.min())), max(high, int(rows.max()))
            if high - low >= NARROW:
                break
        return low, high

    def labels_found(self) -> str:
        """What the labels are: "10 classes, 2 of them without an image (0, 3)", or why they are
        no classes."""
        label, field = self._arrays["label"], self.fields["label"]
        if field.kind != "label":
            shape = "x".join(map(str, field.shape)) or "scalar"
            return f"label {shape} {field.dtype}, no whole number for each image"
        if self.classes:
            empty = sorted(set(range(len(self.classes))) - set(self.present.tolist()))
            if not empty:
                return f"{len(self.classes)} classes"
            listed = ", ".join(self.classes[i] for i in empty[:6])
            listed += f" and {len(empty) - 6} more" if len(empty) > 6 else ""
            return f"{len(self.classes)} classes, {len(empty)} of them without an image ({listed})"
        low, high = int(label.min()), int(label.max())
        if low == -1:
            return f"labels, {int((label == -1).sum()):,} of {len(self):,} unlabelled (-1)"
        return f"labels from {low} to {high}, which are no numbers of classes"

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, kinds, shapes, types and decoded content of all fields, in order;
        read chunk by chunk."""
        for key, array in self._arrays.items():
            if key not in self._digests:
                self._digests[key] = (
                    RowDigest(array.shape[1:], array.dtype).update(array).hexdigest()
                )
        described = [
            [key, f.kind, list(f.shape), f.dtype.str, len(self), self._digests[key]]
            for key, f in sorted(self.fields.items())
        ]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()

    def describe(self) -> str:
        """One line: name, number and shape of the samples, classes, what was left out."""
        parts = []
        for key, field in self.fields.items():
            shape = "x".join(map(str, field.shape))
            if key == "label":
                parts.append(self.labels_found())
            elif field.kind == "image":
                parts.append(
                    f"{len(self):,} images {shape}" if key == "image" else f"{key} {shape}"
                )
            else:
                parts.append(f"{key} {shape or 'scalar'} {field.dtype}")
        line = f"{self.name}: {', '.join(parts)}"
        return printable(f"{line}; {left_out(self.skipped)}" if self.skipped else line)

    def __repr__(self) -> str:
        return f"<Dataset {self.describe()}>"


class RowDigest:
    """SHA-256 over the SHA-256s of fixed runs of rows, so that parts of a large array can be
    checked on their own."""

    def __init__(self, shape: Sequence[int], dtype: np.dtype) -> None:
        row_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self.rows = max(1, _CHUNK_BYTES // max(1, row_bytes))
        self.chunks: list[bytes] = []
        self._open, self._filled = hashlib.sha256(), 0

    def update(self, rows: np.ndarray) -> RowDigest:
        """Add rows (m, *shape), in order."""
        start = 0
        while start < len(rows):
            part = rows[start : start + self.rows - self._filled]
            self._open.update(np.ascontiguousarray(part).data.cast("B") if part.size else b"")
            self._filled += len(part)
            start += len(part)
            if self._filled == self.rows:
                self.chunks.append(self._open.digest())
                self._open, self._filled = hashlib.sha256(), 0
        return self

    def all_chunks(self) -> list[bytes]:
        """The digest of each run of rows, the last one perhaps short."""
        return self.chunks + ([self._open.digest()] if self._filled else [])

    def hexdigest(self) -> str:
        return hashlib.sha256(b"".join(self.all_chunks())).hexdigest()


def left_out(skipped: Sequence[tuple[str, str]], show: int = 3) -> str:
    """What was left out, in one line with the total and the first few names."""
    listed = ", ".join(
        f"{printable(name)} ({printable(reason)})" for name, reason in skipped[:show]
    )
    more = f", and {len(skipped) - show:,} more" if len(skipped) > show else ""
    return f"left out {len(skipped):,}: {listed}{more}"


def none_readable(name: object, why: str) -> FastganError:
    """Of a folder, archive or data set without one image that can be read."""
    return FastganError(f"no readable image in {name}: {why}")


def as_labels(values: np.ndarray, *, named: bool = False) -> tuple[np.ndarray, list[str] | None]:
    """Labels as given -> (int64 or float array, class names when they were texts).

    named: they were called labels, so that whole numbers in float, columns (N, 1) and one-hot rows
    (N, K) are classes, too. Raises FastganError for texts in more than one column.
    """
    if (named or values.dtype.kind in "US") and values.ndim > 1 and values.size == len(values):
        values = values.reshape(-1)
    if values.dtype.kind in "US":
        if values.ndim != 1:
            raise FastganError(
                f"labels are {'x'.join(map(str, values.shape))} texts: give one for each image"
            )
        classes, index = np.unique(values.astype(str), return_inverse=True)
        return index.reshape(-1).astype(np.int64), [str(c) for c in classes]
    if named and values.ndim == 2 and values.dtype.kind in "uifb" and _is_one_hot(values):
        return values.argmax(1).astype(np.int64), None
    if named and values.ndim == 1 and values.dtype.kind == "f":
        whole = np.isfinite(values) & (np.abs(values.astype(np.float64)) < 2**53)
        if whole.all() and (values == np.rint(values)).all():
            return values.astype(np.int64), None
    if values.dtype.kind in "iub":
        return values.astype(np.int64), None
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")), None


def _is_one_hot(values: np.ndarray) -> bool:
    ones = values == 1
    return bool(((values == 0) | ones).all() and (ones.sum(1) == 1).all())
