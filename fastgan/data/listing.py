"""Folders, zip archives and single files as one thing: a sorted list of named files that can be
read by number, from any thread."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
import zipfile
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fastgan import files
from fastgan.data.formats.naming import HEAD, named
from fastgan.data.pixels import MAX_FILE_BYTES, Unreadable, looks_like_image
from fastgan.errors import FastganError

_SHARDS = ("part", "shard", "chunk", "batch", "split", "fold", "images", "imgs", "pack")
_JUNK = ("__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini")
_SETTLED_SECONDS = 2.0  # coarser than any file system's clock in use (FAT: 2 s)


class Listing(ABC):
    """Files under one root, sorted by name. names: relative, "/" between parts. sizes: bytes.
    outputs: those of the names that stand for what fastgan made itself, and what it is."""

    def __init__(
        self, root: Path, names: Sequence[str], sizes: Sequence[int], stamp: str, newest_ns: int
    ) -> None:
        self.root, self.names, self.sizes = root, names, sizes
        self.stamp = stamp
        self.outputs: dict[str, str] = {}
        self._newest_ns, self._listed_ns = newest_ns, time.time_ns()

    def __len__(self) -> int:
        return len(self.names)

    def settled(self) -> bool:
        """Whether every file was so old when listed that a later change must show in its times."""
        return self._listed_ns - self._newest_ns > _SETTLED_SECONDS * 1e9

    def read(self, i: int) -> bytes:
        """The whole of file i if its first bytes are an image's. Raises Unreadable with the reason
        if not."""
        if self.names[i] in self.outputs:
            raise Unreadable(self.outputs[self.names[i]])
        return self._taken(i, MAX_FILE_BYTES, _image)

    def content(self, i: int, limit: int) -> bytes:
        """The whole of file i, whatever it is. Raises Unreadable, also for more than `limit`
        bytes."""
        return self._taken(i, limit, _whole)

    def _taken(self, i: int, limit: int, take: Callable[[IO[bytes], int], bytes]) -> bytes:
        if self.sizes[i] == 0:
            raise Unreadable("empty file")
        if self.sizes[i] > limit:
            raise Unreadable(_larger(limit))
        try:
            with self._open(i) as file:
                return take(file, limit)
        except Unreadable:
            raise
        except Exception as error:  # a damaged archive raises whatever its decompressor does
            raise Unreadable(
                getattr(error, "strerror", None) or str(error) or type(error).__name__
            ) from None

    @abstractmethod
    def _open(self, i: int) -> IO[bytes]:
        """File i, open for reading."""

    def family(self) -> str:
        """Digest of names and sizes: what can be known of the content without reading it."""
        digest = hashlib.sha256()
        for name, size in zip(self.names, self.sizes):
            digest.update(f"{size}\0".encode() + name.encode("utf-8", "surrogateescape") + b"\0")
        return digest.hexdigest()


def _image(file: IO[bytes], limit: int) -> bytes:
    head = file.read(HEAD)
    if not looks_like_image(head):
        raise Unreadable(named(head) or "not an image")
    return _whole(file, limit, head)


def _whole(file: IO[bytes], limit: int, head: bytes = b"") -> bytes:
    data = head + file.read(limit + 1 - len(head))
    if len(data) > limit:
        raise Unreadable(_larger(limit))
    return data


def _larger(limit: int) -> str:
    return f"larger than {limit >> 20} MiB"


class Folder(Listing):
    """All files under a folder, links followed, hidden files and desktop litter ignored."""

    def __init__(self, root: Path, exclude: frozenset[str] = frozenset()) -> None:
        found, outputs = _without_outputs(root, _walk(root))
        found = sorted(f for f in found if stem(f[0]) not in exclude)
        digest = hashlib.sha256(os.path.realpath(root).encode("utf-8", "surrogateescape"))
        for name, *numbers in found:
            digest.update(name.encode("utf-8", "surrogateescape") + f"\0{numbers}\0".encode())
        newest = max((max(f[2], f[3]) for f in found), default=0)
        super().__init__(
            root, [f[0] for f in found], [f[1] for f in found], digest.hexdigest(), newest
        )
        self.outputs = outputs

    def _open(self, i: int) -> IO[bytes]:
        return files.open_plain(self.root / self.names[i])


_Found = tuple[str, int, int, int]
"""Name, bytes, two times in nanoseconds."""


def _walk(root: Path) -> list[_Found]:
    """Each real folder once, however many links lead to it: first by its own name."""
    found: list[_Found] = []
    seen: set[tuple[int, int]] = set()
    folders, links = deque([(os.fspath(root), "", root.stat())]), deque[Any]()
    while folders or links:
        path, prefix, facts = (folders or links).popleft()
        if (facts.st_dev, facts.st_ino) in seen:
            continue
        seen.add((facts.st_dev, facts.st_ino))
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            raise FastganError(
                f"cannot list {path}: {error.strerror}; make it readable or move it away"
            ) from None
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _JUNK:
                continue
            name = prefix + entry.name
            try:
                facts = entry.stat()
                if stat.S_ISDIR(facts.st_mode):
                    queue = links if entry.is_symlink() else folders
                    queue.append((entry.path, name + "/", facts))
                    continue
            except OSError:  # a dangling link, or one into a folder that nobody may look into:
                found.append((name, 1, 0, 0))  # listed, so that it is named among what was left out
                continue
            if stat.S_ISREG(facts.st_mode):  # pipes and devices would block
                found.append((name, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns))
    return found


def _without_outputs(root: Path, found: list[_Found]) -> tuple[list[_Found], dict[str, str]]:
    """(without the files of runs, which stand for themselves by one name; {such a name: what it
    is}). Raises FastganError where the root is a run."""
    names = [name for name, *_ in found]
    runs = [n.removesuffix("run.json") for n in names if n.rpartition("/")[2] == "run.json"]
    marks = [(run, (f"{run}checkpoints/step-", f"{run}run.lock")) for run in runs]
    runs = [run for run, begun in marks if any(name.startswith(begun) for name in names)]
    if "" in runs:
        raise FastganError(f"{root} is a run of fastgan, not data: give what it was trained on")
    if not runs:
        return found, {}
    kept = [f for f in found if not f[0].startswith(tuple(runs))]
    outputs = {run.rstrip("/"): "a run of fastgan" for run in runs}
    outermost = [r for r in outputs if not any(r.startswith(f"{o}/") for o in outputs)]
    return [*kept, *((run, 1, 0, 0) for run in outermost)], outputs


class Zip(Listing):
    """All files of a zip archive. Nothing is extracted, so a name that points elsewhere is only a
    name."""

    def __init__(self, path: Path, exclude: frozenset[str] = frozenset()) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise FastganError(
                f"{path} is not a readable zip archive ({error}): make it again"
            ) from None
        facts = path.stat()
        members: list[tuple[str, zipfile.ZipInfo]] = []
        for info in self._archive.infolist():
            parts = PurePosixPath(info.filename.replace("\\", "/")).parts
            hidden = any(part in _JUNK or (part.startswith(".") and part != "..") for part in parts)
            name = "/".join(part for part in parts if part not in ("/", ".."))
            if not info.is_dir() and not hidden and stem(name) not in exclude:
                members.append((name, info))
        listed = [(name, info.file_size, n, 0) for n, (name, info) in enumerate(members)]
        kept, outputs = _without_outputs(path, listed)
        kept.sort(key=lambda f: f[0])
        self._members = [members[f[2]][1] for f in kept]
        real = os.path.realpath(path).encode("utf-8", "surrogateescape")
        stamp = hashlib.sha256(
            real + f"\0{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}".encode()
        )
        for name in sorted(exclude):
            stamp.update(name.encode("utf-8", "surrogateescape") + b"\0")
        newest = max(facts.st_mtime_ns, facts.st_ctime_ns)
        names, sizes = [f[0] for f in kept], [f[1] for f in kept]
        super().__init__(path, names, sizes, stamp.hexdigest(), newest)
        self.outputs = outputs

    def _open(self, i: int) -> IO[bytes]:
        return self._archive.open(self._members[i])


class OneFile(Listing):
    """A single file."""

    def __init__(self, path: Path) -> None:
        facts = path.stat()
        times = facts.st_mtime_ns, facts.st_ctime_ns
        real = os.path.realpath(path).encode("utf-8", "surrogateescape")
        stamp = hashlib.sha256(real + f"\0{facts.st_size} {times}".encode())
        super().__init__(path, [path.name], [facts.st_size], stamp.hexdigest(), max(times))

    def _open(self, i: int) -> IO[bytes]:
        return files.open_plain(self.root)


def stem(name: str) -> str:
    """A relative name without its extension: what the two halves of a pair share."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + (base.rpartition(".")[0] or base)


