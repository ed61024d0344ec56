"""What people type, on this GPU: whether a run that was stopped goes on as if it had not, and what
kinds of GAN reach on drawn landscapes in equal seconds, defaults as they are.

    fastgan bench --stages commands

The plan trains all kinds at once: each has the same share of the GPU then, and less than all of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from fastgan.bench.stages.parts import KINDS
from fastgan.bench.stages.plan import StageRow
from fastgan.bench.store import Store
from fastgan.errors import FastganError
from fastgan.runs.checkpoint import Checkpoints

RESUMED = ("dcgan", "sngan", "r3gan")
SECONDS = 75


def command(*arguments: str) -> str:
    """Output of `fastgan` with these arguments. Raises FastganError with its last line where it
    fails."""
    done = subprocess.run(
        [sys.executable, "-m", "fastgan", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        raise FastganError(f"fastgan {arguments[0]} ended with {done.returncode}: {lines[-1]}")
    return done.stdout


def train(out: Path, *options: str) -> None:
    command("train", *options, "--no-progress", "--out", str(out))


def furthest(one: Path, other: Path) -> dict[str, Any]:
    """Of two runs' last checkpoints: how many tensors differ in any bit, and the largest relative
    distance of one."""
    mine, theirs = (
        dict(tensors(Checkpoints(run / "checkpoints").load()[0])) for run in (one, other)
    )
    apart = [key for key in mine if not torch.equal(mine[key], theirs[key])]
    return {
        "tensors": len(mine),
        "differ": len(apart),
        "furthest": max((distance(mine[key], theirs[key]) for key in apart), default=0.0),
    }


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """||a - b|| over ||b||."""
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-12))


def tensors(tree: Any, name: str = "") -> Iterable[tuple[str, torch.Tensor]]:
    """Every tensor of a checkpoint by its path."""
    if isinstance(tree, torch.Tensor):
        yield name, tree
    elif isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from tensors(value, f"{name}/{key}")


def resumed(recipe: str, steps: int) -> dict[str, Any]:
    """A run, the same again, and one that stopped half-way and went on."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(folder, name) for name in ("whole", "again", "resumed")]
        options = ("--recipe", recipe, "--sample-every", "1000000")
        for out in runs[:2]:
            train(out, *options, "--steps", str(steps))
        train(runs[2], *options, "--steps", str(steps // 2))
        command("train", "--resume", str(runs[2]), "--steps", str(steps), "--no-progress")
        again, stopped = (furthest(run, runs[0]) for run in runs[1:])
    shown = "the same bits" if not stopped["differ"] else f"{stopped['furthest']:.1e} away"
    beside = "the same bits" if not again["differ"] else f"{again['furthest']:.1e} away"
    return {
        "again": again,
        "resumed": stopped,
        "shown": f"{steps} steps: resumed {shown}; the same run again {beside}",
    }


def raced(recipe: str, seconds: int, size: int, compiled: bool = True) -> dict[str, Any]:
    """A training of so many seconds and its distances; a picture in $OUT. compiled: not by it, but
    by another one before."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        options = ("--recipe", recipe, "--data", "landscapes", "--size", str(size))
        options = (*options, *KINDS[recipe].split())
        if compiled:
            train(Path(folder, "compiled"), *options, "--steps", "64")
        train(out, *options, "--for", f"{seconds}s")
        found = json.loads(command("evaluate", str(out), "--json", "--n", "2000"))
        if beside := os.environ.get("OUT"):
            picture = Path(beside, f"landscapes-{recipe}.png")
            command("sample", str(out), "--n", "24", "--out", str(picture))
        steps = Checkpoints(out / "checkpoints").steps()[-1]
        config = tomllib.loads((out / "config.toml").read_text("utf-8"))
    distances = {name: found.get(name) for name in ("FD-small", "FD-patches")}
    shown = ", ".join(f"{k} {v:.3g}" for k, v in distances.items() if v is not None)
    return {
        **distances,
        "options": " ".join(options),
        "steps": steps,
        "batch_size": config["batch_size"],
        "seconds": seconds,
        "shown": f"{steps} steps of {config['batch_size']} in {seconds} s beside others: {shown}",
    }


def rows(toy: bool) -> Iterable[StageRow]:
    """Resumed runs, then the kinds."""
    for recipe in RESUMED[:1] if toy else RESUMED:
        yield StageRow(f"resume {recipe}", lambda r=recipe: resumed(r, 2 if toy else 40), 60)
    for recipe in [*KINDS][: 1 if toy else None]:
        form = (2, 16, False) if toy else (SECONDS, 64)
        yield StageRow(f"landscapes {recipe}", lambda r=recipe, f=form: raced(r, *f), SECONDS + 60)


def summary(store: Store) -> None:
    """A line a row."""
    for row in store.stage("commands"):
        print(f"{row['key']}: {row['shown']}")
