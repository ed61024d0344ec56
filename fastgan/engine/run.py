"""The folder a run leaves: what lies where, and how metric rows stay whole through crashes."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from fastgan.engine import files
from fastgan.engine.checkpoint import Checkpoints
from fastgan.errors import FastganError

TIME_FIELDS = ("time", "images_per_s")


class RunFolder:
    """config.toml, run.json, metrics.jsonl, metrics.csv, alerts.jsonl, reals.png, curves.png, samples/, checkpoints/."""

    def __init__(self, path: str | Path, *, keep: int = 3) -> None:
        self.path = Path(path).expanduser()
        self.checkpoints = Checkpoints(self.path / "checkpoints", keep)
        self._lock: Any = None

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def alerts(self) -> Path:
        return self.path / "alerts.jsonl"

    def exists(self) -> bool:
        """Whether a run (or anything else) already lies here."""
        return self.path.exists() and (not self.path.is_dir() or any(p.name != "run.lock" for p in self.path.iterdir()))

    def create(self) -> None:
        """Make the folder for a new run. Raises FastganError where something lies there already."""
        if self.exists():
            raise FastganError(f"{self.path} exists already: choose another --out, or go on with it by --resume {self.path}")
        self._make()

    def open(self) -> None:
        """Take an existing run and clear what an interrupted writer left.

        Raises FastganError where there is no run or another process has it.
        """
        if not (self.path / "run.json").is_file():
            raise FastganError(f"{self.path} is not a run: no run.json in it")
        self._make()
        for folder in (self.path, self.path / "samples", self.path / "checkpoints"):
            files.sweep(folder)

    def _make(self) -> None:
        try:
            (self.path / "samples").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FastganError(f"can't write to {self.path}: {error.strerror}") from error
        self._take_lock()

    def _take_lock(self) -> None:
        try:
            import fcntl
        except ImportError:
            return
        self._lock = open(self.path / "run.lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            self._lock = None
            raise FastganError(f"another process is training in {self.path}: wait for it or choose another --out") from None

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write(self, name: str, data: bytes | str) -> None:
        files.replace(self.path / name, data.encode() if isinstance(data, str) else data)

    def append(self, path: Path, row: dict[str, Any]) -> None:
        """Append one line; a torn last line is dropped by `rewind`."""
        try:
            with open(path, "a") as f:
                f.write(json.dumps(row) + "\n")
        except OSError as error:
            raise FastganError(f"can't write {path}: {error.strerror}") from error

    def sync_rows(self) -> None:
        """Flush rows to the disk before a checkpoint that stands after them is made, and bring metrics.csv up to date."""
        for path in (self.metrics, self.alerts):
            if path.exists():
                with open(path, "rb") as f:
                    os.fsync(f.fileno())
        self.write("metrics.csv", as_csv(self.rows(self.metrics)))

    def rows(self, path: Path) -> list[dict[str, Any]]:
        """The whole lines of a .jsonl file."""
        found: list[dict[str, Any]] = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    found.append(json.loads(line))
                except json.JSONDecodeError:
                    break
        return found

    def rewind(self, step: int) -> None:
        """Drop rows of steps after `step`: they are trained again."""
        for path in (self.metrics, self.alerts):
            rows = self.rows(path)
            kept = [row for row in rows if row["step"] <= step]
            text = "".join(json.dumps(row) + "\n" for row in kept)
            if path.exists() and path.read_text() != text:
                files.replace(path, text.encode())
        self.write("metrics.csv", as_csv(self.rows(self.metrics)))


def as_csv(rows: list[dict[str, Any]]) -> str:
    """CSV of rows whose columns may differ; absent values are empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
