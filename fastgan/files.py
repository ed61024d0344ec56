"""Files that are either whole or not there: written beside, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from fastgan.errors import FastganError, empty, no_path

TEMPORARY = ".partial-"
"""Begins the name of what is being written, or being removed."""

ASIDE = ".replaced-"
"""Begins the name of a folder whose successor is about to take its place."""

TEXT = 2**26
"""Bytes of the largest JSON or TOML file that is read."""


def path_of(given: str | os.PathLike[str], what: str = "the path") -> Path:
    """A path as people give it, `~` expanded.

    Raises FastganError for an empty one, which would mean the current folder, one with a null byte,
    and the home folder of somebody unknown.
    """
    if not isinstance(given, (str, os.PathLike)) or not isinstance(os.fspath(given), str):
        raise no_path(what, repr(given))
    if not os.fspath(given):
        raise empty(what)
    if "\0" in os.fsdecode(given):
        raise FastganError(f"{os.fsdecode(given)}: {what} holds a null byte, which no name can")
    try:
        os.fsencode(given)
    except UnicodeEncodeError:
        raise FastganError(
            f"{os.fspath(given)!r}: {what} is no name that a file can have"
        ) from None
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise FastganError(f"can't find {given}: no such user here, or no home folder") from None


def recorded(path: str) -> str:
    """How a path stands in a file that is read from other folders: absolute, unless its name is
    none that a text file can hold."""
    whole = str(path_of(path).absolute())
    try:
        whole.encode()
    except UnicodeEncodeError:
        return path
    return whole


def text(data: bytes) -> str:
    """The text of a file: UTF-8, with the mark at its beginning that Windows puts there, or UTF-16
    with its own. Raises UnicodeDecodeError."""
    return data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")


def plain(path: str | Path, flags: int, *, follow: bool = False) -> int:
    """An opener that waits for nobody and follows no link at the end of `path`. Raises OSError
    where no regular file is there."""
    flags |= (
        getattr(os, "O_NONBLOCK", 0)
        | getattr(os, "O_CLOEXEC", 0)
        | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
    )
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise OSError(errno.ELOOP, "it is a link") from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return handle


def read(path: Path, limit: int | None = None, *, follow: bool = False) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises OSError, also for anything
    else."""
    with open(plain(path, os.O_RDONLY, follow=follow), "rb") as f:
        if limit is not None and os.fstat(f.fileno()).st_size > limit:
            raise OSError(errno.EFBIG, f"it is larger than {limit} bytes")
        return f.read()


def open_plain(path: Path) -> BinaryIO:
    """A regular file, or a link to one, open for reading; never one that could keep its reader
    waiting. Raises OSError."""
    return open(plain(path, os.O_RDONLY, follow=True), "rb")


