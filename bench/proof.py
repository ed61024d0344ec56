"""The proof on a GPU as a stage: one row an op, so that a run cut short keeps what it has shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from bench.gpu import Row
from bench.store import Store
from fastgan.ops import registry
from fastgan.verify.report import worst_rows
from fastgan.verify.run import execute, plan

LEVEL = "quick"


def prove(name: str, level: str) -> dict[str, Any]:
    """Verdict of one op at a level on this device, its worst error over bound, and every failure."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    jobs, not_exercised = plan(registry.ops(name), level, device)
    rows = [row for job in jobs for row in execute(job, device)[0]]
    failures = [
        f"{r.case} {r.type} {r.engine} {r.direction} {r.output}: {r.note} ({r.error:.2e})" for r in rows if r.verdict == "FAIL"
    ]
    worst = max((r for r in rows if r.verdict == "pass"), key=lambda r: r.worst, default=None)
    shown = f"{len(rows)} outputs, {len(failures)} failed" + (
        f", closest to its bound {worst.worst:.2f} ({worst.case} {worst.type})" if worst else ""
    )
    return {
        "outputs": len(rows),
        "failures": failures,
        "worst": worst.worst if worst else 0.0,
        "errors": {f"{r.case} {r.type} {r.engine} {r.direction}": r.error for r in worst_rows(rows)},
        "not_exercised": not_exercised,
        "shown": "; ".join([shown, *failures[:3]]),
    }


def rows(toy: bool, level: str = LEVEL) -> Iterable[Row]:
    """One row an op."""
    for op in registry.load().values():
        yield Row(op.name, lambda name=op.name: prove(name, level), seconds=10 if level == "quick" else 40)


def summary(store: Store, stage: str = "verify") -> None:
    """Which ops failed."""
    known = store.stage(stage)
    failed = [r["key"] for r in known if r["failures"]]
    verdict = f"FAILED: {', '.join(failed)}" if failed else "all passed" if known else "not run"
    print(f"\n{stage}: {len(known)} ops proved, {verdict}")
