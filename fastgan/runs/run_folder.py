"""The folder a run leaves: what lies where, and how metric rows stay whole through crashes."""

from __future__ import annotations

import contextlib
import csv
import fnmatch
import io
import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from fastgan import files
from fastgan.errors import FastganError
from fastgan.runs import cutting, layout, schema
from fastgan.runs.checkpoint import STATE, Checkpoints, infinite

LOCK = "run.lock"
STARTING = f"{files.TEMPORARY}start"
"""Lies in a run folder from its making until the first checkpoint: a folder that has it never
became a run."""

PICTURES = ("reals.png", "curves.png", "samples")
OWN = (
    "config.toml",
    "run.json",
    "metrics.jsonl",
    "metrics.csv",
    "alerts.jsonl",
    *PICTURES,
    layout.REPORT,
    layout.EVALUATION,
    layout.COPIES,
    *layout.LOGGERS,
    "checkpoints",
    layout.CUT,
    LOCK,
)
FOLDERS = ("samples", *layout.LOGGERS, "checkpoints", layout.CUT)
NEEDED = ("config.toml", "run.json", "checkpoints")
"""What is read to use a run. Where a file of the others is a folder, or a folder a file, that is in
the way of training only."""


class RunFolder:
    """config.toml, run.json, metrics.jsonl, metrics.csv, alerts.jsonl, reals.png, curves.png,
    samples/, checkpoints/, report.html, evaluation.json, copies.png."""

    def __init__(self, path: str | Path, *, keep: int = 3) -> None:
        self.path = files.path_of(path, "the run folder")
        self.checkpoints = Checkpoints(self.path / "checkpoints", keep)
        self._lock: files.Lock | None = None
        self._claimed = False
        self._made: list[Path] = []
        self._pending: dict[Path, list[str]] = {}
        self.cut = cutting.Cut(self.path, self.checkpoints)

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def alerts(self) -> Path:
        return self.path / "alerts.jsonl"

    def exists(self) -> bool:
        """Whether a run (or anything else) already lies here; the remains of a start that was
        interrupted do not count."""
        if files.kind(self.path) != "folder":
            return files.kind(self.path, follow=False) is not None
        with files.explained(f"can't look into {self.path}"):
            names = set(os.listdir(self.path))
        if STARTING in names:
            names = {
                name
                for name in names
                if not owned(name) and not name.startswith((files.TEMPORARY, files.ASIDE))
            }
        return bool(names - {LOCK})

    def refuse_existing(self) -> None:
        """Raises FastganError where something lies here already."""
        if self.exists():
            raise FastganError(
                f"{self.path} exists already: choose another --out, or go on with it by --resume "
                f"{self.path}"
            )

    def create(self) -> None:
        """Make the folder for a new run; `begun` ends what this begins. Raises FastganError where
        something lies there."""
        self.refuse_existing()
        try:
            with files.explained(f"can't write to {self.path}"):
                self._made = [p for p in (self.path, *self.path.parents) if files.kind(p) is None]
                self.path.mkdir(parents=True, exist_ok=True)
                self._take_lock()
                # again: until the lock was held, another start could make a run here
                self.refuse_existing()
                self._claimed = True
                files.write(self.path / STARTING, b"")
                self._clear()
                (self.path / "samples").mkdir()
        except FastganError:
            self.abandon()
            raise

    def begun(self) -> None:
        """The new run has all it needs to be resumed: from here on it is one. Raises
        FastganError."""
        with files.explained(f"can't write to {self.path}"):
            (self.path / STARTING).unlink()
            files.sync_folder(self.path)

    def abandon(self) -> None:
        """Leave nothing of a new run that could not begin."""
        with contextlib.suppress(OSError):
            if self._claimed:
                self._clear()
                (self.path / STARTING).unlink(missing_ok=True)
        with contextlib.suppress(OSError, FastganError):
            if self._claimed or (self._lock is not None and not self.exists()):
                # while it is held: whoever waits for it sees that it is gone
                (self.path / LOCK).unlink(missing_ok=True)
        self.close()
        with contextlib.suppress(OSError):
            for folder in self._made:
                folder.rmdir()

    def open(self) -> None:
        """Take an existing run and clear what an interrupted writer left.

        Raises FastganError where there is no run or another process has it.
        """
        if files.kind(self.path / "run.json") is None:
            raise layout.no_run(self.path)
        try:
            with files.explained(f"can't write to {self.path}"):
                self._take_lock()
                if files.kind(self.path / STARTING) is not None:
                    raise FastganError(
                        f"the run in {self.path} was interrupted before it began: start it again, "
                        "without resuming"
                    )
            for folder in (self.path, self.path / "samples", self.path / "checkpoints"):
                files.sweep(folder)
            self.cut.settle()
        except FastganError:
            self.close()
            raise

    def facts(self) -> dict[str, Any]:
        """What run.json holds. Raises FastganError."""
        return read_facts(self.path)

    def remove_demo(self) -> None:
        """Remove a run that a demo has made and nobody went on with. Raises FastganError for
        anything else."""
        refusal = FastganError(
            f"{self.path} exists and is not a demo as the demo left it: choose another --out, or "
            "remove it yourself"
        )
        if files.kind(self.path / "run.json") is None:
            raise refusal
        self.open()
        try:
            foreign = {
                name
                for name in os.listdir(self.path)
                if not owned(name) or name in layout.LOGGERS  # a demo has no logger
            }
            demo = self.facts().get("demo")
            if foreign or demo is None or max(self.checkpoints.steps(), default=0) > demo:
                raise refusal
            with files.explained(f"can't remove {self.path}"):
                files.write(
                    self.path / STARTING, b""
                )  # whoever stops in between leaves a start that never began
                self._clear()
                (self.path / STARTING).unlink()
        finally:
            self.close()

    def close(self) -> None:
        if self._lock is not None:
            self.cut.give_up()
            self._lock.close()
            self._lock = None

    def write(self, name: str, data: bytes | str) -> None:
        files.replace(
            self.path / name,
            data.encode(errors="backslashreplace") if isinstance(data, str) else data,
        )

    def append(self, path: Path, row: dict[str, Any]) -> None:
        """Append one line. A row that can't be written is kept and written before the next one.
        Raises FastganError."""
        self._pending.setdefault(path, []).append(json.dumps(row) + "\n")
        self._flush(path)

    def _flush(self, path: Path) -> None:
        lines = self._pending.get(path)
        if not lines:
            return
        with (
            files.explained(f"can't write {path}"),
            open(path, "ab", buffering=0, opener=files.plain) as f,
        ):
            whole = f.seek(0, os.SEEK_END)
            try:
                files.write_all(f, "".join(lines).encode())
            except OSError:
                with contextlib.suppress(OSError):
                    f.truncate(whole)
                raise
        lines.clear()

    def sync_rows(self) -> None:
        """Flush rows to the disk before a checkpoint that stands after them is made. Raises
        FastganError."""
        for path in (self.metrics, self.alerts):
            self._flush(path)
            if files.kind(path) is not None:
                with (
                    files.explained(f"can't write {path}"),
                    open(path, "r+b", buffering=0, opener=files.plain) as f,
                ):
                    os.fsync(f.fileno())

    def write_table(self) -> None:
        """Bring metrics.csv up to date. Raises FastganError."""
        self.write("metrics.csv", as_csv(self.rows(self.metrics)))

    def rows(self, path: Path) -> list[dict[str, Any]]:
        """The whole lines of a .jsonl file; those that are damaged are left out. Raises
        FastganError."""
        found: list[dict[str, Any]] = []
        values = (int, float) if path == self.metrics else (int, float, str)
        if files.kind(path) is not None:
            with files.explained(f"can't read {path}"):
                lines = files.read(path).splitlines()
            for line in lines:
                try:
                    row = json.loads(line)
                    schema.check(row, {str: values, "step": int}, "row")
                except (ValueError, RecursionError):
                    continue
                found.append(row)
        return found

    def rewind(self, step: int) -> None:
        """Drop rows of steps after `step`: they are made again. Raises FastganError."""
        for path in (self.metrics, self.alerts):
            kept = "".join(
                json.dumps(row) + "\n" for row in self.rows(path) if row["step"] <= step
            ).encode()
            if files.kind(path) is not None and files.read(path) != kept:
                files.replace(path, kept)

    def rewind_pictures(self, step: int) -> None:
        """Drop pictures of steps after `step`. Raises FastganError."""
        for picture in (self.path / "samples").glob("*.png"):
            if picture.stem.isdecimal() and int(picture.stem) > step:
                with files.explained(f"can't remove {picture}"):
                    picture.unlink()

    def _clear(self) -> None:
        """Remove what a run makes, but for the lock and the mark of a start; called by the holder
        of the lock."""
        for name in own_names(self.path):
            if name != LOCK:
                files.remove(self.path / name)
        for left in self.path.glob(f"{files.TEMPORARY}*"):
            if left.name != STARTING:
                files.remove(left)

    def _take_lock(self) -> None:
        """Hold the run from here on; its own names are then plain files and folders. Raises
        FastganError."""
        refuse_links(self.path, writing=True)
        lock = files.Lock(self.path / LOCK)
        if lock.held is False:
            pid = lock.holder()
            lock.close()
            who, remedy = "another process", f"wait for it{f' (process {pid})' if pid else ''}"
            if pid == os.getpid():
                who, remedy = "another Trainer of this program", "close() that one first"
            raise FastganError(
                f"{who} is training in {self.path}: {remedy}, or choose another --out"
            )
        self._lock = lock
        refuse_links(self.path, writing=True)
        lock.sign()


