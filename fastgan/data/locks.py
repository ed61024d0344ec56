"""Locks between processes that build the same cache entry, on every system."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from fastgan.errors import FastganError


@contextlib.contextmanager
def plain_errors(directory: Path, need: int | None = None) -> Iterator[None]:
    """Turn "disk full" and "may not write" into one line with the remedy."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        room = f" ({need / 2**20:,.0f} MiB are needed)" if need and full else ""
        raise FastganError(
            f"cannot write the image cache in {directory}: {error.strerror or error}{room}; "
            "set FASTGAN_CACHE to a writable directory with room"
        ) from error
