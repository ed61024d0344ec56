"""Each registered op's engines against eager PyTorch and torch.compile: `fastgan bench --suite
kernels` as a resumable stage, one stored row a call, and one more with the compiler's search.

    python -m fastgan.bench.gpu --stages kernels            as a stage, with a budget
    python -m fastgan.bench.stages.operator_times [--op NAME] [--toy]     at once

GPU time by graph replay on rotated inputs; what is timed and checked is in fastgan.bench.operators.
On a CPU the shapes are tiny and say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any

import torch

from fastgan.bench import operator_calls, operators, tables
from fastgan.bench.gpu import StageRow
from fastgan.bench.operator_calls import Sample
from fastgan.bench.operators import Entry
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


def rows(toy: bool, names: tuple[str, ...] = ()) -> Iterable[StageRow]:
    """Eager and the engines of every op in the type it is used in; then the compiler, which takes
    longest; then all in fp32."""
    layers = False if toy else None
    known = set()
    for types in ((),) if toy or device().type == "cpu" else ((), ("fp32",)):
        for compiled in (False, True):
            for count, sample in enumerate(operator_calls.samples(device(), names, types, layers)):
                if compiled and toy and count:
                    break  # one shows that the code runs
                key = f"{sample.name} | {COMPILED}" if compiled else sample.name
                if key not in known:
                    known.add(key)
                    yield StageRow(
                        key, lambda s=sample, c=compiled: row(s, c, toy), 90 if compiled else 15
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


def main() -> int:
    """Measures at once and prints, without a store."""
    p = argparse.ArgumentParser(
        "python -m fastgan.bench.stages.operator_times",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--op", action="append", default=[], metavar="NAME")
    p.add_argument("--toy", action="store_true", help="quick cases, on a CPU too")
    p.add_argument("--no-compile", action="store_true")
    a = p.parse_args()
    for r in rows(a.toy, tuple(a.op)):
        if a.no_compile and r.key.endswith(COMPILED):
            continue
        try:
            values = r.run()
        except Exception as e:  # shown in its line: the other rows still count
            values = {"failed": f"{type(e).__name__}: {e}"}
        print(f"{r.key}: {values.get('failed') or values['shown']}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
