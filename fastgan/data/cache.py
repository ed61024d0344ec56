"""Decoded images on disk: one file an entry, named by content, written aside and renamed, locked
against a second builder.

File: 4096-byte header (magic, place, length and SHA-256 of the metadata), one region a field,
names, metadata (JSON) last.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastgan import files
from fastgan.data.dataset import RowDigest
from fastgan.data.locks import plain_errors
from fastgan.errors import FastganError

VERSION = 2  # raise it when the same files would decode to other pixels, or the layout changes
SUFFIX, PART, LINK, LOCK = ".fgdata", ".part", ".link", ".lock"
_MAGIC = b"FGDATA01"
_HEADER = struct.Struct("<8sQQ32s")
_ALIGN = 4096
_CHECKED_BYTES = (
    64 << 20
)  # how much of an entry is read again at each start: all of a small one, samples of a large one
_STALE_SECONDS = 24 * 3600


class Entry:
    """One readable cache file: memory-mapped fields, metadata, digests."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError, KeyError, TypeError or OSError if the file is damaged, truncated or of
        another version."""
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
            if len(head) != _HEADER.size:
                raise ValueError("no header")
            magic, offset, length, checksum = _HEADER.unpack(head)
            if magic != _MAGIC or os.fstat(file.fileno()).st_size != offset + length:
                raise ValueError("wrong magic or size")
            file.seek(offset)
            raw = file.read(length)
            if hashlib.sha256(raw).digest() != checksum:
                raise ValueError("damaged metadata")
            self.meta: dict[str, Any] = json.loads(raw)
            if self.meta["version"] != VERSION:
                raise ValueError("another version")
            self.path = path
            self.count: int = self.meta["count"]
            self.arrays: dict[str, np.ndarray] = {}
            self.kinds: dict[str, str] = {}
            self.digests: dict[str, str] = {}
            for key, field in self.meta["fields"].items():
                shape, dtype = (self.count, *field["shape"]), np.dtype(field["dtype"])
                empty = not np.prod(shape)
                array = (
                    np.empty(shape, dtype)
                    if empty
                    else np.memmap(file, dtype, "r", field["offset"], shape)
                )
                _check_samples(array, field["chunks"])
                self.arrays[key], self.kinds[key], self.digests[key] = (
                    array,
                    field["kind"],
                    field["digest"],
                )
            place = self.meta.get("names", {"length": 0})
            # Mapped, not read: a million names are only needed where files are paired or classes
            # listed.
            self._names = (
                np.memmap(file, np.uint8, "r", place["offset"], (place["length"],))
                if place["length"]
                else None
            )

    def names(self) -> list[str]:
        """The names of the samples, read when asked for."""
        raw = b"" if self._names is None else self._names.tobytes()
        if raw and hashlib.sha256(raw).hexdigest() != self.meta["names"]["sha256"]:
            raise FastganError(f"{self.path} was damaged on disk: delete it and start again")
        return raw.decode("utf-8", "surrogateescape").split("\0")


def _check_samples(array: np.ndarray, chunks: Sequence[str]) -> None:
    rows = RowDigest(array.shape[1:], array.dtype).rows
    if len(chunks) != -(-len(array) // rows):
        raise ValueError("wrong number of checksums")
    if not chunks:
        return
    chunk_bytes = max(1, array[:rows].nbytes)
    wanted = max(2, _CHECKED_BYTES // chunk_bytes)
    for i in np.unique(np.linspace(0, len(chunks) - 1, min(wanted, len(chunks))).astype(int)):
        if (
            RowDigest(array.shape[1:], array.dtype)
            .update(array[i * rows : (i + 1) * rows])
            .all_chunks()[0]
            .hex()
            != chunks[i]
        ):
            raise ValueError("damaged content")


class Writer:
    """A cache file being written: rows are appended in order; nothing is visible under the final
        name before `commit`.

    fields: name -> (kind, shape of a row, dtype). capacity: the most rows there can be. Memory use
    does not grow with either. The file is locked while it is written, so that `clean` can tell it
    from one left by a killed process.
    """

    def __init__(
        self, directory: Path, fields: Mapping[str, tuple[str, Sequence[int], Any]], capacity: int
    ) -> None:
        self.directory, self.count = directory, dict.fromkeys(fields, 0)
        self._fields = {
            key: (kind, tuple(shape), np.dtype(dtype))
            for key, (kind, shape, dtype) in fields.items()
        }
        self._offsets: dict[str, int] = {}
        end = _ALIGN
        # Small fields first: the images come last, so that a file with fewer rows than its capacity
        # ends where they end.
        for key in sorted(fields, key=lambda k: self._row_bytes(k)):
            self._offsets[key] = end
            end = _aligned(end + capacity * self._row_bytes(key))
        self.need = end
        self._digests = {
            key: RowDigest(shape, dtype) for key, (_, shape, dtype) in self._fields.items()
        }
        with plain_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self.path, self._file = _new_part(directory)

    def _row_bytes(self, key: str) -> int:
        _, shape, dtype = self._fields[key]
        return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize

    def append(self, field: str, rows: np.ndarray) -> None:
        """Rows (m, *shape) of a field, in order."""
        _, shape, dtype = self._fields[field]
        if rows.shape[1:] != shape or rows.dtype != dtype:
            raise ValueError(
                f"{field}: rows are {rows.shape[1:]} {rows.dtype}, not {shape} {dtype}"
            )
        rows = np.ascontiguousarray(rows)
        self._digests[field].update(rows)
        self._write(
            self._offsets[field] + self.count[field] * self._row_bytes(field),
            rows.data.cast("B") if rows.size else b"",
        )
        self.count[field] += len(rows)

    def drop(self, field: str) -> None:
        """Leave out a field that turned out not to be there."""
        del self._fields[field], self._offsets[field], self._digests[field], self.count[field]

    def _write(self, offset: int, data: Any) -> None:
        with plain_errors(self.directory, self.need):
            self._file.seek(offset)
            files.write_all(self._file, data)

    def finish(
        self, meta: Mapping[str, Any] | None = None, names: Sequence[str] | None = None
    ) -> None:
        """Write names, metadata and header; after this only `commit` or `scratch`."""
        count = next(iter(self.count.values()))
        if set(self.count.values()) != {count}:
            raise ValueError(f"fields differ in length: {self.count}")
        fields = {
            key: {
                "kind": kind,
                "shape": list(shape),
                "dtype": dtype.str,
                "offset": self._offsets[key],
                "digest": self._digests[key].hexdigest(),
                "chunks": [chunk.hex() for chunk in self._digests[key].all_chunks()],
            }
            for key, (kind, shape, dtype) in self._fields.items()
        }
        end = max(self._offsets[key] + count * self._row_bytes(key) for key in fields)
        document: dict[str, Any] = {
            **(meta or {}),
            "version": VERSION,
            "count": count,
            "fields": fields,
        }
        if names is not None:
            raw_names = "\0".join(names).encode("utf-8", "surrogateescape")
            document["names"] = {
                "offset": end,
                "length": len(raw_names),
                "sha256": hashlib.sha256(raw_names).hexdigest(),
            }
            self._write(end, raw_names)
            end += len(raw_names)
        raw = json.dumps(document).encode()
        self._write(end, raw)
        self._write(0, _HEADER.pack(_MAGIC, end, len(raw), hashlib.sha256(raw).digest()))
        with plain_errors(self.directory, self.need):
            self._file.truncate(end + len(raw))
            self._file.flush()

    def commit(self, final: Path) -> None:
        """Make the finished file visible under its final name, all or nothing."""
        with plain_errors(self.directory, self.need):
            os.fsync(self._file.fileno())
            if sys.platform == "win32":  # there an open file can not be renamed
                self._file.close()
            try:
                os.replace(self.path, final)
            except PermissionError:
                if (
                    files.kind(final) is None
                ):  # on Windows, somebody reads the same entry: theirs is as good
                    raise
                self.path.unlink(missing_ok=True)
            files.sync_folder(self.directory)
        self._file.close()

    def scratch(self) -> Entry:
        """The finished file as an entry that nobody else sees, and that is gone when this process
        ends."""
        entry = Entry(self.path)
        if (
            sys.platform != "win32"
        ):  # there a mapped file can not be deleted: `clean` does it at a later start
            self.path.unlink()
        self._file.close()
        return entry

    def abort(self) -> None:
        """Remove what was written."""
        self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._file.closed:
            self.abort()


def obtain(
    directory: Path,
    *,
    stamp: str,
    family: str,
    settled: Callable[[], bool],
    identify: Callable[[], str],
    build: Callable[[], tuple[Writer, str]],
    notice: Callable[[str], None] = lambda line: None,
) -> Entry:
    """The entry for some source: found without reading the source, found by content, or built.

    stamp: digest of everything the file system says about the source (names, sizes, times); a link
        remembers the content it
    stood for. family: digest of what is cheap to know about the content (names, sizes); only an
        entry of the same family can
    have the same content. identify: content key by reading the source. build: fills a Writer, gives
        it finished and its key.
    settled: whether the source is old enough that a later change must change its times.
    """
    link = directory / f"{stamp[:32]}{LINK}"
    clean(directory)
    entry = _follow(directory, link, family)
    if entry is not None:
        return entry
    with plain_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    said = "another process decodes the same images: waiting for it"
    with _alone(directory / f"{family[:16]}{LOCK}", lambda: notice(said)):
        entry = _follow(directory, link, family)
        if entry is not None:
            return entry
        key, writer = "", None
        if any(directory.glob(f"{family[:16]}-*{SUFFIX}")):
            key = identify()
            entry = _try_entry(_path(directory, family, key))
        if entry is None:
            writer, key = build()
            with writer:
                writer.commit(_path(directory, family, key))
            entry = Entry(_path(directory, family, key))
        if settled():
            with plain_errors(directory):
                files.write_atomically(link, key.encode())
        return entry


def _path(directory: Path, family: str, key: str) -> Path:
    return directory / f"{family[:16]}-{key[:40]}{SUFFIX}"


def _follow(directory: Path, link: Path, family: str) -> Entry | None:
    try:
        key = link.read_text()
    except OSError:
        return None
    return _try_entry(_path(directory, family, key)) if len(key) == 64 and key.isalnum() else None


def _try_entry(path: Path) -> Entry | None:
    """The entry, or None if it is missing or not sound."""
    try:
        return Entry(path)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def clean(directory: Path) -> None:
    """Remove what killed processes left behind; a live builder's file is locked and stays."""
    with contextlib.suppress(OSError):
        for path in directory.glob(f"*{PART}"):
            with contextlib.suppress(OSError), contextlib.closing(files.Lock(path, 0)) as lock:
                if lock.held or (lock.held is None and _is_old(path)):
                    path.unlink()
        for path in directory.glob(f"{files.TEMPORARY}*"):
            with contextlib.suppress(OSError):
                if _is_old(path):
                    path.unlink()


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _STALE_SECONDS


@contextlib.contextmanager
def _alone(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Inside, nobody else holds the lock `path`; without locks two may do the same work."""
    told = False
    with plain_errors(path.parent):
        while (lock := files.Lock(path)).held is False:
            lock.close()
            if not told:
                waiting()
                told = True
            time.sleep(0.1)
    with contextlib.closing(lock):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def _new_part(directory: Path) -> tuple[Path, io.FileIO]:
    while True:
        path = directory / f"{os.getpid()}-{secrets.token_hex(6)}{PART}"
        lock = files.Lock(path, os.O_CREAT | os.O_EXCL)
        if lock.held is not False:
            return path, lock.file
        lock.close()  # a cleaner came between making and locking: it removes this one


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGN) * _ALIGN


def clear(directory: Path) -> tuple[int, int]:
    """Delete every entry that no live process writes: (files, bytes) removed. Running trainings
    keep what they have open."""
    clean(directory)
    files = freed = 0
    with plain_errors(directory):
        for path in [*directory.glob(f"*{SUFFIX}"), *directory.glob(f"*{LINK}")]:
            freed += path.stat().st_size
            path.unlink()
            files += path.suffix == SUFFIX
    return files, freed
