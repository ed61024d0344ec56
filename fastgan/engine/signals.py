"""SIGINT and SIGTERM as a wish to stop, seen between steps."""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Any


class StopWish:
    """A context in which SIGINT and SIGTERM set `name`; a second SIGINT raises KeyboardInterrupt at once.

    Only the main thread may install handlers; in other threads this does nothing.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[int, Any] = {}

    def _ask(self, number: int, _: Any) -> None:
        if self.name == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name

    def __enter__(self) -> StopWish:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
