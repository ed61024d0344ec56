"""Signals that ask a process to end: they set a flag that the trainer reads between steps."""

from __future__ import annotations

import os
import signal
import threading
from types import TracebackType
from typing import Any

STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
"""Ctrl-C, `kill`, a closed terminal, a batch system's warning (SLURM's --signal=USR1@60)."""

IGNORABLE = ("SIGHUP", "SIGUSR1")
"""Stay ignored where they are: `nohup` means that a run outlives its terminal."""


class GracefulStop:
    """A context in which these signals set `name`; a second SIGINT raises KeyboardInterrupt at
    once.

    Only the main thread may install handlers; in other threads signals do nothing here.
    parent: the process that started this one and whose end counts as SIGHUP: torchrun,
    which has no time to tell its processes when it is killed.
    """

    def __init__(self, parent: int | None = None) -> None:
        self._name: str | None = None
        self._parent = parent
        self._before: dict[int, Any] = {}

    @property
    def name(self) -> str | None:
        """The signal that came, or None."""
        if self._name is None and self._parent is not None and os.getppid() != self._parent:
            self._name = "SIGHUP"
        return self._name

    def _ask(self, number: int, _: Any) -> None:
        if self._name == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._name = signal.Signals(number).name

    def __enter__(self) -> GracefulStop:
        if threading.current_thread() is threading.main_thread():
            numbers = {name: getattr(signal, name) for name in STOPPING if hasattr(signal, name)}
            self._before = {
                number: signal.signal(number, self._ask)
                for name, number in numbers.items()
                if name not in IGNORABLE or signal.getsignal(number) is not signal.SIG_IGN
            }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
