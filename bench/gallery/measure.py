"""Trainings and evaluations of the gallery, each kept as soon as it is made, so that it goes on
where it stopped."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fastgan import files, machine
from fastgan.bench.gallery.rows import ROWS
from fastgan.bench.gallery.trainings import LONGER, TRAININGS
from fastgan.errors import FastganError

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "gallery"
PICTURES = ROOT / "docs" / "images" / "gallery"
SEEDS = (0, 1, 2)
SAMPLES = 2000


def needed(kinds: Iterable[str]) -> list[str]:
    """Names of the trainings that these kinds are measured and compared by, in order."""
    found: dict[str, None] = {}
    wanted = set(kinds)
    for row in (row for row in ROWS if row.kind in wanted):
        found |= dict.fromkeys([row.run] if row.run else [])
        found |= dict.fromkeys(one.run for one in row.measures if one.run is not None)
        found |= dict.fromkeys(
            rival.run for one in row.measures for rival in one.rivals if rival.run is not None
        )
    return list(found)


def known(kinds: Iterable[str]) -> list[str]:
    """These kinds, or all. Raises FastganError for one that has no row."""
    have = [row.kind for row in ROWS]
    if strange := [kind for kind in kinds if kind not in have]:
        raise FastganError(f"the gallery has no kind {strange[0]!r}: there are {', '.join(have)}")
    return list(kinds) or have


def measure(
    kinds: Iterable[str], seeds: Iterable[int] = SEEDS, say: Callable[[str], None] = print
) -> None:
    """Make what is missing of the kinds' trainings. Raises FastganError where one fails."""
    kinds, seeds = list(kinds), list(seeds)
    pictured = {row.run: row.kind for row in ROWS}
    wanted = [(name, seed) for name in needed(kinds) for seed in seeds]
    if longer := [kind for kind in LONGER if kind in kinds]:
        first, *_ = LONGER  # what they are compared with
        wanted += [(f"longer-{kind}", min(seeds)) for kind in dict.fromkeys([first, *longer])]
    for name, seed in wanted:
        if seed not in kept(name):
            say(f"{name}, seed {seed} ...")
            found = one(name, seed, pictured.get(name) if seed == min(seeds) else None)
            keep(name, seed, found)
            say(f"{name}, seed {seed}: {found['cpu_seconds']:.0f} s of training")


def kept(name: str) -> dict[int, dict[str, Any]]:
    """What is known of a training, by seed."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return {}
    return {int(seed): found for seed, found in json.loads(path.read_text("utf-8")).items()}


def keep(name: str, seed: int, found: dict[str, Any]) -> None:
    every = {**kept(name), seed: found}
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps({str(key): every[key] for key in sorted(every)}, indent=1)
    files.replace(RESULTS / f"{name}.json", text.encode() + b"\n")


def one(name: str, seed: int, picture: str | None) -> dict[str, Any]:
    """Train, evaluate and throw the run away, but for its facts; a picture of it for that kind."""
    if name == "gaussian":
        return gaussian(seed)
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/{name}"
        command = ["train", *shlex.split(TRAININGS[name]), "--seed", str(seed), "--device", "cpu"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        fastgan([*command, "--no-progress", "--sample-every", "1000000", "--out", run])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        text = fastgan(["evaluate", run, "--json", "--seed", str(seed), "--n", str(SAMPLES)])
        if picture is not None:
            PICTURES.mkdir(parents=True, exist_ok=True)
            shown = str(PICTURES / f"{picture}.png")
            fastgan(["sample", run, "--n", "32", "--out", shown, "--device", "cpu"])
        made = made_with(run)
    return {
        "command": "fastgan " + shlex.join(command),
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "cpu": machine.cpu_name(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count(),
        **made,
        "evaluation": numbers(json.loads(text)),
    }


def made_with(run: str) -> dict[str, Any]:
    """Versions, all options and the data's fingerprints, as a run's folder has them."""
    facts = json.loads(Path(run, "run.json").read_text("utf-8"))
    last = max(Path(run, "checkpoints").glob("step-*/state.json"))
    state = json.loads(last.read_text("utf-8"))
    options = tomllib.loads(Path(run, "config.toml").read_text("utf-8"))
    return {
        "fastgan": facts["fastgan"],
        "commit": machine.commit(),
        "versions": facts["versions"],
        "data": state["identity"]["data"],
        "options": {key: value for key, value in options.items() if key != "out"},
    }


def numbers(found: Any) -> Any:
    """The numbers of an evaluation, by name: lists, texts and parts without one are left out."""
    if not isinstance(found, dict):
        return found if isinstance(found, int | float) and not isinstance(found, bool) else None
    inside = {key: numbers(value) for key, value in found.items()}
    return {key: value for key, value in inside.items() if value is not None and value != {}}


def fastgan(arguments: list[str]) -> str:
    """What a command of this Python's fastgan prints. Raises FastganError where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "fastgan", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise FastganError(f"fastgan {shlex.join(arguments)} failed: {last}")
    return done.stdout


def gaussian(seed: int) -> dict[str, Any]:
    """No network: draws of a normal distribution with the mean and covariance of the pixels, of
    as many bundled images at the size of the gallery's dcgan."""
    import torch

    from fastgan import data
    from fastgan.metrics.evaluate import evaluate

    reals = data.open("fashion-mnist", size=16)
    began = time.process_time()
    pixels = torch.from_numpy(reals.array("image").copy()).flatten(1).double() / 255
    mean, spread = pixels.mean(0), torch.linalg.eigh(torch.cov(pixels.T))
    noise = torch.randn(
        SAMPLES, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.double
    )
    drawn = mean + (noise * spread.eigenvalues.clamp_min(0).sqrt()) @ spread.eigenvectors.T
    seconds = time.process_time() - began
    images = drawn.clamp(0, 1).float().reshape(-1, 1, 16, 16)
    report = evaluate(images, reals, SAMPLES, seed=seed, name="gaussian")
    return {
        "command": "none",
        "cpu_seconds": seconds,
        "cpu": machine.cpu_name(),
        "evaluation": numbers(report.as_dict()),
    }
