"""Arrays in memory and in files (.npy, .npz, idx, idx.gz): read in chunks, recognised, turned into
uint8 NHWC images."""

from __future__ import annotations

import contextlib
import gzip
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np

from fastgan import files
from fastgan.data.formats import headers
from fastgan.data.formats.naming import HEAD, named
from fastgan.data.pixels import fit
from fastgan.errors import FastganError

CHUNK_BYTES = 16 << 20


class Rows:
    """An array read front to back in chunks, any number of times. `whole` is the array itself where
    it has random access."""

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype,
        *,
        whole: np.ndarray | None = None,
        opener: Callable[[], IO[bytes]] | None = None,
        channels_first: bool = False,
        path: Path | None = None,
    ) -> None:
        self.shape, self.dtype, self.whole, self._opener, self.channels_first = (
            shape,
            dtype,
            whole,
            opener,
            channels_first,
        )
        self._path = path

    @staticmethod
    def of(array: np.ndarray, *, channels_first: bool = False) -> Rows:
        return Rows(array.shape, array.dtype, whole=array, channels_first=channels_first)

    def __len__(self) -> int:
        return self.shape[0]

    def chunks(self) -> Iterator[np.ndarray]:
        """Consecutive runs of rows of about CHUNK_BYTES each."""
        row_bytes = max(1, math.prod(self.shape[1:]) * self.dtype.itemsize)
        step = max(1, CHUNK_BYTES // row_bytes)
        if self.whole is not None:
            yield from (self.whole[i : i + step] for i in range(0, len(self), step))
            return
        assert self._opener is not None
        try:
            with self._opener() as file:
                for start in range(0, len(self), step):
                    count = min(step, len(self) - start)
                    data = file.read(count * row_bytes)
                    if len(data) != count * row_bytes:
                        raise EOFError(
                            f"it ends within its first {start + count:,} of {len(self):,} samples"
                        )
                    yield np.frombuffer(data, dtype=self.dtype).reshape(count, *self.shape[1:])
                if file.read(1):  # and so to the checksum, which stands at the end
                    raise EOFError("more follows its last sample")
        except (EOFError, OSError, zlib.error, zipfile.BadZipFile) as error:
            raise FastganError(
                f"{self._path} is damaged or truncated ({error}): make or download it again"
            ) from None

    def load(self) -> np.ndarray:
        """All of it in memory."""
        if self.whole is not None:
            return self.whole
        try:
            chunks = list(self.chunks())
            return np.concatenate(chunks) if chunks else np.empty(self.shape, self.dtype)
        except MemoryError:
            bytes_ = math.prod(self.shape) * self.dtype.itemsize
            raise FastganError(f"{self._path}: no memory for {bytes_:,} bytes") from None


class Images:
    """Rows recognised as images: uint8 NHWC chunks of them, fitted to size (height, width) and
    channels."""

    def __init__(
        self,
        rows: Rows,
        name: str,
        size: tuple[int, int] | None,
        channels: int | None,
        axis: int | None,
    ) -> None:
        self.rows, self._axis = rows, axis
        high, wide = [n for i, n in enumerate(rows.shape[1:], 1) if i != axis]
        depth = rows.shape[axis] if axis is not None else 1
        self.resized = (size is not None and size != (high, wide)) or (
            channels is not None and channels != depth
        )
        self._size, self._channels = size, channels or depth
        self.shape = (*(size or (high, wide)), self._channels)
        self._name = name

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ready(self) -> np.ndarray | None:
        """The array itself if it already is what is wanted, so that nothing needs copying."""
        whole = self.rows.whole
        if whole is None or self.resized or whole.dtype != np.uint8 or self._axis == 1:
            return None
        whole = whole if self._axis is not None else whole[..., None]
        return whole if whole.flags.c_contiguous else None

    def chunks(self) -> Iterator[np.ndarray]:
        """uint8 (m, H, W, C), C contiguous."""
        scale = _scale(
            self.rows, self._name
        )  # may read everything once, so not before it is needed
        for chunk in self.rows.chunks():
            images = scale(chunk)
            images = (
                images[..., None] if self._axis is None else np.moveaxis(images, self._axis, -1)
            )
            if self.resized:
                images = np.stack(
                    [fit_array(image, self._size, self._channels) for image in images]
                )
            yield np.ascontiguousarray(images)


def fit_array(image: np.ndarray, size: tuple[int, int] | None, channels: int | None) -> np.ndarray:
    """A uint8 (H, W, C) array, C in 1, 3, 4, fitted as files are."""
    from PIL import Image

    return fit(
        Image.fromarray(np.ascontiguousarray(image[:, :, 0] if image.shape[2] == 1 else image)),
        size,
        channels,
    )


def image_axis(
    shape: tuple[int, ...], dtype: np.dtype, *, channels_first: bool, primary: bool
) -> tuple[bool, int | None]:
    """Whether an array of this shape holds images, and its channel axis (None: (N, H, W)).

    (N, H, W) counts as images when it is uint8, or when it is the main array; (N, H, W, C) and (N,
    C, H, W) with C in 1, 3, 4 always. Where both readings fit, a tensor is channels first and an
    array channels last.
    """
    if dtype.kind not in "uifb":
        return False, None
    if len(shape) == 3:
        return (dtype == np.uint8 or primary), None
    if len(shape) != 4:
        return False, None
    fits = [axis for axis in ((1, 3) if channels_first else (3, 1)) if shape[axis] in (1, 3, 4)]
    return (True, fits[0]) if fits else (False, None)


def _scale(rows: Rows, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The map from stored values to uint8, chosen once from the range of the whole array."""
    kind = rows.dtype.kind
    if rows.dtype == np.uint8:
        return lambda x: x
    if kind == "b":
        return lambda x: x.astype(np.uint8) * np.uint8(255)
    if rows.dtype.newbyteorder("=") == np.uint16:
        return lambda x: ((x.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    low, high = math.inf, -math.inf
    for chunk in rows.chunks():
        if chunk.size:
            low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
            if kind == "f" and not np.isfinite(chunk).all():
                raise FastganError(
                    f"{name}: image values must be finite; replace NaN and infinities before "
                    "training"
                )
    if kind in "ui":
        check_whole(low, high, name)
        return lambda x: x.astype(np.uint8)
    return float_scale(low, high, name)


def float_scale(low: float, high: float, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The map to uint8 of floats in [0, 1], [-1, 1] or [0, 255]: which of them follows from the
    smallest and largest value."""
    slack = 1e-3  # what resampling and float16 leave outside
    if low >= -slack and high <= 1 + slack:
        gain, shift = 255.0, 0.0
    elif low >= -1 - slack and high <= 1 + slack:
        gain, shift = 127.5, 127.5
    elif low >= -slack and high <= 255 + slack:
        gain, shift = 1.0, 0.0
    else:
        raise float_range(low, high, name)
    return lambda x: np.clip(np.rint(x.astype(np.float32) * gain + shift), 0, 255).astype(np.uint8)


def float_range(low: float, high: float, name: str) -> FastganError:
    """Of floating-point images whose smallest and largest value fit no scale."""
    return FastganError(
        f"{name}: floating-point images must lie in [0, 1], [-1, 1] or [0, 255], found "
        f"[{low:g}, {high:g}]"
    )


def check_whole(low: float, high: float, name: str) -> None:
    """Raises FastganError for integer images whose smallest and largest value are no uint8."""
    if low < 0 or high > 255:
        raise FastganError(
            f"{name}: integer images must lie in 0..255, found {low:g}..{high:g}; scale them "
            "to uint8"
        )


def open_idx(path: Path) -> Rows:
    """The array of an idx file, plain or gzipped (format: LeCun, MNIST). Raises FastganError."""
    zipped = path.name.endswith(".gz")

    def opened() -> IO[bytes]:
        raw = files.open_plain(path)
        if not zipped:
            return raw
        file = gzip.GzipFile(fileobj=raw)
        file.myfileobj = raw  # type: ignore[assignment]  # closed with it
        return cast("IO[bytes]", file)

    with _explained(path, "idx file"), opened() as file:
        size = path.stat().st_size
        try:
            layout = headers.read_idx(file)
        except ValueError as error:
            file.seek(0)
            if (name := named(file.read(HEAD))) is not None:
                raise ValueError(
                    f"it is {'gzipped, and inside ' if zipped else ''}{name}"
                ) from error
            raise
        (headers.check_deflated if zipped else headers.check_length)(layout, size)
    if not zipped:
        return Rows.of(_mapped(path, layout))

    def data() -> IO[bytes]:
        file = opened()
        file.read(layout.offset)
        return file

    return Rows(layout.shape, layout.dtype, opener=data, path=path)


def _mapped(path: Path, layout: headers.Layout) -> np.ndarray:
    if not layout.nbytes:
        return np.empty(layout.shape, layout.dtype)
    order: Literal["F", "C"] = "F" if layout.fortran else "C"
    return np.memmap(path, layout.dtype, "r", layout.offset, layout.shape, order)


@contextlib.contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    """Whatever a file that is damaged, or made to look so, raises is one line."""
    try:
        yield
    except FastganError:
        raise
    except Exception as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise FastganError(
            f"{path} is not a readable {what}: {why or type(error).__name__}"
        ) from None


def idx_labels_beside(path: Path) -> Path | None:
    """The labels of an idx image file by the usual naming: ...-images-idx3-ubyte ->
    ...-labels-idx1-ubyte, gzipped or not."""
    name = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    for candidate in (path.with_name(name + ".gz"), path.with_name(name)):
        if candidate != path and files.kind(candidate) == "file":
            return candidate
    return None


def open_npy(path: Path) -> Rows:
    """The array of a .npy file, memory mapped. Pickled objects are refused. Raises FastganError."""
    with _explained(path, ".npy array of numbers"), files.open_plain(path) as file:
        layout = headers.read_npy(file)
        headers.check_length(layout, path.stat().st_size)
        return Rows.of(_mapped(path, layout))


def open_npz(path: Path) -> dict[str, Rows]:
    """The arrays of a .npz file by name, read from the archive in chunks. Pickled objects are
    refused. Raises FastganError."""
    with _explained(path, ".npz file"), zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
        return {m.filename.removesuffix(".npy"): _npz_member(path, archive, m) for m in members}


def _npz_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Rows:
    try:
        with archive.open(member) as file:
            layout = headers.read_npy(file)
        headers.check_length(layout, member.file_size)
        if member.compress_type == zipfile.ZIP_DEFLATED:
            headers.check_deflated(layout, member.compress_size)
    except ValueError as error:
        raise ValueError(f"{member.filename}: {error}") from error

    def data() -> IO[bytes]:
        file = zipfile.ZipFile(path).open(member)  # noqa: SIM115 - the caller closes it
        file.read(layout.offset)
        return file

    rows = Rows(layout.shape, layout.dtype, opener=data, path=path)
    if layout.fortran and len(layout.shape) > 1:
        flat = Rows((math.prod(layout.shape),), layout.dtype, opener=data, path=path).load()
        return Rows.of(flat.reshape(layout.shape, order="F"))
    return rows