def owned(name: str) -> bool:
    """Whether a run makes what has this name in its folder."""
    return name in OWN or fnmatch.fnmatchcase(name, layout.TRAVERSALS)


def own_names(run: Path) -> list[str]:
    """Names that a run makes: those that every run has, and of the others what is there."""
    others = run.glob(layout.TRAVERSALS) if files.kind(run) == "folder" else ()
    return [*OWN, *sorted(path.name for path in others)]


def refuse_links(run: Path, *, writing: bool = False) -> None:
    """Raises FastganError where one of a run's own names is not the plain file or folder that a run
    makes.

    writing: nor may a file have other names (hard links), for it would change under those, too.
    """
    for name in own_names(run):
        kind, right = files.kind(run / name, follow=False), "folder" if name in FOLDERS else "file"
        if kind in ("file", "folder") and kind != right and name not in NEEDED and not writing:
            continue
        if kind not in (None, right):
            what = {"link": "a link", "folder": "a folder", "file": "a file"}.get(
                kind, "no regular file"
            )
            raise FastganError(
                f"{run / name} is {what}, where a run has a {right} of its own: remove it"
            )
        if writing and kind == "file" and os.lstat(run / name).st_nlink > 1:
            raise FastganError(
                f"{run / name} is the same file as another one (a hard link): put a copy of its "
                "own there"
            )


