"""Files that are either whole or not there: written beside, flushed to the disk, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from fastgan.errors import FastganError

TEMPORARY = ".partial-"


def write(handle_path: Path, data: bytes) -> None:
    """Write and flush one new file; a building block, not atomic by itself."""
    with open(handle_path, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def sync_folder(path: Path) -> None:
    """Make renames in `path` durable (a no-op where folders can't be opened, as on Windows)."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except (OSError, PermissionError):
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace(path: Path, data: bytes) -> None:
    """Atomically make `path` hold `data`.

    After a failure the old content is untouched and nothing is left beside it. Raises FastganError.
    """
    partial = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        write(partial, data)
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise FastganError(f"can't write {path}: {error.strerror or error}") from error


def make_folder(path: Path, files: dict[str, bytes]) -> None:
    """Atomically make a new folder `path` with these files. After a failure nothing is left. Raises FastganError."""
    partial = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        partial.mkdir(parents=True)
        for name, data in files.items():
            write(partial / name, data)
        sync_folder(partial)
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise FastganError(f"can't write {path}: {error.strerror or error}") from error


def remove_folder(path: Path) -> None:
    """Remove a folder so that no half of it is ever seen under its name."""
    partial = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    os.replace(path, partial)
    shutil.rmtree(partial, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what interrupted writers left behind in `folder`; only the owner of the folder may call it."""
    if folder.is_dir():
        for left in folder.glob(f"{TEMPORARY}*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def save_with(path: Path, save: Callable[..., None]) -> None:
    """Atomically write what `save(file object)` writes, such as a picture."""
    import io

    buffer = io.BytesIO()
    save(buffer)
    replace(path, buffer.getvalue())
