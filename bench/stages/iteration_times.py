"""Whole iterations as a stage: every suite of ``fastgan bench``, rows a to i in turns, gradients
judged first; one stored row a suite.

    fastgan bench --stages suites
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch

from fastgan import machine
from fastgan.bench import result_files, tables
from fastgan.bench.benchmark import Bench
from fastgan.bench.iterations import rows as rows_
from fastgan.bench.iterations import suites
from fastgan.bench.stages import operator_times
from fastgan.bench.stages.plan import StageRow
from fastgan.bench.store import Store

Keep = Callable[[dict[str, Any]], None]
WARM = 25.0  # seconds that a row takes to build whose compilation lies in a cache


def measure(
    name: str,
    chosen: Collection[str],
    toy: bool,
    ablation: bool = False,
    keep: Keep | None = None,
    until: float = float("inf"),
    warm: Sequence[str] = (),
    skip: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """One suite's results, as `fastgan bench --json` has them.

    chosen: keys of rows. keep: gets results of the rows that are known early. until: on
        time.monotonic's clock. warm: rows whose compilation lies in a cache. skip: rows that are
        known to fail, and why.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def outcome(found: dict[str, Any]) -> dict[str, Any]:
        failed = [
            (row, skip[row.key])
            for row in rows_.ROWS
            if skip and row.key in skip and row.key in chosen
        ]
        there = {entry["row"] for entry in found["rows"]}
        found["rows"] += [
            {
                "row": row.key,
                "label": row.title(device),
                "ours": row.ours,
                "status": "failed",
                "error": why,
            }
            for row, why in failed
            if row.key not in there
        ]
        result = {"machine": machine.describe(device), "quick": toy, "suites": [found]}
        ours = [e for e in found["rows"] if e["ours"] and "speedup" in e]
        best = min(ours, key=lambda e: e["ms"][1], default=None)
        shown = (
            "no row of ours ran"
            if best is None
            else f"{best['row']} {best['ms'][1]:.3f} ms, {best['speedup'][1]:.2f}x {best['best']}"
        )
        shown += "".join(
            f", {launches(e):.0f} launches in {e['row']}" for e in ours if "kernels" in e
        )
        return {"result": result, "shown": shown}

    bench = Bench(
        device,
        toy,
        say=lambda line: print(line, flush=True),
        children=False,  # start-up is a stage of its own
        repeats=3 if toy else 0,
        steps=(0, 2) if toy else (),
        profile=not toy,
        takes=dict.fromkeys(warm, WARM),
        keep=None if keep is None else lambda found: keep(outcome(found)),
    )
    specs = (
        rows_.ABLATION
        if ablation
        else [r for r in rows_.ROWS if r.key in chosen and r.key not in (skip or ())]
    )
    return outcome(
        bench.suite(suites.SUITES[name], specs, "ablation" if ablation else "rows", until)
    )


def launches(entry: dict[str, Any]) -> float:
    """Of one step, as torch's profiler counted them; nan where it could not."""
    kernels = entry["kernels"]
    return float("nan") if "error" in kernels else sum(count for count, _ in kernels.values())


def rows(toy: bool) -> Iterable[StageRow]:
    """Suites in order of worth, then the ablation."""
    chosen = suites.TINY if toy else suites.GPU
    everything = ("a", "c", "i") if toy else tuple(row.key for row in rows_.ROWS if not row.cpu)
    for suite in chosen:
        yield StageRow(
            suite.name,
            lambda n=suite.name, only=(), **kw: measure(n, only or everything, toy, **kw),
            150,
        )
    if not toy:
        first = chosen[0].name
        yield StageRow(
            f"{first} | ablation",
            lambda only=(), **kw: measure(first, (), toy, ablation=True, **kw),
            90,
        )


def run_row(
    row: StageRow, store: Store, until: float, only: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A row within its time, of the suite's table the rows named or all; what it knows early is
    stored at once. Rows that could not be built by themselves are not tried again here.
    """
    started = {
        r["key"].removeprefix(f"{row.key} "): r
        for r in store.latest("warm")
        if r["key"].startswith(f"{row.key} ")
    }
    skip = {
        key: r["failed"]
        for key, r in started.items()
        if "failed" in r and not r["failed"].startswith("timed out")
    }
    keep = lambda values: store.add("suites", row.key, row.ours, {**values, "partial": True})
    return row.run(
        only=only,
        keep=keep,
        until=until - 5,
        warm=[key for key in started if key not in skip],
        skip=skip,
    )


def summary(store: Store) -> None:
    """The tables of all suites known, and one file of results for the README, operators
    included."""
    known = [row["result"] for row in store.stage("suites")]
    if not known:
        return
    merged = merge(known)
    print("\n" + tables.table(merged))
    merged["kernels"] = operator_times.entries(store)
    path = store.path.with_name(f"bench-{store.path.stem}.json")
    result_files.write_json(merged, path)
    print(f"suites: {path}")


def merge(results: list[dict[str, Any]]) -> dict[str, Any]:
    """One result of many: a suite's rows from its two stored rows, compared within each run, the
    runs beside each other."""
    return {**results[0], "suites": [suite for result in results for suite in result["suites"]]}
