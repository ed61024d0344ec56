"""Each registered op's engines against eager PyTorch and torch.compile: `fastgan bench --suite
kernels` as a resumable stage, one stored row a call, and one more with the compiler's search.

    fastgan bench --stages kernels

GPU time by graph replay on rotated inputs; what is timed and checked is in fastgan.bench.operators.
On a CPU the shapes are tiny and say nothing about a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from fastgan.bench import operator_calls, operators, tables
from fastgan.bench.operator_calls import Sample
from fastgan.bench.operators import Entry
from fastgan.bench.stages.plan import StageRow
from fastgan.bench.store import Store
from fastgan.verify.timing import gpu_state

COMPILED = "torch.compile"


def device() -> torch.device:
    """Where rows are measured."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def row(sample: Sample, compiled: bool, toy: bool) -> dict[str, Any]:
    """One call's entry. compiled: the compiler's row, with eager and the engine that auto takes
    beside it."""
    providers = ("eager", "compile", "auto") if compiled else ("eager", *operator_calls.ENGINES)
    entry = operators.run(sample, device(), providers, repeats=3 if toy else 9)
    if torch.cuda.is_available():
        # raises where a provider took the context down: the stage starts over behind this row
        torch.cuda.synchronize()
    shown = [
        f"{r['provider']} {1e3 * r['ms'][1]:.1f} us"
        if "ms" in r
        else f"{r['provider']}: {r['error']}"
        for r in entry["rows"]
    ]
    if (best := tables.headline(entry)) is not None:
        shown.append(f"{best['provider']} {best['speedup'][1]:.2f}x {best['best']}")
    return {
        "entry": entry,
        "state": gpu_state(),
        "shown": ", ".join(shown) + (" (CPU)" if device().type == "cpu" else ""),
    }


def rows(toy: bool) -> Iterable[StageRow]:
    """Eager and the engines of every op in the type it is used in; then the compiler, which takes
    longest; then all in fp32."""
    layers = False if toy else None
    known = set()
    for types in ((),) if toy or device().type == "cpu" else ((), ("fp32",)):
        for compiled in (False, True):
            for count, sample in enumerate(operator_calls.samples(device(), (), types, layers)):
                if compiled and toy and count:
                    break  # one shows that the code runs
                key = f"{sample.name} | {COMPILED}" if compiled else sample.name
                if key not in known:
                    known.add(key)
                    yield StageRow(
                        key, lambda s=sample, c=compiled: row(s, c, toy), 25 if compiled else 15
                    )


def entries(store: Store) -> list[Entry]:
    """Every call known, its two stored rows as one entry."""
    found: dict[str, Entry] = {}
    for stored in sorted(store.stage("kernels"), key=lambda r: r["key"].endswith(COMPILED)):
        name = stored["key"].removesuffix(f" | {COMPILED}")
        found[name] = (
            operators.merge(found[name], stored["entry"]) if name in found else stored["entry"]
        )
    return list(found.values())


def summary(store: Store) -> None:
    """A line a call: every provider, and ours against the better of PyTorch's."""
    print("\n".join(tables.kernel_table(entries(store))))
