"""Decode the files of a listing once, in parallel and in bounded memory, into a cache entry."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from fastgan.data import cache
from fastgan.data.dataset import Dataset, left_out, none_readable
from fastgan.data.formats.tables import LARGEST, classes_of, table_of
from fastgan.data.listing import Listing, class_labels, clip_labels
from fastgan.data.pixels import Unreadable, decode, decode_frames
from fastgan.errors import FastganError, printable

_RUN_BYTES = 4 << 20  # decoded images handed over at once
_RUN_FILES = 64


def from_listing(
    listing: Listing,
    size: tuple[int, int] | None,
    channels: int | None,
    *,
    directory: Path,
    strict: bool,
    workers: int | None,
    progress: bool | None,
    use_labels: bool,
    frames: bool = False,
) -> Dataset:
    """A listing as a Dataset, decoded now or found in the cache; frames: of animations all."""
    name = listing.root.name or str(listing.root)
    if not len(listing):
        raise FastganError(f"no files in {listing.root}: give a folder or zip of images")
    wanted = f"{cache.VERSION} {size} {channels}{' frames' * frames}"
    threads, bar = workers or default_workers(), terminal(progress)
    builder = _Builder(listing, size, channels, directory, strict, threads, bar, frames)
    entry = cache.obtain(
        directory,
        stamp=hashlib.sha256(f"{wanted} {listing.stamp}".encode()).hexdigest(),
        family=hashlib.sha256(f"{wanted} {listing.family()}".encode()).hexdigest(),
        settled=listing.settled,
        identify=builder.identify,
        build=builder.build,
        notice=lambda line: print(printable(f"{name}: {line}"), file=sys.stderr),
    )
    skipped = [(skipped_name, reason) for skipped_name, reason in entry.meta["skipped"]]
    if strict and skipped:
        raise FastganError(
            f"{listing.root}: {left_out(skipped)}; repair or remove, or run without --strict"
        )
    arrays, kinds = entry.arrays, entry.kinds
    if frames:
        label = np.repeat(*np.array(entry.meta["clips"], np.int64).reshape(-1, 2).T)
        arrays, kinds = {**arrays, "label": label}, {**kinds, "label": "label"}
    fields = [key for key in arrays if use_labels or key != "label"]
    return Dataset(
        name,
        {key: arrays[key] for key in fields},
        kinds,
        classes=entry.meta["classes"] if "label" in fields else None,
        skipped=skipped,
        names=entry.names,
        digests=entry.digests,
        notes=[entry.meta["note"]] if entry.meta["note"] and use_labels else (),
    )


def default_workers() -> int:
    """Decoding threads: one a core this process may use, at most 16. Pillow frees the interpreter
    while it decodes."""
    available = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(16, available))


def terminal(progress: bool | None) -> bool:
    """Whether to show a progress bar: as asked, else only on a terminal."""
    return sys.stderr.isatty() if progress is None else progress


class _Colour(Exception):
    """A colour image turned up after only grey ones."""


class _Builder:
    def __init__(
        self,
        listing: Listing,
        size: tuple[int, int] | None,
        channels: int | None,
        directory: Path,
        strict: bool,
        workers: int,
        progress: bool,
        frames: bool,
    ) -> None:
        self.listing, self.size, self.channels, self.frames = listing, size, channels, frames
        self.directory, self.strict, self.workers, self.progress = (
            directory,
            strict,
            workers,
            progress,
        )

        self.table = None if frames else table_of(listing.names)
        self.classes, self.unread = b"", None
        if self.table is not None:
            try:
                self.classes = listing.content(self.table, LARGEST)
            except Unreadable as error:
                self._refuse_if_strict([(listing.names[self.table], str(error))])
                self.unread = f"{listing.names[self.table]} is left out: {error}"

    def identify(self) -> str:
        """The content key, by reading every file."""
        runs = (
            range(i, min(i + _RUN_FILES, len(self.listing)))
            for i in range(0, len(self.listing), _RUN_FILES)
        )
        key = _Key(self.listing, self.classes)
        with self._bar("checking") as bar:
            for digests in _in_order(
                lambda run: [self._digest(i) for i in run], runs, self.workers
            ):
                key.update(digests)
                bar.update(len(digests))
        return key.hexdigest()

    def _digest(self, i: int) -> bytes:
        try:
            return hashlib.sha256(self.listing.read(i)).digest()
        except Unreadable as error:
            return str(error).encode()

    def build(self) -> tuple[cache.Writer, str]:
        """Decode everything: a finished Writer and the content key."""
        first = self._first()
        shape = (*(self.size or first.shape[:2]), self.channels or first.shape[2])
        try:
            return self._attempt(shape)
        except _Colour:
            return self._attempt((*shape[:2], 3))

    def _first(self) -> np.ndarray:
        """The first readable image, which settles what size and channels left open."""
        skipped: list[tuple[str, str]] = []
        for i, name in enumerate(self.listing.names):
            try:
                with _strict_pillow():
                    return self._images(i, self.channels, self.listing.read(i))[0][1]
            except Unreadable as error:
                if i == self.table:
                    continue
                skipped.append((name, str(error)))
                self._refuse_if_strict(skipped)
        raise none_readable(self.listing.root, left_out(skipped))

    def _refuse_if_strict(self, skipped: list[tuple[str, str]]) -> None:
        if self.strict and skipped:
            name, reason = skipped[0]
            where = f"{self.listing.root}: {printable(name)}: {printable(reason)}"
            raise FastganError(f"{where}; repair or remove it, or run without --strict")

    def _attempt(self, shape: tuple[int, int, int]) -> tuple[cache.Writer, str]:
        fields = {"image": ("image", shape, np.uint8), "label": ("label", (), np.int64)}
        key = _Key(self.listing, self.classes)
        kept: list[str] = []
        skipped: list[tuple[str, str]] = []
        most = 1 if self.frames else _RUN_FILES  # one animation is as large as a run, or larger
        step = max(1, min(most, _RUN_BYTES // int(np.prod(shape))))
        runs = (
            range(i, min(i + step, len(self.listing))) for i in range(0, len(self.listing), step)
        )
        writer = cache.Writer(self.directory, fields, len(self.listing))
        try:
            with _strict_pillow(), self._bar("decoding") as bar:
                for images, digests, bad in _in_order(
                    lambda run: self._decode(run, shape), runs, self.workers
                ):
                    key.update(digests)
                    skipped += [(self.listing.names[i], reason) for i, reason in bad]
                    self._refuse_if_strict(skipped)
                    for name, image in images:
                        self._check(image, shape, name, kept)
                        kept.append(name)
                    if images:
                        writer.append("image", np.stack([image for _, image in images]))
                    bar.update(len(digests))
            found, note = self._labels(kept)
            meta: dict[str, Any] = {
                "classes": found[1] if found else None,
                "skipped": skipped,
                "note": note,
            }
            if found and self.frames:  # of which there may be more than the writer has room for
                meta["clips"] = [(label, len([*same])) for label, same in groupby(found[0])]
            if found and not self.frames:
                writer.append("label", np.array(found[0], dtype=np.int64))
            else:
                writer.drop("label")
            writer.finish(meta, kept)
        except BaseException:
            writer.abort()
            raise
        return writer, key.hexdigest()

    def _labels(self, kept: list[str]) -> tuple[tuple[list[int], list[str]] | None, str | None]:
        """Of a file beside the images, else of their folders; of frames their clips."""
        if self.frames:
            return clip_labels(kept, frozenset(self.listing.names)), None
        note = self.unread
        if self.table is not None and note is None:
            found, note = classes_of(self.listing.names[self.table], self.classes, kept)
            if found is not None:
                return found, note
        labels, guessed = class_labels(kept)
        return labels, "; ".join(line for line in (note, guessed) if line) or None

    def _decode(
        self, run: range, shape: tuple[int, int, int]
    ) -> tuple[list[tuple[str, np.ndarray]], list[bytes], list[Any]]:
        images: list[tuple[str, np.ndarray]] = []
        digests, bad = [], []
        # Grey so far and nothing asked: look at each image's own channels, to notice the first
        # colour one.
        channels = None if self.channels is None and shape[2] == 1 else shape[2]
        for i in run:
            try:
                data = self.listing.read(i)
            except Unreadable as error:
                digests.append(str(error).encode())
                if i != self.table:
                    bad.append((i, str(error)))
                continue
            digests.append(hashlib.sha256(data).digest())
            try:
                images += self._images(i, channels, data)
            except Unreadable as error:
                bad.append((i, str(error)))
        return images, digests, bad

    def _images(self, i: int, channels: int | None, data: bytes) -> list[tuple[str, np.ndarray]]:
        """What file i holds, named: one image, or the frames of an animation."""
        name = self.listing.names[i]
        if not self.frames:
            return [(name, decode(data, self.size, channels))]
        made = decode_frames(data, self.size, channels)
        if len(made) == 1:
            return [(name, made[0])]
        return [(f"{name}#{number}", frame) for number, frame in enumerate(made, 1)]

    def _check(
        self, image: np.ndarray, shape: tuple[int, int, int], name: str, kept: list[str]
    ) -> None:
        if image.shape[:2] != shape[:2]:
            (h, w), (height, width) = shape[:2], image.shape[:2]
            raise FastganError(
                f"{self.listing.root}: images differ in size "
                f"({printable(kept[0] if kept else 'the first')} is {w}x{h}, "
                f"{printable(name)} {width}x{height}): give one, for example "
                f"--size {min(h, w, height, width)}"
            )
        if image.shape[2] != shape[2]:
            raise _Colour

    def _bar(self, what: str) -> Any:
        from tqdm import tqdm

        return tqdm(
            total=len(self.listing),
            desc=what,
            unit=" images",
            disable=not self.progress,
            leave=False,
            mininterval=0.5,
        )


class _Key:
    """SHA-256 over the names and content digests of all files, in order."""

    def __init__(self, listing: Listing, classes: bytes) -> None:
        self._names = iter(listing.names)
        self._digest = hashlib.sha256(classes)

    def update(self, digests: list[bytes]) -> None:
        for digest, name in zip(
            digests, self._names
        ):  # in this order: zip would swallow a name at the end
            self._digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + digest + b"\0")

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _in_order(work: Callable[[range], Any], runs: Iterator[range], workers: int) -> Iterator[Any]:
    """work(run) for all runs on threads, results in order, never more than two runs a worker in
    memory."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fastgan-decode")
    pending: deque[Future[Any]] = deque()
    try:
        for run in runs:
            pending.append(pool.submit(work, run))
            if len(pending) >= 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _strict_pillow(warnings.catch_warnings):
    """Pillow's warnings: a decompression bomb is an error, remarks on odd but readable files are
    not shown."""

    def __enter__(self) -> Any:
        from PIL import Image

        entered = super().__enter__()
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return entered
