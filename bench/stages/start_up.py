"""Start-up: every row of an iteration from nothing to the end of its second step, compilation
included.

    fastgan bench --stages warm

What the compilers leave in their caches, the timing rows find there.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch

from fastgan.bench.iterations import suites
from fastgan.bench.iterations.measure import sync, timed
from fastgan.bench.iterations.rows import ROWS, RowSpec
from fastgan.bench.iterations.suites import Suite
from fastgan.bench.stages.plan import StageRow
from fastgan.bench.store import Store


def start(suite: Suite, spec: RowSpec) -> dict[str, Any]:
    """Seconds to the end of the second step in this process, imports apart."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arrays = suites.arrays(suite)
    began = time.perf_counter()
    runner = spec.build(suite, arrays, device)
    with runner.flags():
        for _ in range(2):
            runner.step()
        sync(device)
    took = time.perf_counter() - began
    beside = 1e3 * min(timed(runner, 20, device) for _ in range(3))
    runner.close()
    shown = f"{took:.1f} s to the second step, then {beside:.3f} ms a step beside others"
    return {"startup_s": took, "ms_beside_others": beside, "shown": shown}


def rows(toy: bool) -> Iterable[StageRow]:
    """Rows that compile or capture, those of the first suites."""
    letters = ("i",) if toy else ("e", "d", "f2", "f3", "h", "i")
    worth = ("dcgan-64-b128", "sngan-32-b64", "dcgan-64-b16")
    for suite in suites.TINY[:1] if toy else [suites.SUITES[name] for name in worth]:
        for spec in ROWS:
            if spec.letter in letters and not spec.cpu:
                yield StageRow(
                    f"{suite.name} {spec.key}",
                    lambda s=suite, r=spec: start(s, r),
                    spec.seconds,
                    spec.ours,
                )


def summary(store: Store) -> None:
    """A line a row."""
    for row in store.stage("warm"):
        print(f"start-up of {row['key']}: {row['startup_s']:.1f} s")
