"""Progress of a training run: a bar on a terminal, plain lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TextIO

REFRESH = 0.5
"""Seconds between two refreshes (bar) or two lines (log file), on every stream."""

BAR = 6
"""Columns that what stands beside it leaves to a bar, at least."""

GONE = (OSError, ValueError)
"""What a reader that went away (`| head`, a closed terminal, a full disk under a log) raises: no
reason to stop training."""


class Progress:
    """Shows `step` of `total` with images/s, the losses and the time left.

    total: last step. start: the step a resumed run begins at, so that the time left counts only
        what this process does.
    seconds: the run ends after that time, whatever step it has reached. What is shown then counts
        time, or steps where those will be done before: whichever of both is further on.
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
                total=self.total if seconds is None else 1.0,
                initial=self.start if seconds is None else 0.0,
                file=self.stream,
                desc=label or None,
                mininterval=REFRESH,
                dynamic_ncols=True,
                bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
                if seconds is None
                else "{l_bar}{bar}| ",
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
            if self.seconds is None:
                self.bar.set_postfix_str(", ".join(self._facts()), refresh=False)
                self.bar.n = self.step
            else:
                by_time, by_steps = self._shares(now)
                self.bar.n = max(by_time, by_steps)
                text = self._timed(now, by_steps > by_time)
                self.bar.bar_format = "{l_bar}{bar}| " + text.replace("{", "{{").replace("}", "}}")
            with suppress(*GONE):
                self.bar.refresh()
            return
        done = self.step >= self.total or self.closed
        left = f"took {duration(now - self.began)}" if done else f"{self._left(now)} left"
        if self.seconds is None:
            share = 100 * self.step / self.total if self.total else 100.0
            where = [f"step {self.step:>{len(str(self.total))}}/{self.total} ({share:3.0f} %)"]
        else:
            by_time, by_steps = self._shares(now)
            passed = f"{duration(min(now - self.began, self.seconds))} of {whole(self.seconds)}"
            where = [
                f"{passed} ({100 * max(by_time, by_steps):3.0f} %)",
                f"step {self._counted(by_steps > by_time)}",
            ]
        parts = [*where, *self._facts(), *([left] if self.step > self.start else [])]
        self._print((f"{self.label}: " if self.label else "") + "  ".join(parts))

    def _shares(self, now: float) -> tuple[float, float]:
        """How much of the time limit has passed, and how many of the steps left at the start are
        done, in [0, 1]: at a steady speed the larger one will be 1 first."""
        assert self.seconds is not None
        steps = max(self.total - self.start, 1)
        return min((now - self.began) / self.seconds, 1.0), min(self._done / steps, 1.0)

    @property
    def _done(self) -> int:
        return max(self.step - self.start, 0)

    def _timed(self, now: float, steps_first: bool) -> str:
        """Behind the bar of a limited run: `10:12/30:00 [19:48 left, step 1234, 119 img/s, ...]`;
        with the last step where that will come before the time is over."""
        assert self.seconds is not None
        passed = f"{as_clock(min(now - self.began, self.seconds))}/{as_clock(self.seconds)}"
        left = f"{as_clock(self._seconds_left(now))} left"
        shown = f"{passed} [{left}, step {self._counted(steps_first)}"
        room = (self.bar.format_dict["ncols"] or 1000) - len("100%|| ]") - BAR
        for fact in [*self._losses(), *self._speed()]:
            if len(shown) + len(fact) + 2 <= room:
                shown += f", {fact}"
        return f"{shown}]"

    def _counted(self, steps_first: bool) -> str:
        return f"{self.step}/{self.total}" if steps_first else str(self.step)

    def _left(self, now: float) -> str:
        return duration(self._seconds_left(now))

    def _seconds_left(self, now: float) -> float:
        """The time left at the speed so far, or until the time limit where that comes first."""
        spent = now - self.began
        left = spent * (self.total - self.step) / max(self._done, 1)
        limit = [] if self.seconds is None else [self.seconds - spent]
        return max(min([left, *limit] if self._done else limit or [left]), 0.0)

    def _facts(self) -> list[str]:
        return [*self._speed(), *self._losses()]

    def _speed(self) -> list[str]:
        return [f"{self.rate:,.0f} img/s"] if self.rate is not None else []

    def _losses(self) -> list[str]:
        return [f"{_short(key)} {value:.3g}" for key, value in self.row.items()]

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


def whole(seconds: float) -> str:
    """A duration as people give it: `30 min`, `1 h`."""
    return duration(seconds).removesuffix(" 00 s").removesuffix(" 00 min")


def as_clock(seconds: float) -> str:
    """`0:59`, `30:00`, `2:07:30`: as a bar shows time."""
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole:02d}" if hours else f"{minutes}:{whole:02d}"


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
