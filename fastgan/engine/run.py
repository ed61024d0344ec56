"""The folder a run leaves: what lies where, and how metric rows stay whole through crashes."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from fastgan.engine import files, loggers
from fastgan.engine.checkpoint import Checkpoints
from fastgan.errors import FastganError

TIME_FIELDS = ("time", "images_per_s")

LOCK = "run.lock"
STARTING = f"{files.TEMPORARY}start"
"""Lies in a run folder from its making until the first checkpoint: a folder that has it never became a run."""

PICTURES = ("reals.png", "curves.png", "samples")
OWN = (
    "config.toml", "run.json", "metrics.jsonl", "metrics.csv", "alerts.jsonl", *PICTURES, *loggers.NAMES, "checkpoints", LOCK,
)  # fmt: skip


class RunFolder:
    """config.toml, run.json, metrics.jsonl, metrics.csv, alerts.jsonl, reals.png, curves.png, samples/, checkpoints/."""

    def __init__(self, path: str | Path, *, keep: int = 3) -> None:
        self.path = Path(path).expanduser()
        self.checkpoints = Checkpoints(self.path / "checkpoints", keep)
        self._lock: Any = None
        self._made: list[Path] = []
        self._pending: dict[Path, list[str]] = {}

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def alerts(self) -> Path:
        return self.path / "alerts.jsonl"

    def exists(self) -> bool:
        """Whether a run (or anything else) already lies here; the remains of a start that was interrupted do not count."""
        if not self.path.is_dir():
            return self.path.exists() or self.path.is_symlink()
        names = {p.name for p in self.path.iterdir()}
        if STARTING in names:
            names = {name for name in names - set(OWN) if not name.startswith((files.TEMPORARY, files.ASIDE))}
        return bool(names - {LOCK})

    def refuse_existing(self) -> None:
        """Raises FastganError where something lies here already."""
        if self.exists():
            raise FastganError(f"{self.path} exists already: choose another --out, or go on with it by --resume {self.path}")

    def create(self) -> None:
        """Make the folder for a new run; `begun` ends what this begins. Raises FastganError where something lies there."""
        with files.explained(f"can't write to {self.path}"):
            self.refuse_existing()
            self._made = [p for p in (self.path, *self.path.parents) if not p.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._take_lock()
                self._clear()
                files.write(self.path / STARTING, b"")
                (self.path / "samples").mkdir()
            except OSError:
                self.abandon()
                raise

    def begun(self) -> None:
        """The new run has all it needs to be resumed: from here on it is one. Raises FastganError."""
        with files.explained(f"can't write to {self.path}"):
            (self.path / STARTING).unlink()
            files.sync_folder(self.path)

    def abandon(self) -> None:
        """Leave nothing of a new run that could not begin."""
        with contextlib.suppress(OSError):
            self._clear()
        self.close()
        with contextlib.suppress(OSError):
            (self.path / LOCK).unlink(missing_ok=True)
            for folder in self._made:
                folder.rmdir()

    def open(self) -> None:
        """Take an existing run and clear what an interrupted writer left.

        Raises FastganError where there is no run or another process has it.
        """
        if not (self.path / "run.json").is_file():
            raise FastganError(f"{self.path} is not a run: no run.json in it")
        with files.explained(f"can't write to {self.path}"):
            self._take_lock()
            if (self.path / STARTING).exists():
                self.close()
                raise FastganError(f"the run in {self.path} was interrupted before it began: start it again, without resuming")
        for folder in (self.path, self.path / "samples", self.path / "checkpoints"):
            files.sweep(folder)

    def facts(self) -> dict[str, Any]:
        """What run.json holds. Raises FastganError."""
        return read_facts(self.path)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write(self, name: str, data: bytes | str) -> None:
        files.replace(self.path / name, data.encode() if isinstance(data, str) else data)

    def append(self, path: Path, row: dict[str, Any]) -> None:
        """Append one line. A row that can't be written is kept and written before the next one. Raises FastganError."""
        self._pending.setdefault(path, []).append(json.dumps(row) + "\n")
        self._flush(path)

    def _flush(self, path: Path) -> None:
        lines = self._pending.get(path)
        if not lines:
            return
        with files.explained(f"can't write {path}"), open(path, "ab", buffering=0) as f:
            whole = f.seek(0, os.SEEK_END)
            try:
                files.write_all(f, "".join(lines).encode())
            except OSError:
                with contextlib.suppress(OSError):
                    f.truncate(whole)
                raise
        lines.clear()

    def sync_rows(self) -> None:
        """Flush rows to the disk before a checkpoint that stands after them is made. Raises FastganError."""
        for path in (self.metrics, self.alerts):
            self._flush(path)
            if path.exists():
                with files.explained(f"can't write {path}"), open(path, "r+b", buffering=0) as f:
                    os.fsync(f.fileno())

    def write_table(self) -> None:
        """Bring metrics.csv up to date. Raises FastganError."""
        self.write("metrics.csv", as_csv(self.rows(self.metrics)))

    def rows(self, path: Path) -> list[dict[str, Any]]:
        """The whole lines of a .jsonl file; those that are damaged are left out."""
        found: list[dict[str, Any]] = []
        if path.exists():
            with files.explained(f"can't read {path}"):
                lines = path.read_bytes().splitlines()
            for line in lines:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict) and "step" in row:
                    found.append(row)
        return found

    def rewind(self, step: int) -> None:
        """Drop rows of steps after `step`: they are made again. Raises FastganError."""
        for path in (self.metrics, self.alerts):
            kept = "".join(json.dumps(row) + "\n" for row in self.rows(path) if row["step"] <= step).encode()
            if path.exists() and path.read_bytes() != kept:
                files.replace(path, kept)

    def rewind_pictures(self, step: int) -> None:
        """Drop pictures of steps after `step`. Raises FastganError."""
        for picture in (self.path / "samples").glob("*.png"):
            if picture.stem.isdecimal() and int(picture.stem) > step:
                with files.explained(f"can't remove {picture}"):
                    picture.unlink()

    def _clear(self) -> None:
        """Remove what a start that was interrupted has left; called by the holder of the lock, in a folder without a run."""
        for name in OWN:
            if name != LOCK:
                files.remove(self.path / name)
        for left in self.path.glob(f"{files.TEMPORARY}*"):
            if left.name != STARTING:
                files.remove(left)
        (self.path / STARTING).unlink(missing_ok=True)

    def _take_lock(self) -> None:
        try:
            import fcntl
        except ImportError:
            return
        lock = open(self.path / LOCK, "a+")  # noqa: SIM115  (held as long as the run)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read().strip()
            mine = pid == str(os.getpid())
            lock.close()
            who = "another Trainer of this program" if mine else "another process"
            remedy = "close() that one first" if mine else f"wait for it{pid and f' (process {pid})'}"
            raise FastganError(f"{who} is training in {self.path}: {remedy}, or choose another --out") from None
        except OSError:
            lock.close()  # a file system without locks: nothing to hold
            return
        self._lock = lock
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()


def read_facts(path: Path) -> dict[str, Any]:
    """The run.json of a run folder. Raises FastganError where there is none or it is damaged."""
    try:
        facts = json.loads((path / "run.json").read_bytes())
    except OSError:
        raise FastganError(f"{path} is not a run: no run.json in it") from None
    except ValueError as error:
        raise FastganError(f"{path / 'run.json'} is damaged: {error}") from error
    return facts


def as_csv(rows: list[dict[str, Any]]) -> str:
    """CSV of rows whose columns may differ; absent values are empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
