"""A run to TensorBoard or Weights & Biases too, only where asked for; neither ever prompts."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fastgan import files
from fastgan.errors import FastganError
from fastgan.runs.layout import LOGGERS

WANDB_ID = "run-id"
"""Holds the id by which a run that goes on is the same run at Weights & Biases."""


class Logger(Protocol):
    """Opened in a run folder that exists; `step` is the step that a resumed run goes on from."""

    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None: ...

    def row(self, step: int, row: Mapping[str, float]) -> None: ...

    def picture(self, name: str, step: int, image: np.ndarray) -> None:
        """image: uint8 (H, W, 3)."""

    def alert(self, step: int, line: str) -> None: ...

    def flush(self) -> None:
        """Called with every checkpoint: what was logged before it is not lost."""

    def close(self) -> None: ...


class TensorBoard:
    """Event files in tensorboard/."""

    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Steps that are trained again replace those of a run that was killed after its checkpoint.
        self.writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        lines = [f"| {name} | {value} |" for name, value in config.items() if value is not None]
        self.writer.add_text(
            "options", "\n".join(["| option | value |", "|---|---|", *lines]), step
        )
        self.writer.flush()

    def row(self, step: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, name: str, step: int, image: np.ndarray) -> None:
        self.writer.add_image(name, image, step, dataformats="HWC")

    def alert(self, step: int, line: str) -> None:
        self.writer.add_text("alerts", line, step)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Wandb:
    """A Weights & Biases run, offline unless WANDB_MODE says otherwise."""

    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        import wandb

        self._wandb = wandb
        known = folder / "wandb" / WANDB_ID
        same = files.read(known, 1000).decode().strip() if files.kind(known) is not None else None
        self.run: Any = wandb.init(
            project="fastgan",
            name=folder.name,
            dir=str(folder),
            config=dict(config),
            id=same,
            resume="allow" if same else None,
            mode=os.environ.get("WANDB_MODE", "offline"),
        )
        known.parent.mkdir(exist_ok=True)
        files.replace(known, f"{self.run.id}\n".encode())

    def row(self, step: int, row: Mapping[str, float]) -> None:
        self.run.log(dict(row), step=step)

    def picture(self, name: str, step: int, image: np.ndarray) -> None:
        self.run.log({name: self._wandb.Image(image)}, step=step)

    def alert(self, step: int, line: str) -> None:
        self.run.alert(title="fastgan", text=line)

    def flush(self) -> None:
        pass  # its own process writes

    def close(self) -> None:
        self.run.finish()


def find_logger(name: str | None, out: str | Path | None) -> type[Logger] | None:
    """The logger of that name, which has written nothing yet.

    Raises FastganError for an unknown one, no run folder, or a package that can't be imported.
    """
    if name is None:
        return None
    if name not in LOGGERS:
        raise FastganError(f"unknown log {name!r}: choose {' or '.join(LOGGERS)}")
    if out is None:
        raise FastganError(f"log={name!r} needs out=, the run folder")
    try:
        importlib.import_module("torch.utils.tensorboard" if name == "tensorboard" else "wandb")
    except ImportError as error:
        title = "TensorBoard" if name == "tensorboard" else "Weights & Biases"
        why = " ".join(str(error).split())
        raise FastganError(
            f"{title} can't be imported ({why}): pip install 'fastgan[{name}]'"
        ) from error
    return TensorBoard if name == "tensorboard" else Wandb