def refuse_own(path: Path) -> None:
    """Raises FastganError where what is written to `path` would take the place of what a run has,
    or lie among it."""
    files.kind(path)
    whole = Path(os.path.realpath(path))
    for run in whole.parents:
        if owned(whole.relative_to(run).parts[0]) and files.kind(run / "run.json") is not None:
            raise FastganError(f"{path} belongs to the run in {run}: choose another --out")


def read_facts(path: Path) -> dict[str, Any]:
    """The run.json of a run folder. Raises FastganError where there is none, or one that no run has
    written."""
    file = path / "run.json"
    refuse_links(path)
    if files.kind(file) is None:
        raise layout.no_run(path)
    with files.explained(f"can't read {file}"):
        data = files.read(file, files.TEXT)
    try:
        facts = json.loads(data)
        if schema.depth(facts) > schema.DEEPEST:
            raise ValueError(f"it is nested more than {schema.DEEPEST} levels deep")
        schema.check(facts, schema.FACTS, "it")
        stages = facts["stages"]
        if not stages or len(stages) != len(facts["identity"]["stages"]):
            raise ValueError(f"{len(stages)} stages")
        for i, stage in enumerate(stages):
            for how in (*stage["nets"].values(), stage["objective"]):
                schema.check(how, schema.MADE[0 if "spec" in how else 1], f"a part of stage {i}")
            if stage["steps"] is None and i < len(stages) - 1:
                raise ValueError(f"stage {i} has no steps")
    except (ValueError, RecursionError) as error:
        raise FastganError(f"{file} is damaged: {' '.join(str(error).split())}") from error
    return facts


def read_checkpoint(
    checkpoints: Checkpoints, facts: dict[str, Any], step: int | str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(groups, state) of a checkpoint of the run with these facts; the newest for None. Raises
    FastganError."""
    groups, state = checkpoints.load(step)
    with checkpoints.whole(state["step"]):
        schema.check(state, {**schema.STATE, "stage": range(len(facts["stages"]))}, STATE)
        schema.check(groups, {"nets": {str: {str: Tensor}}, "ema": {str: {str: Tensor}}}, "it")
        saved = {name: group for name, group in groups.items() if name != "stats"}
        if (bad := infinite(saved)) is not None:
            raise ValueError(f"{bad} is not finite")
    return groups, state


def as_csv(rows: list[dict[str, Any]]) -> str:
    """CSV of rows whose columns may differ; absent values are empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