def kind(path: Path, *, follow: bool = True) -> str | None:
    """What lies at a path: "file", "folder", "other", "link" (with follow=False), or None where
        nothing is there.

    Raises FastganError where it can't be looked at: another user's folder, a name that is too long.
    """
    try:
        mode = (os.stat if follow else os.lstat)(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise FastganError(
            f"can't look at {path}: {getattr(error, 'strerror', None) or error}"
        ) from None
    names = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
    return names.get(stat.S_IFMT(mode), "other")


def refuse_existing(out: Path) -> None:
    """Raises FastganError where anything lies at `out`, a dangling link too."""
    if kind(out, follow=False) is not None:
        raise FastganError(f"{out} exists already: choose another --out")


class Lock:
    """An exclusive lock between processes and threads, freed by the system when its holder ends.

    path: opened, or made, as `plain` does, and left as it is. file: open for reading and writing.
    held: True; False where somebody else has it; None on a file system without locks.
    """

    def __init__(self, path: Path, flags: int = os.O_CREAT) -> None:
        """Try once, without waiting. flags: of os.open, beside O_RDWR. Raises OSError."""
        while True:
            self.path = path
            self.file = os.fdopen(plain(path, os.O_RDWR | flags), "r+b", buffering=0)
            self.held: bool | None = None
            with contextlib.suppress(OSError):
                self.held = _lock_descriptor(self.file.fileno())
            if self.held is False or self._in_place():
                return
            self.file.close()  # whoever held it has removed it since

    def _in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self.file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def sign(self) -> None:
        """Leave this process's number for `holder`, behind the byte that Windows lets none read."""
        self.file.truncate(0)
        self.file.seek(0)
        write_all(self.file, f"\n{os.getpid()}".encode())

    def holder(self) -> int | None:
        """The number of the process that signed last, where that can be read."""
        self.file.seek(1)
        signed = self.file.read(20)
        return int(signed) if signed.isdigit() else None

    def close(self) -> None:
        """Free it."""
        self.file.close()


def _lock_descriptor(descriptor: int) -> bool | None:
    """Whether an open file could be locked; None where nothing here can lock (a bare copy on
    Windows)."""
    try:
        from filelock import lock_descriptor
    except ImportError:
        try:
            import fcntl
        except ImportError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
    return lock_descriptor(descriptor, blocking=False)


def write(path: Path, data: bytes) -> None:
    """Write and flush one new file; a building block, not atomic by itself."""
    with open(path, "wb", buffering=0) as f:
        write_all(f, data)
        os.fsync(f.fileno())


def write_all(f: io.FileIO, data: bytes) -> None:
    """Write to an unbuffered file; a short write, which is what a full disk gives first, is an
    error."""
    rest = memoryview(data)
    while rest:
        done = f.write(rest)
        if not done:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rest = rest[done:]


def sync_folder(path: Path) -> None:
    """Make renames in `path` durable (a no-op where folders can't be opened or flushed, as on
    Windows)."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """OSErrors inside become one line that begins with `what`."""
    try:
        yield
    except OSError as error:
        raise FastganError(f"{what}: {error.strerror or error}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Make `path` hold `data`; after a failure it holds the old or the new, with nothing beside it.

    Raises OSError, also where a folder, pipe or device is there, which is not replaced.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(mode := path.stat().st_mode):
            there = "folder" if stat.S_ISDIR(mode) else "pipe or device"
            raise OSError(errno.EEXIST, f"a {there} is there")
    partial = _partial(path)
    try:
        write(partial, data)
        os.replace(partial, path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def replace(path: Path, data: bytes) -> None:
    """`write_atomically` for what must not be lost. Raises FastganError."""
    with explained(f"can't write {path}"):
        write_atomically(path, data)


def make_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Atomically make a folder `path` with exactly these files; one that is there already is
    replaced.

    At every moment the old or the new folder is whole, under its name or under one that `sweep`
    brings back. After a failure nothing is left beside. Raises FastganError.
    """
    partial, aside = _partial(path), path.with_name(ASIDE + path.name)
    with explained(f"can't write {path}"):
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for name, data in files.items():
                write(partial / name, data)
            sync_folder(partial)
            if kind(path) is not None:
                os.replace(path, aside)
            os.replace(partial, path)
            sync_folder(path.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            with contextlib.suppress(OSError):
                _settle(aside)
            raise
    shutil.rmtree(aside, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder so that no half of it is ever seen under its name. Raises OSError."""
    partial = _partial(path)
    shutil.rmtree(partial, ignore_errors=True)
    os.replace(path, partial)
    shutil.rmtree(partial, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what interrupted writers left behind in `folder`; only the owner of the folder may
    call it. Raises FastganError."""
    with explained(f"can't clear {folder}"):
        for left in folder.glob(f"{ASIDE}*"):
            _settle(left)
        for left in folder.glob(f"{TEMPORARY}*"):
            remove(left)


def remove(path: Path) -> None:
    """Remove a file, or a folder and all in it. Raises OSError."""
    if kind(path, follow=False) == "folder":
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def save_with(path: Path, save: Callable[..., None]) -> None:
    """Atomically write what `save(file object)` writes, such as a picture. Raises FastganError."""
    buffer = io.BytesIO()
    save(buffer)
    replace(path, buffer.getvalue())


def _partial(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{threading.get_native_id()}-{path.name}")


def _settle(aside: Path) -> None:
    """A folder that was put aside goes back to its name, unless its successor has taken it."""
    path = aside.with_name(aside.name.removeprefix(ASIDE))
    if kind(path) is not None:
        remove(aside)
    elif kind(aside) is not None:
        os.replace(aside, path)
