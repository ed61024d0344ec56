"""What a run writes and prints while it trains: metric rows, alerts, pictures."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import numpy as np
from torch import Tensor

from fastgan import files
from fastgan.errors import FastganError
from fastgan.monitor import pictures
from fastgan.monitor.health import REMEDIES, Alert, Health
from fastgan.monitor.loggers import Logger
from fastgan.monitor.progress import GONE, Progress
from fastgan.runs.run_folder import RunFolder


class Diverged(FastganError):
    """Training can't go on from here."""

    def __init__(self, alert: Alert, message: str) -> None:
        super().__init__(message)
        self.alert = alert


class Reporter:
    """Writes rows, alerts and pictures into the run folder (None: nowhere) and to the logger (None:
    none), and shows them on the progress line (None: quietly).

    command: what to type against a cause that the watch names, or None where nothing can be.

    Attributes:
        armed: Whether an alert that a rescue may help with waits in `illness` instead of being
            told.
    """

    def __init__(
        self, folder: RunFolder | None, watch: Health | None, command: Callable[[str], str | None]
    ) -> None:
        self.folder, self.watch, self.command = folder, watch, command
        self.logger: Logger | None = None
        self.progress: Progress | None = None
        self.armed = False
        self.illness: Alert | None = None
        self._failing: dict[str, str] = {}

    @contextmanager
    def accessory(self, what: str) -> Iterator[None]:
        """Around all that a run can do without, which is all but its checkpoints: a failure inside
        costs one line, not the training. What fails again and again is named once, until it works
        again.
        """
        try:
            yield
            self._failing.pop(what, None)
        except Exception as error:  # loggers are other people's code
            why = " ".join(str(error).split()) or type(error).__name__
            line = why if isinstance(error, FastganError) else f"can't write {what}: {why}"
            known = what in self._failing or line in self._failing.values()
            self._failing.setdefault(what, line)
            if not known:
                self.warn(f"{line}; training goes on without it")

    def row(
        self, step: int, images: int, row: Mapping[str, float], images_per_s: float, window: int
    ) -> None:
        """One row of means over the last `window` steps. Raises FastganError where one is not
        finite."""
        bad = [name for name, value in row.items() if not math.isfinite(value)]
        if bad:
            self.diverged(
                step, f"{', '.join(bad)} is not finite between steps {step - window + 1} and {step}"
            )
        full = {
            "step": step,
            "images": images,
            **row,
            "images_per_s": round(images_per_s, 2),
            "time": round(time.time(), 2),
        }
        if self.folder is not None:
            with self.accessory("metrics.jsonl"):
                self.folder.append(self.folder.metrics, full)
        if self.logger is not None:
            with self.accessory("the log"):
                self.logger.row(step, {**row, "images_per_s": full["images_per_s"]})
        if self.progress is not None:
            self.progress.update(step, images_per_s, row)
        if self.watch is not None:
            self.tell(self.watch.observe(step, dict(row)))

    def diverged(self, step: int, evidence: str) -> None:
        """Raises Diverged naming the last good checkpoint and a remedy."""
        alert = Alert("non-finite", step, evidence, REMEDIES["non-finite"], step - 1)
        good = "there is no checkpoint yet"
        if self.folder is not None and (steps := self.folder.checkpoints.steps()):
            good = f"the last good checkpoint is {self.folder.checkpoints.path(steps[-1])}"
        typed = self.command("non-finite")
        if typed and self.folder is not None and self.folder.cut.at is not None:
            typed += f" --from-step {self.folder.cut.at}"  # else what was set aside is back then
        go_on = (
            f"Go on from there at half the rate: {typed}"
            if typed
            else "Start again with lower learning rates"
            if self.folder is None
            else "Go on from there with lower learning rates in optimizers= or schedules=, "
            "resume=True and reschedule=True"
        )
        raise Diverged(alert, f"training diverged: {evidence}; {good}. {go_on}")

    def tell(self, alerts: Sequence[Alert], *, quietly: bool = False) -> None:
        """Show alerts, unless an error says the same, and keep them."""
        for alert in alerts:
            if self.armed and alert.since is not None:
                self.illness = self.illness or alert
                continue
            if (typed := self.command(alert.cause)) is not None:
                alert = dataclasses.replace(alert, remedy=f"stop (Ctrl-C), then {typed}")
            if not quietly:
                self.say(str(alert))
            self.keep(alert)

    def keep(self, alert: Alert) -> None:
        """Write an alert down."""
        if self.folder is not None:
            row = {
                "step": alert.step,
                "cause": alert.cause,
                "evidence": alert.evidence,
                "remedy": alert.remedy,
            }
            with self.accessory("alerts.jsonl"):
                self.folder.append(self.folder.alerts, row)
        if self.logger is not None:
            with self.accessory("the log"):
                self.logger.alert(alert.step, str(alert))

    def say(self, line: str) -> None:
        if self.progress is not None:
            self.progress.write(line)

    def warn(self, line: str) -> None:
        """Say it even where there is no progress line."""
        if self.progress is not None:
            self.progress.write(f"fastgan: {line}")
        else:
            with suppress(*GONE):
                print(f"fastgan: {line}", file=sys.stderr)

    def picture(self, name: str, step: int, images: Tensor) -> None:
        """A grid of images (n, C, H, W) in [0, 1], grey, RGB or RGBA: `samples` of a step,
        or another name."""
        if self.folder is None or images.shape[1] not in pictures.DRAWN:
            return
        path = self.folder.path / (
            f"samples/{step:08d}.png" if name == "samples" else f"{name}.png"
        )
        with self.accessory(name):
            if files.kind(path.parent) != "folder":  # somebody may have tidied up
                path.parent.mkdir()
            files.save_with(path, lambda f: pictures.save_grid(f, images))
        if self.logger is not None:
            with self.accessory("the log"):
                self.logger.picture(name, step, np.asarray(pictures.grid(images)))

    def curves(self) -> None:
        if self.folder is None:
            return
        with self.accessory("curves.png"):
            if rows := self.folder.rows(self.folder.metrics):
                files.save_with(self.folder.path / "curves.png", lambda f: pictures.curves(rows, f))

    def sync(self) -> None:
        """Bring the rows of before to the disk, as part of a checkpoint."""
        if self.folder is not None:
            with self.accessory("metrics.jsonl"):
                self.folder.sync_rows()
            with self.accessory("metrics.csv"):
                self.folder.write_table()
        if self.logger is not None:
            with self.accessory("the log"):
                self.logger.flush()

    def close_logger(self) -> None:
        if self.logger is not None:
            with self.accessory("the log"):
                self.logger.close()
            self.logger = None

    def close(self) -> None:
        self.close_logger()
        if self.folder is not None:
            self.folder.close()
