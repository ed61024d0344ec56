"""Names of what others put into a run folder."""

from __future__ import annotations

import os

from fastgan.errors import FastganError

LOGGERS = ("tensorboard", "wandb", "mlflow")
"""Also the folders that they make inside the run folder."""

REPORT, EVALUATION, COPIES = "report.html", "evaluation.json", "copies.png"
"""What `fastgan report` and `fastgan evaluate` leave there; COPIES has samples above the real
images that they are nearest to."""

TRAVERSALS = "traversal-*.png"
"""Pictures of one input that changes, each named after its input."""

CUT = "cut-off"
"""Lies in a run that has gone back to an older checkpoint, until it has a new one."""


def no_run(path: str | os.PathLike[str]) -> FastganError:
    """Of a folder without a run."""
    return FastganError(f"{path} is not a run: no run.json in it")