SPLITS = frozenset(
    ("train", "training", "trainval", "val", "valid", "validation", "dev", "test", "testing")
    + ("eval", "holdout")
)
"""Folders of these names are parts of one data set, and so are train2017, test_images or trainA."""

_PAIRED = frozenset(
    ("image", "images", "img", "imgs", "mask", "masks", "label", "labels", "annotations", "gt")
    + ("input", "inputs", "source", "target", "targets", "output", "hr", "lr")
)


def _is_split(name: str) -> bool:
    bare = re.sub(r"([-_ ]?(images?|imgs?|set|data|split|[0-9]+)|a|b)$", "", name.lower())
    return name.lower() in SPLITS or bare in SPLITS


def class_labels(names: Sequence[str]) -> tuple[tuple[list[int], list[str]] | None, str | None]:
    """(labels and classes, or None; a line on what was guessed, or None).

    The first folders that tell the files apart are the classes, in sorted order, where every file
    is in one. Skipped are folders that all files share, so that train/cat/1.png and train/dog/2.png
    are cats and dogs, splits (train, val, test) and shards (00000, 01000, or part-1, part-2).
    """
    parts = [name.split("/")[:-1] for name in names]
    depth, notes = 0, []
    while parts and all(len(p) > depth for p in parts):
        found = sorted({p[depth] for p in parts})
        why = _no_classes(found)
        if why is not None:
            notes.append(why)
        elif len(found) > 1:
            if both := [name for name in found if _is_split(name)]:
                notes.append(
                    f"{_listed(found)} are read as classes, though {_listed(both)} may be parts of "
                    "the set: name one folder to train on it alone"
                )
            elif all(name.isdecimal() for name in found):
                notes.append(
                    f"the {len(found)} numbered folders {_listed(found)} are read as classes; if "
                    "they are none, put their files into one folder"
                )
            elif all(name.lower() in _PAIRED for name in found):
                notes.append(
                    f"the folders {_listed(found)} are read as classes; if they belong together as "
                    "pairs, give each of them to a recipe of images from images"
                )
            number = {name: i for i, name in enumerate(found)}
            return ([number[p[depth]] for p in parts], found), "; ".join(notes) or None
        depth += 1
    return None, "; ".join(notes) or None


