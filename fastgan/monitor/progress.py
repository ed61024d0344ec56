"""Progress of a training run: a bar on a terminal, plain lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TextIO

REFRESH = 0.5
"""Seconds between two refreshes (bar) or two lines (log file), on every stream."""

GONE = (OSError, ValueError)
"""What a reader that went away (`| head`, a closed terminal, a full disk under a log) raises: no
reason to stop training."""


class Progress:
    """Shows `step` of `total` with images/s, the losses and the time left.

    total: last step. start: the step a resumed run begins at, so that the time left counts only
        what this process does.
    seconds: the run ends after that time, whatever step it has reached.
    stream: default standard error. On a terminal a tqdm bar is redrawn at most twice a second.
    Anywhere else one plain line is written at most twice a second, then ever more rarely (after t
    seconds, one each t/50), so that a run of days leaves a readable log; the last state is always
    written by `close`.
    """

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        stream: TextIO | None = None,
        label: str = "",
        seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds = seconds
        self.total, self.start, self.label = int(total), int(start), label
        self.stream = stream if stream is not None else sys.stderr
        self.clock = clock
        self.began = clock()
        self.shown_at = -float("inf")
        self.step, self.shown_step = self.start, -1
        self.rate: float | None = None
        self.row: dict[str, float] = {}
        self.closed = False
        self.bar: Any = None
        if _is_terminal(self.stream):
            from tqdm import tqdm

            self.bar = tqdm(
                total=self.total,
                initial=self.start,
                file=self.stream,
                desc=label or None,
                mininterval=REFRESH,
                dynamic_ncols=True,
                bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}"
                + ("{postfix}]" if seconds is not None else "<{remaining}{postfix}]"),
            )
            self.bar.monitor_interval = 0

    def update(
        self, step: int, images_per_s: float | None = None, row: Mapping[str, Any] | None = None
    ) -> None:
        """Record that `step` is done; `row` replaces the metrics shown. Cheap between refreshes."""
        self.step = int(step)
        if images_per_s is not None:
            self.rate = float(images_per_s)
        if row:
            self.row = {
                k: float(v)
                for k, v in row.items()
                if isinstance(v, (int, float)) and _worth_showing(k)
            }
        now = self.clock()
        wait = REFRESH if self.bar is not None else max(REFRESH, (now - self.began) / 50)
        if now - self.shown_at >= wait:
            self._show(now)

    def write(self, line: str) -> None:
        """Print a line above the bar, or between the log lines."""
        if self.bar is not None:
            with suppress(*GONE):
                self.bar.write(line, file=self.stream)
        else:
            self._print(line)

    def close(self) -> None:
        """Show the last state and leave the terminal in order. Safe to call twice."""
        if self.closed:
            return
        self.closed = True
        if self.step != self.shown_step and (self.step != self.start or self.bar is not None):
            self._show(self.clock())
        if self.bar is not None:
            with suppress(*GONE):
                self.bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _show(self, now: float) -> None:
        self.shown_at, self.shown_step = now, self.step
        if self.bar is not None:
            limit = [f"{self._left(now)} left"] if self.seconds is not None else []
            self.bar.set_postfix_str(", ".join(limit + self._facts()), refresh=False)
            self.bar.n = self.step
            with suppress(*GONE):
                self.bar.refresh()
            return
        share = 100 * self.step / self.total if self.total else 100.0
        parts = [
            f"step {self.step:>{len(str(self.total))}}/{self.total} ({share:3.0f} %)",
            *self._facts(),
        ]
        if self.step > self.start:
            done = self.step >= self.total or self.closed
            parts.append(
                f"took {duration(now - self.began)}" if done else f"{self._left(now)} left"
            )
        self._print((f"{self.label}: " if self.label else "") + "  ".join(parts))

    def _left(self, now: float) -> str:
        """The time left at the speed so far, or until the time limit where that comes first."""
        spent, done = now - self.began, max(self.step - self.start, 1)
        left = spent * (self.total - self.step) / done
        return duration(max(left if self.seconds is None else min(left, self.seconds - spent), 0.0))

    def _facts(self) -> list[str]:
        facts = [f"{self.rate:,.0f} img/s"] if self.rate is not None else []
        return facts + [f"{_short(key)} {value:.3g}" for key, value in self.row.items()]

    def _print(self, line: str) -> None:
        with suppress(*GONE):
            self.stream.write(line + "\n")
            self.stream.flush()


def duration(seconds: float) -> str:
    """`12 s`, `3 min 05 s`, `2 h 07 min`, `3 d 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _worth_showing(key: str) -> bool:
    parts = key.lower().split("/")
    return parts[0] == "loss" and len(parts) == 2


def _short(key: str) -> str:
    """`loss/D` -> `D`: the bar is short of room, and losses are what it shows."""
    return "loss " + key.split("/", 1)[1]
