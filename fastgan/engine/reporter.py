"""What a run tells while it trains: metric rows, alerts, pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from fastgan import pictures
from fastgan.engine import files
from fastgan.engine.loggers import Logger
from fastgan.engine.progress import Progress
from fastgan.engine.run import RunFolder
from fastgan.engine.watch import Watch
from fastgan.errors import FastganError


class Reporter:
    """Writes rows, alerts and pictures into the run folder (None: nowhere), and shows them on the progress line (None:
    quietly).
    """

    def __init__(self, folder: RunFolder | None, watch: Watch | None, logger: Logger | None) -> None:
        self.folder, self.watch, self.logger = folder, watch, logger
        self.progress: Progress | None = None

    def row(self, step: int, images: int, row: Mapping[str, float], images_per_s: float, window: int) -> None:
        """One row of means over the last `window` steps. Raises FastganError where one is not finite."""
        bad = [name for name, value in row.items() if not math.isfinite(value)]
        if bad:
            self.diverged(f"{', '.join(bad)} is not finite between steps {step - window + 1} and {step}")
        full = {"step": step, "images": images, **row, "images_per_s": round(images_per_s, 2), "time": round(time.time(), 2)}
        if self.folder is not None:
            self.folder.append(self.folder.metrics, full)
        if self.logger is not None:
            self.logger.row(step, row)
        if self.progress is not None:
            self.progress.update(step, images_per_s, row)
        if self.watch is not None:
            self.tell(self.watch.observe(step, dict(row)))

    def diverged(self, evidence: str) -> None:
        """Raises FastganError naming the last good checkpoint and a remedy."""
        good = "there is no checkpoint yet"
        if self.folder is not None and (steps := self.folder.checkpoints.steps()):
            good = f"the last good checkpoint is {self.folder.checkpoints.path(steps[-1])}"
        raise FastganError(f"training diverged: {evidence}; {good}. Lower the learning rate, or use --precision fp32")

    def tell(self, alerts: Sequence[Any]) -> None:
        for alert in alerts:
            self.say(str(alert))
            if self.folder is not None:
                row = {"step": alert.step, "cause": alert.cause, "evidence": alert.evidence, "remedy": alert.remedy}
                self.folder.append(self.folder.alerts, row)

    def say(self, line: str) -> None:
        if self.progress is not None:
            self.progress.write(line)

    def picture(self, name: str, images: Tensor) -> None:
        """A grid of images (n, C, H, W) in [0, 1], where they are grey or RGB."""
        if self.folder is not None and images.shape[1] in (1, 3):
            self._save(name, lambda f: pictures.save_grid(f, images))

    def curves(self) -> None:
        if self.folder is not None and (rows := self.folder.rows(self.folder.metrics)):
            self._save("curves.png", lambda f: pictures.curves(rows, f))

    def _save(self, name: str, draw: Callable[[Any], None]) -> None:
        assert self.folder is not None
        files.save_with(self.folder.path / name, draw)

    def close(self) -> None:
        if self.folder is not None:
            self.folder.close()
        if self.logger is not None:
            self.logger.close()
