"""Metric rows to TensorBoard or Weights & Biases, only where asked for; neither ever prompts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fastgan.errors import FastganError


class Logger(Protocol):
    def row(self, step: int, row: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files beside the run's other files."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise FastganError(f"TensorBoard is not installed ({error}): pip install 'fastgan[tensorboard]'") from error
        self.writer: Any = SummaryWriter(str(folder / "tensorboard"))

    def row(self, step: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class Wandb:
    """A Weights & Biases run, offline unless WANDB_MODE says otherwise."""

    def __init__(self, folder: Path) -> None:
        try:
            import wandb
        except ImportError as error:
            raise FastganError("Weights & Biases is not installed: pip install 'fastgan[wandb]'") from error
        self.run: Any = wandb.init(
            project="fastgan", name=folder.name, dir=str(folder), mode=os.environ.get("WANDB_MODE", "offline")
        )

    def row(self, step: int, row: Mapping[str, float]) -> None:
        self.run.log(dict(row), step=step)

    def close(self) -> None:
        self.run.finish()


def open_logger(name: str | None, out: str | Path | None) -> Logger | None:
    """The logger of that name. Raises FastganError for an unknown one, a missing package, or no run folder."""
    if name is None:
        return None
    if name not in ("tensorboard", "wandb"):
        raise FastganError(f"unknown log {name!r}: choose tensorboard or wandb")
    if out is None:
        raise FastganError(f"log={name!r} needs out=, the run folder")
    folder = Path(out).expanduser()
    return TensorBoard(folder) if name == "tensorboard" else Wandb(folder)
