"""Names of what others put into a run folder."""

from __future__ import annotations

LOGGERS = ("tensorboard", "wandb")
"""Also the folders that they make inside the run folder."""

REPORT, EVALUATION = "report.html", "evaluation.json"
"""What `fastgan report` and `fastgan evaluate` leave there."""