def clip_labels(names: Sequence[str], files: Collection[str]) -> tuple[list[int], list[str]]:
    """(the number of each frame's clip, the clips by number). An animation is a clip, and so are
    the images that lie in one folder; "." is the outermost.

    names: a file, or of a frame of an animation FILE#NUMBER. files: of which they come.
    """
    clips = [
        name.rpartition("/")[0] or "." if name in files else name.rpartition("#")[0]
        for name in names
    ]
    number = {clip: i for i, clip in enumerate(dict.fromkeys(clips))}
    return [number[clip] for clip in clips], list(number)


def _no_classes(found: Sequence[str]) -> str | None:
    """What folders beside each other are where they are no classes."""
    if len(found) < 2:
        return None
    if all(_is_split(name) for name in found):
        one = next((name for name in found if name.lower().startswith("train")), found[0])
        return (
            f"{_listed(found)} are read as parts of one set, not as classes, and trained on "
            f"together: name one folder ({one}) to train on it alone"
        )
    alike = {re.sub(r"[0-9]+$", "#", name.lower()) for name in found}
    named = alike <= {f"{word}{sep}#" for word in _SHARDS for sep in ("", "-", "_", " ")}
    steps = {b - a for a, b in pairwise(map(int, found))} if alike == {"#"} else set()
    even = len(steps) == 1 and min(steps) >= 100 and len({len(name) for name in found}) == 1
    if named or even:
        return f"{_listed(found)} are read as shards of one set, not as classes: rename them if not"
    return None


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 4 else ""
    return ", ".join(names[: 3 if more else 4]) + more
