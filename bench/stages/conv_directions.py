"""Convolutions by direction: forward, input gradient and weight gradient of DCGAN-64's layers,
cuDNN against Triton, each alone in a captured graph. What is faster goes into the tuning table,
which the suites measured behind it then use.

    fastgan bench --stages directions
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from fastgan import machine
from fastgan.bench.stages.plan import StageRow
from fastgan.bench.store import Store
from fastgan.verify import tuning_tables
from fastgan.verify.cases.conv_calls import C4S2, T4S2, plain_case
from fastgan.verify.registry import Case
from fastgan.verify.tuner.directions import TILES, tune_layer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LAYERS = {  # name: (transposed, channels in, channels out, side in)
    "G L2": (True, 512, 256, 4),
    "G L3": (True, 256, 128, 8),
    "G L4": (True, 128, 64, 16),
    "D L2": (False, 64, 128, 32),
    "D L3": (False, 128, 256, 16),
    "D L4": (False, 256, 512, 8),
}


def case(name: str, batch: int, toy: bool) -> tuple[bool, Case]:
    """Whether the layer is transposed, and it as a case."""
    transposed, ci, co, side = LAYERS[name]
    if toy:
        batch, ci, co, side = 2, 12, 18, 4
    spec = T4S2 if transposed else C4S2
    return transposed, plain_case(name, spec, (batch, ci, side, side), co)


def row(name: str, batch: int, toy: bool) -> dict[str, Any]:
    """Microseconds of a layer's directions by each engine."""
    torch.backends.cudnn.benchmark = True
    transposed, layer = case(name, batch, toy)
    facts = machine.describe(DEVICE)
    stamp = {key: facts[key] for key in ("torch", "triton", "commit", "date")}
    gpu = DEVICE.type == "cuda"
    tiles = TILES if gpu and not toy else dict.fromkeys(TILES, ())
    kind = "bf16" if gpu else "fp32"
    entries, found = tune_layer(transposed, layer, kind, DEVICE, stamp, tiles)
    if gpu:
        tuning_tables.merge(tuning_tables.table_path(DEVICE, False), DEVICE, entries)
    us = lambda ms: "-" if ms is None else f"{1e3 * ms:.1f}"
    shown = [f"{d} cudnn {us(f['cudnn'])} triton {us(f.get('triton'))}" for d, f in found.items()]
    return {"found": found, "shown": ", ".join([*shown, "us"])}


def rows(toy: bool) -> Iterable[StageRow]:
    """The layers at batch 128: D sees reals and fakes as one batch in its own update."""
    for batch in (128, 256) if not toy else (2,):
        for name in LAYERS if not toy else ("G L2", "D L2"):
            if batch == 256 and name.startswith("G"):
                continue
            key = f"{name} batch {batch}"
            yield StageRow(key, lambda a=(name, batch, toy): row(*a), 15)


def summary(store: Store) -> None:
    """Which directions Triton runs faster."""
    for known in store.stage("directions"):
        won = [d for d, found in known["found"].items() if found["engine"] == "triton"]
        print(f"{known['key']}: {known['shown']}; Triton's: {', '.join(won) or 'none'}")
