"""A run to TensorBoard, Weights & Biases or MLflow too, only where asked for; none ever prompts."""

from __future__ import annotations

import importlib
import os
import re
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fastgan import files
from fastgan.errors import FastganError
from fastgan.runs.layout import LOGGERS

RUN_ID = "run-id"
"""Holds the id by which a run that goes on is the same run at Weights & Biases or MLflow."""


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


def known_id(folder: Path) -> str | None:
    known = folder / RUN_ID
    return files.read(known, 1000).decode().strip() if files.kind(known) is not None else None


def keep_id(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    files.replace(folder / RUN_ID, f"{name}\n".encode())


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
        same = known_id(folder / "wandb")
        self.run: Any = wandb.init(
            project="fastgan",
            name=folder.name,
            dir=str(folder),
            config=dict(config),
            id=same,
            resume="allow" if same else None,
            mode=os.environ.get("WANDB_MODE", "offline"),
        )
        keep_id(folder / "wandb", self.run.id)

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


class MLflow:
    """An MLflow run: in files in mlflow/, or where MLFLOW_TRACKING_URI says.

    A `/` in a metric's name is a point there: in files `loss/D` can't lie beside `loss/D/adv`.
    Options are params; as these never change, those that did are tags `changed.<option>`.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        home = folder / "mlflow"
        same = known_id(home)
        where = os.environ.get("MLFLOW_TRACKING_URI")
        if not where:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # it refuses files otherwise
            _own_store(home, step)
        self.client: Any = MlflowClient(where or home.absolute().as_uri())
        if same is None:
            known = self.client.get_experiment_by_name("fastgan")
            experiment = known.experiment_id if known else self.client.create_experiment("fastgan")
            same = self.client.create_run(experiment, run_name=folder.name).info.run_id
            keep_id(home, same)
        else:
            self.client.update_run(same, status="RUNNING")
        self.id: str = same
        before = self.client.get_run(same).data
        for tag in before.tags:
            if re.fullmatch(r"alert\.\d{8,}", tag) and int(tag.removeprefix("alert.")) > step:
                self.client.delete_tag(same, tag)
        options = {
            name: str(value)[:LONGEST] for name, value in config.items() if value is not None
        }
        new = [Param(name, options[name]) for name in options if name not in before.params]
        for first in range(0, len(new), 100):  # more at once are refused
            self.client.log_batch(same, params=new[first : first + 100])
        for name, value in options.items():
            tag = f"changed.{name}"
            if tag in before.tags or before.params.get(name, value) != value:
                self.client.set_tag(same, tag, value)

    def row(self, step: int, row: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        named = {re.sub(r"[^\w\-. :]", ".", name): value for name, value in row.items()}
        metrics = [self._metric(name, value, now, step) for name, value in named.items()]
        self.client.log_batch(self.id, metrics=metrics)

    def picture(self, name: str, step: int, image: np.ndarray) -> None:
        self.client.log_image(self.id, image, artifact_file=f"{name}/{step:08d}.png")

    def alert(self, step: int, line: str) -> None:
        tag = f"alert.{step:08d}"
        said = self.client.get_run(self.id).data.tags.get(tag)
        self.client.set_tag(self.id, tag, f"{said}\n{line}"[:LONGEST] if said else line[:LONGEST])

    def flush(self) -> None:
        pass  # each call has written

    def close(self) -> None:
        self.client.set_terminated(self.id)


LONGEST = 500
"""Characters of a param or a tag that every version of MLflow takes."""


def _own_store(home: Path, step: int) -> None:
    """Make the files of an MLflow run what they were at that step, wherever the run lies now.

    Raises FastganError where one of them is also elsewhere: MLflow would write there.
    """
    import yaml  # MLflow brings it

    for path in home.rglob("*"):
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink > 1):
            raise FastganError(f"{path} is a link, or the same file as another one")
    for pattern, key, below in (
        ("*/meta.yaml", "artifact_location", ""),
        ("*/*/meta.yaml", "artifact_uri", "artifacts"),
    ):
        for path in home.glob(pattern):
            meta = yaml.safe_load(files.read(path, 10**6))
            here = (path.absolute().parent / below).as_uri()
            if meta.get(key) != here:
                files.replace(path, yaml.safe_dump({**meta, key: here}).encode())
    for path in (p for p in home.glob("*/*/metrics/**/*") if files.kind(p) == "file"):
        lines = files.read(path).splitlines(keepends=True)  # timestamp, value, step
        kept = [line for line in lines if int(line.split()[2]) <= step]
        if len(kept) < len(lines):
            files.replace(path, b"".join(kept)) if kept else path.unlink()
    for path in home.glob("*/*/artifacts/samples/*.png"):
        if path.stem.isdecimal() and int(path.stem) > step:
            path.unlink()


KNOWN: dict[str, tuple[str, str, type[Logger]]] = {
    "tensorboard": ("TensorBoard", "torch.utils.tensorboard", TensorBoard),
    "wandb": ("Weights & Biases", "wandb", Wandb),
    "mlflow": ("MLflow", "mlflow.tracking", MLflow),
}
"""By name: a title, what is imported, the logger."""


def find_logger(name: str | None, out: str | Path | None) -> type[Logger] | None:
    """The logger of that name, which has written nothing yet.

    Raises FastganError for an unknown one, no run folder, or a package that can't be imported.
    """
    if name is None:
        return None
    if name not in LOGGERS:
        raise FastganError(f"unknown log {name!r}: choose {', '.join(LOGGERS)}")
    if out is None:
        raise FastganError(f"log={name!r} needs out=, the run folder")
    title, module, logger = KNOWN[name]
    if name == "mlflow":  # read as it is imported: nothing is sent to its makers unasked
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        importlib.import_module(module)
    except ImportError as error:
        why = " ".join(str(error).split())
        raise FastganError(
            f"{title} can't be imported ({why}): pip install 'fastgan[{name}]'"
        ) from error
    return logger
