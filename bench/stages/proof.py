"""The proof on a GPU as a stage: one row an op and type, so that a run cut short keeps what it has
shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from fastgan.bench.stages.plan import StageRow
from fastgan.bench.store import Store
from fastgan.verify import registry
from fastgan.verify.report import worst_rows
from fastgan.verify.runner import CheckJob, execute, plan

SECONDS = {True: 120.0, False: 20.0}  # by uses_dot: kernels with products compile for minutes


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def key_of(job: CheckJob, level: str) -> str:
    """The row a check belongs to: its op and type; at level full also its case, or the kernel whose
    configurations it tries."""
    part = f" {job.config[0] if job.config else job.case}" if level == "full" else ""
    return f"{job.op} {job.type}{part}"


def prove(name: str, level: str, key: str) -> dict[str, Any]:
    """Verdict of one row of an op on this device, its worst error over bound, and every failure."""
    device = _device()
    jobs, not_exercised = plan(registry.ops(name), level, device)
    rows = [row for job in jobs if key_of(job, level) == key for row in execute(job, device)[0]]
    failures = [
        f"{r.case} {r.type} {r.engine} {r.direction} {r.output}: {r.note} ({r.error:.2e})"
        for r in rows
        if r.verdict == "FAIL"
    ]
    worst = max((r for r in rows if r.verdict == "pass"), key=lambda r: r.worst, default=None)
    shown = f"{len(rows)} outputs, {len(failures)} failed" + (
        f", closest to its bound {worst.worst:.2f} ({worst.case} {worst.type})" if worst else ""
    )
    return {
        "op": name,
        "outputs": len(rows),
        "failures": failures,
        "worst": worst.worst if worst else 0.0,
        "errors": {
            f"{r.case} {r.type} {r.engine} {r.direction}": r.error for r in worst_rows(rows)
        },
        "not_exercised": not_exercised,
        "shown": "; ".join(
            [shown if rows else "nothing to run: " + "; ".join(not_exercised), *failures[:3]]
        ),
    }


def rows(toy: bool) -> Iterable[StageRow]:
    """One row an op and type (:func:`key_of`), then the level full: layer shapes, every
    configuration of the tables, addresses beyond 2^31; an op with nothing to run has one that says
    why.
    """
    for level in ("quick",) if toy else ("quick", "full"):
        before = "" if level == "quick" else "full: "
        for op in registry.load().values():
            jobs, _ = plan([op], level, _device())
            for key in dict.fromkeys(key_of(job, level) for job in jobs) or [op.name]:
                yield StageRow(
                    f"{before}{key}",
                    lambda a=(op.name, level, key): prove(*a),
                    SECONDS[op.uses_dot],
                )


def summary(store: Store) -> None:
    """Which rows failed."""
    known = [r for r in store.stage("verify") if r["outputs"]]
    failed = [r["key"] for r in known if r["failures"]]
    verdict = f"FAILED: {', '.join(failed)}" if failed else "all passed" if known else "not run"
    print(f"\nverify: {len({r['op'] for r in known})} ops proved in {len(known)} rows, {verdict}")
