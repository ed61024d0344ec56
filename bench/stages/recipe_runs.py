"""Every recipe trains on this GPU as `fastgan train --recipe NAME` starts it: data, networks and
engines as they are by default, steps captured.

    fastgan bench --stages recipes

A row raises what its training raises. What it says of speed holds beside others only: the plan runs
several at once.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from fastgan import recipes
from fastgan.bench.stages.plan import StageRow
from fastgan.bench.store import Store
from fastgan.errors import FastganError
from fastgan.ops import dispatch
from fastgan.recipes.training import make_trainer

STEPS, TOY_STEPS = 60, 2
WORTH = ("dcgan", "sngan", "r3gan", "cgan", "wgan-gp", "pix2pix", "biggan-small", "cyclegan")
"""First, should the time not suffice for all."""


def train(name: str, steps: int) -> dict[str, Any]:
    """Steps of a recipe by default options: seconds to the first, images a second afterwards,
    whether they replay a graph, and the engine of every operator's last call."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder, "run"))
        config = recipes.find(name)(steps=steps, out=out, progress=False, log_every=1)
        began = time.perf_counter()
        with make_trainer(config, resume=False, log=None, out=out) as trainer:
            trainer.fit(1)
            first, began = time.perf_counter() - began, time.perf_counter()
            trainer.fit(steps)
            took, images = time.perf_counter() - began, (steps - 1) * config.batch_size
            device, reason = trainer.device.type, trainer.active.graph_reason
        lines = Path(out, "metrics.jsonl").read_text().splitlines()
    losses = {k: v for k, v in json.loads(lines[-1]).items() if k.startswith("loss")}
    if device == "cuda" and reason is not None:
        raise FastganError(f"{name}: steps run without a graph: {reason}")
    return {
        "first_s": first,
        "images_per_s": images / took,
        "losses": losses,
        "engines": dispatch.why(),
        "shown": f"{len(lines)} steps, the first after {first:.1f} s, then {images / took:.0f} "
        "images/s beside others",
    }


def rows(toy: bool) -> Iterable[StageRow]:
    """A recipe each, those of most worth first."""
    names = ("gan", "dcgan") if toy else (*WORTH, *(n for n in recipes.RECIPES if n not in WORTH))
    steps = STEPS if torch.cuda.is_available() and not toy else TOY_STEPS
    for name in names:
        yield StageRow(name, lambda n=name: train(n, steps), 30)


def summary(store: Store) -> None:
    """Which recipes train, and which do not."""
    known = store.latest("recipes")
    failed = [f"{row['key']}: {row['failed']}" for row in known if "failed" in row]
    print(f"\nrecipes: {len(known) - len(failed)} of {len(recipes.RECIPES)} train")
    print("\n".join(failed))
