"""Whole iterations as a stage: every suite of ``fastgan bench``, rows a to i in turns, gradients judged first; one stored row a
suite, and one more with the slow compilations.

    python -m bench.gpu --stages suites
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from bench import kernels
from bench.gpu import Row
from bench.store import Store
from fastgan.bench import report, suites
from fastgan.bench import rows as rows_
from fastgan.bench.run import Bench, machine

QUICK_ROWS = ("a", "b", "c", "d", "f", "f2", "g", "h", "i")
"""All that is there within two minutes; whole-step compilation is a stored row of its own, with c and i beside it."""


def measure(name: str, letters: tuple[str, ...], toy: bool, ablation: bool = False) -> dict[str, Any]:
    """One suite's results, as `fastgan bench --json` has them."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = Bench(
        device,
        toy,
        say=lambda line: print(line, flush=True),
        children=not toy,
        repeats=3 if toy else 0,
        steps=(0, 2) if toy else (),
    )
    specs = rows_.ABLATION if ablation else [row for row in rows_.ROWS if row.letter in letters]
    found = bench.suite(suites.SUITES[name], specs, "ablation" if ablation else "rows")
    result = {"machine": machine(device), "quick": toy, "suites": [found]}
    ours = [e for e in found["rows"] if e["ours"] and "speedup" in e]
    best = min(ours, key=lambda e: e["ms"][1], default=None)
    shown = "no row of ours ran" if best is None else f"{best['row']} {best['ms'][1]:.3f} ms, {best['speedup'][1]:.2f}x"
    return {"result": result, "shown": shown}


def rows(toy: bool) -> Iterable[Row]:
    """Suites in order of worth; compiled whole steps and the ablation after them."""
    chosen = suites.TINY if toy else suites.GPU
    for suite in chosen:
        yield Row(suite.name, lambda n=suite.name: measure(n, ("a", "c", "i") if toy else QUICK_ROWS, toy), 170)
    if toy:
        return
    first = chosen[0].name
    yield Row(f"{first} | ablation", lambda: measure(first, (), toy, ablation=True), 90)
    for suite in chosen:
        yield Row(f"{suite.name} | whole step compiled", lambda n=suite.name: measure(n, ("c", "e", "i"), toy), 420)


def summary(store: Store) -> None:
    """The tables of all suites known, and one file of results for the README, operators included."""
    known = [row["result"] for row in store.stage("suites")]
    if not known:
        return
    merged = merge(known)
    print("\n" + report.table(merged))
    merged["kernels"] = kernels.entries(store)
    path = store.path.with_name(f"bench-{store.path.stem}.json")
    report.write_json(merged, path)
    print(f"suites: {path}")


def merge(results: list[dict[str, Any]]) -> dict[str, Any]:
    """One result of many: a suite's rows from its two stored rows, compared within each run, the runs beside each other."""
    return {**results[0], "suites": [suite for result in results for suite in result["suites"]]}
