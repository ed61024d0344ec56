"""A process of a distributed run that fails ends the others too, in seconds and with a line that
says why.

Without it they wait in the next collective until it times out: ten minutes on GPUs, half an hour on
the CPU.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch.distributed as dist

from fastgan.errors import FastganError

KEY = "fastgan/failed"
LOOK_EVERY = 0.5
GRACE = 5.0
"""Seconds in which a process may come out of a collective by itself: gloo closes its connections, a
GPU kernel waits on."""


class FailFast:
    """Ends all processes where one fails.

    The first that fails writes its number and cause under one key of the store that all share. A
    thread of each process polls that key.
    """

    def __init__(self, store: Any, rank: int) -> None:
        self.store, self.rank = store, rank
        self.depth = 0
        self.word: tuple[int, str] | None = None
        self.failed = False
        self._done = threading.Event()
        self._seen = threading.Event()
        self._thread = threading.Thread(target=self._look_out, name="fastgan-alarm", daemon=True)
        self._thread.start()

    def raise_it(self, error: BaseException) -> None:
        """Tell the others that this process can't go on; the cause written first stays."""
        self.failed = True
        lines = str(error).splitlines() or [""]
        known = isinstance(error, FastganError) or not lines[0]
        word = lines[0] or type(error).__name__ if known else f"{type(error).__name__}: {lines[0]}"
        with suppress(
            RuntimeError, ValueError
        ):  # the store may have gone with the process that held it
            self.store.compare_set(KEY, "", f"{self.rank} {word}")

    def heard(self, within: float) -> tuple[int, str] | None:
        """(rank, why) of another process that failed, waiting for its word a little; None where
        there is none."""
        self._seen.wait(within)
        return self.word if self.word is not None and self.word[0] != self.rank else None

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """A failure inside ends all processes. What another's failure breaks here becomes one
        FastganError that names it."""
        if self.depth == 0 and (word := self.heard(0)) is not None:
            raise FastganError(said(word))
        self.depth += 1
        try:
            yield
        except BaseException as error:
            if not broken_off(error):
                self.raise_it(error)
                raise
            word = self.heard(GRACE)
            if word is None:
                said_here = (str(error).splitlines() or [""])[0]
                lost = FastganError(
                    "lost another process of this run: it was killed, or its machine is gone "
                    f"({said_here})"
                )
                self.raise_it(lost)
                raise lost from error
            raise FastganError(said(word)) from error
        finally:
            self.depth -= 1

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _look_out(self) -> None:
        while not self._done.wait(LOOK_EVERY):
            try:
                if not self.store.check([KEY]):
                    continue
                rank, _, why = self.store.get(KEY).decode().partition(" ")
            except (RuntimeError, ValueError):
                return  # the store has gone: collectives fail by themselves
            self.word, self.failed = (int(rank), why), True
            self._seen.set()
            if self.word[0] != self.rank:
                self._end_if_stuck()
            return

    def _end_if_stuck(self) -> None:
        """End this process where it can't be told otherwise: it waits for the one that failed, and
        nothing interrupts that."""
        assert self.word is not None
        until = time.monotonic() + GRACE
        while time.monotonic() < until:
            if self.depth == 0 or self._done.wait(0.1):
                return
        print(f"fastgan: {said(self.word)}", file=sys.stderr, flush=True)
        os._exit(2)


def said(word: tuple[int, str]) -> str:
    return f"process {word[0]} failed and ended the run: {word[1]}"


def broken_off(error: BaseException) -> bool:
    """Whether an error is what a collective raises where another process has gone."""
    if isinstance(error, dist.DistError):
        return True
    words = (
        "gloo",
        "nccl",
        "connection closed",
        "connection reset",
        "broken pipe",
        "connection refused",
        "socket",
    )
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
