"""Checkpoints written while training goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path


class CheckpointWriter:
    """Writes one checkpoint after the other, at once or on a thread of its own."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._writing: Future[Path] | None = None
        self._written: list[Path] = []

    def write(self, job: Callable[[], Path], *, behind: bool) -> None:
        """Call `job`, which writes a checkpoint and returns its folder; behind: on the thread.
        First waits for the one before. Raises what that one, or `job` where it is waited for,
        raised."""
        self.settle()
        if not behind:
            job()
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="fastgan-checkpoint")
        self._writing = self._pool.submit(job)

    def settle(self) -> None:
        """Wait for what is being written. Raises what it raised."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            self._written.append(writing.result())

    def take(self) -> list[Path]:
        """The folders of the checkpoints that the thread has written since the last call; waits
        for none. Raises what one that failed raised."""
        if self._writing is not None and self._writing.done():
            self.settle()
        written, self._written = self._written, []
        return written

    def close(self) -> None:
        """Wait, and let go of the thread. Raises what the last checkpoint raised."""
        try:
            self.settle()
        finally:
            if self._pool is not None:
                self._pool.shutdown()
                self._pool = None
