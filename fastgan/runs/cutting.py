"""Going back in a run: what lies after a step is set aside, whole, until a new checkpoint stands in
its place. Interrupted at any moment, the run is the one of before or the one that went back."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from fastgan import files
from fastgan.errors import FastganError
from fastgan.runs import layout, schema
from fastgan.runs.checkpoint import Checkpoints

NOTE = "cut.json"
COPIED = (
    "config.toml",
    "run.json",
    "metrics.jsonl",
    "metrics.csv",
    "alerts.jsonl",
    "curves.png",
    layout.REPORT,
)
"""Files that going on writes anew: a copy of each is set aside."""

EVALUATED = (layout.EVALUATION, layout.COPIES)
FOUND = {"to": range(10**18), "checkpoints": [range(10**18)], "pictures": [range(10**18)]}
"""What NOTE holds."""


class Cut:
    """What is set aside in the folder `run`, if anything; its owner alone may call the methods.

    Attributes:
        at: The step that this process has gone back to, until there is a checkpoint after it.
        in_vain: The step that an earlier process had gone back to without coming to one.
    """

    def __init__(self, run: Path, checkpoints: Checkpoints) -> None:
        self.run, self.checkpoints, self.folder = run, checkpoints, run / layout.CUT
        self.aside = Checkpoints(self.folder)
        self.at: int | None = None
        self.in_vain: int | None = None

    def begin(self, step: int) -> str | None:
        """Move checkpoints and pictures after `step`, and what was evaluated then, out of the way;
        what, in words, or None where there is no later checkpoint. Raises FastganError."""
        later = [s for s in self.checkpoints.steps() if s > step]
        if not later:
            return None
        pictures = [int(p.stem) for p in self._pictures() if int(p.stem) > step]
        note = {"to": step, "checkpoints": later, "pictures": pictures}
        with files.explained(f"can't read {self.run}"):
            copies = {
                name: files.read(self.run / name)
                for name in COPIED
                if files.kind(self.run / name) == "file"
            }
        files.make_folder(self.folder, {**copies, NOTE: json.dumps(note).encode()})
        self.at = step
        with files.explained(f"can't move what comes after step {step} to {self.folder}"):
            for one in later:
                os.replace(self.checkpoints.path(one), self.aside.path(one))
            for one in pictures:
                os.replace(self._picture(one), self.folder / self._picture(one).name)
            if self._evaluated() > step:
                self._move(EVALUATED, self.run, self.folder)
            files.sync_folder(self.checkpoints.folder)
        named = f"checkpoint{'s' * (len(later) > 1)} {', '.join(map(str, later))}"
        return f"{named}, {len(pictures)} picture{'s' * (len(pictures) != 1)} and rows of then"

    def saved(self, step: int) -> None:
        """A checkpoint of `step` is whole: what was set aside before it goes."""
        if self.at is not None and step > self.at:
            self.at = None
            self._drop()

    def give_up(self) -> None:
        """Where there is no checkpoint since, all is as it was. What can't be brought back now is
        when the run is opened again."""
        if self.at is not None:
            self.at = None
            with contextlib.suppress(OSError, FastganError):
                self.settle()

    def settle(self) -> None:
        """Bring back what was set aside, unless a new checkpoint stands. Raises FastganError."""
        if files.kind(self.folder, follow=False) != "folder":
            return
        note = self._read()
        there = self.aside.steps()
        old = set(note["checkpoints"]) - set(there)
        if any(s > note["to"] and s not in old for s in self.checkpoints.steps()):
            self._drop()
            return
        with files.explained(f"can't bring back what lies in {self.folder}"):
            for one in there:
                os.replace(self.aside.path(one), self.checkpoints.path(one))
            for picture in self._pictures():
                if int(picture.stem) > note["to"] and int(picture.stem) not in note["pictures"]:
                    picture.unlink()
            names = [self._picture(one).name for one in note["pictures"]]
            self._move(names, self.folder, self.run / "samples")
            self._move(EVALUATED, self.folder, self.run)
            for name in COPIED:
                if files.kind(self.folder / name, follow=False) == "file":
                    files.replace(self.run / name, files.read(self.folder / name))
                else:
                    files.remove(self.run / name)
            files.remove_folder(self.folder)
        self.in_vain = note["to"]

    def _drop(self) -> None:
        with contextlib.suppress(OSError):  # else when the run is opened again
            files.remove_folder(self.folder)

    def _read(self) -> dict[str, Any]:
        try:
            note: dict[str, Any] = json.loads(files.read(self.folder / NOTE, files.TEXT))
            schema.check(note, FOUND, NOTE)
        except (OSError, ValueError, RecursionError) as error:
            why = " ".join(str(error).split())
            raise FastganError(
                f"{self.folder / NOTE} is damaged ({why}): move what lies beside it to where it "
                "belongs, or remove that folder"
            ) from error
        return note

    def _move(self, names: Any, source: Path, target: Path) -> None:
        for name in names:
            if files.kind(source / name, follow=False) == "file":
                os.replace(source / name, target / name)

    def _pictures(self) -> list[Path]:
        return [p for p in (self.run / "samples").glob("*.png") if p.stem.isdecimal()]

    def _picture(self, step: int) -> Path:
        return self.run / "samples" / f"{step:08d}.png"

    def _evaluated(self) -> int:
        """The step of evaluation.json; -1 where there is none."""
        with contextlib.suppress(OSError, ValueError, RecursionError, KeyError, TypeError):
            return int(json.loads(files.read(self.run / layout.EVALUATION, files.TEXT))["step"])
        return -1
