"""What the pages show of run folders, which may be a stranger's: nothing here runs their code."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fastgan import files
from fastgan.errors import FastganError
from fastgan.latent.directions import Directions, directions
from fastgan.latent.walk import between
from fastgan.reports.reading import Story, number, read_story
from fastgan.runs.run_folder import LOCK
from fastgan.trainer import sampling
from fastgan.trainer.reuse.restoring import OpenRun, open_run

SLIDERS = 8
REACH = 4.0
"""How far a slider goes, in standard deviations of a latent."""


def found(folder: Path) -> dict[str, Path]:
    """The run that `folder` is, or the runs right in it, by name. Raises FastganError where it is
    no folder."""
    if files.kind(folder) != "folder":
        raise FastganError(f"{folder} is no folder: name a run, or a folder of runs")
    if files.kind(folder / "run.json", follow=False) == "file":
        return {folder.resolve().name: folder}
    with files.explained(f"can't look into {folder}"):
        names = sorted(os.listdir(folder))
    return {
        name: folder / name
        for name in names
        if files.kind(folder / name, follow=False) == "folder"
        and files.kind(folder / name / "run.json", follow=False) == "file"
    }


def trainer_of(run: Path) -> int | None:
    """The number of the process that trains here now, where it is one of ours. Nothing else is
    believed: it must hold the lock that names it."""
    try:
        pid = int(files.read(run / LOCK, 64).strip() or b"0")
        os.kill(pid, 0)
        if pid in (0, 1, os.getpid()):
            return None
        # only now: a lock that nobody holds is ours for a moment
        lock = files.Lock(run / LOCK, 0)
        try:
            held = lock.held is False and lock.holder() == pid
            here = os.fstat(lock.file.fileno())
        finally:
            lock.close()
        return pid if held and _opens(pid, here) else None
    except (OSError, ValueError, OverflowError):
        return None


def _opens(pid: int, here: os.stat_result) -> bool:
    """Whether a process has this file open; True where the system does not tell."""
    if not os.path.isdir("/proc/self/fd"):
        return True
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            if os.path.samestat(os.stat(f"{folder}/{name}"), here):
                return True
        except OSError:
            continue
    return False


def stop(run: Path) -> None:
    """Ask the process that trains here to save and end. Raises FastganError where there is none."""
    pid = trainer_of(run)
    if pid is None:
        raise FastganError("no process of yours trains here now")
    os.kill(pid, signal.SIGTERM)


def status(run: Path) -> dict[str, Any]:
    """What the list and a run's page poll. Raises FastganError."""
    story = read_story(run)
    total = story.config.get("steps")
    return {
        "step": story.step,
        "steps": total if isinstance(total, int) and 0 < total < 2**53 else None,
        "running": trainer_of(run) is not None,
        "recipe": str(story.config.get("recipe", "")),
        "data": str(story.config.get("data", "")),
        "alerts": len(story.alerts),
        "grid": next(reversed(story.grids), None),
        "speed": _finite(story, "images_per_s"),
        "seen": len(story.rows),
    }


def _finite(story: Story, key: str) -> float | None:
    value = story.last(key)
    return None if value is None else number(value)


@dataclass(frozen=True)
class Wish:
    """One image of the playground: `at` of the way from the latent of `seed` to that of `to`, moved
    along the directions by `moves`."""

    seed: int = 0
    to: int = 0
    at: float = 0.0
    label: int = 0
    truncation: float | None = None
    text: str = ""
    moves: tuple[float, ...] = ()

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wish:
        """As an address asks for it. Raises FastganError."""
        try:
            seed = int(query.get("seed", 0))
            made = cls(
                seed,
                int(query.get("to", seed)),
                float(query.get("at", 0)),
                int(query.get("label", 0)),
                float(query["truncation"]) if query.get("truncation") else None,
                query.get("text", "")[:1000],
                tuple(float(part) for part in query.get("moves", "").split(",") if part),
            )
        except ValueError as error:
            raise FastganError(f"no such image: {error}") from error
        if not all(0 <= seed < 2**32 for seed in (made.seed, made.to)):
            raise FastganError(f"seeds lie in [0, 2**32), not {made.seed} and {made.to}")
        if not 0 <= made.at <= 1 or not all(abs(move) < 1e6 for move in made.moves):
            raise FastganError("no such image: a slider is far outside")
        return made


@dataclass
class Playground:
    """A run's generator, opened once for each checkpoint; one image at a time."""

    run: Path
    trust: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    opened: OpenRun | None = None
    ways: Directions | None = None
    why: str = ""

    def _open(self) -> OpenRun:
        newest = read_story(self.run).checkpoints[-1:]
        if self.opened is None or newest != [self.opened.step]:
            self.opened = open_run(self.run, device="cpu", trust=self.trust)
            try:
                self.ways, self.why = directions(self.opened, SLIDERS), ""
            except FastganError as error:
                self.ways, self.why = None, str(error)
        return self.opened

    def about(self) -> dict[str, Any]:
        """{"sliders", "reach", "classes", "text", "step", "why"}. Raises FastganError."""
        with self.lock:
            run = self._open()
            return {
                "sliders": 0 if self.ways is None else len(self.ways.vectors),
                "reach": REACH,
                "classes": run.classes or [],
                "text": bool(run.texts(1, ())),
                "step": run.step,
                "why": self.why,
            }

    def image(self, wish: Wish) -> torch.Tensor:
        """(1, C, H, W) in [0, 1]. Raises FastganError."""
        with self.lock:
            run = self._open()
            noise = run.noise(1, wish.seed)
            if wish.at:
                end = run.noise(1, wish.to)
                kinds = run.objective.noise
                noise = {n: between(kinds[n], noise[n], end[n], wish.at) for n in noise}
            if wish.truncation is not None:
                noise = sampling.truncated(run.objective.noise, noise, wish.truncation)
            if self.ways is not None and wish.moves:
                steps = torch.tensor(wish.moves[: len(self.ways.vectors)]).clamp(-REACH, REACH)
                moved = torch.tensordot(steps, self.ways.vectors[: len(steps)], 1)
                noise[self.ways.noise] = noise[self.ways.noise] + moved
            labels = wish.label if run.classes else None
            text = (wish.text,) if wish.text else ()
            return run.images(1, noise=noise, labels=labels, text=text)
