"""How a verify report reads on a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastgan.verify.check import CheckRow
from fastgan.verify.runner import Report, exceptions


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()
) -> list[str]:
    """Lines of an aligned table; columns in ``right`` are right-aligned."""
    widths = [max(len(str(r[i])) for r in [head, *rows]) for i in range(len(head))]
    cell = lambda i, text: str(text).rjust(widths[i]) if i in right else str(text).ljust(widths[i])
    line = lambda r: "  ".join(cell(i, c) for i, c in enumerate(r)).rstrip()
    return [line(head), "  ".join("-" * w for w in widths), *(line(r) for r in rows)]


def number(value: float) -> str:
    """Two digits: ``1.2e-07``; ``0`` and ``inf`` as such."""
    return "0" if value == 0 else "inf" if math.isinf(value) else f"{value:.1e}"


def worst_rows(rows: Sequence[CheckRow]) -> list[CheckRow]:
    """One row per (op, case, type, engine, direction): the output closest to, or furthest over, its
    bounds; every failure is kept.
    """
    kept: dict[tuple[str, ...], CheckRow] = {}
    failures = []
    for r in rows:
        key = (r.op, r.case, r.type, r.engine, r.direction)
        if r.verdict == "FAIL":
            failures.append(r)
        elif key not in kept or r.worst > kept[key].worst:
            kept[key] = r
    order = {id(r): i for i, r in enumerate(rows)}
    return sorted([*(r for k, r in kept.items()), *failures], key=lambda r: order[id(r)])


def text(report: Report, everything: bool = False) -> str:
    """The whole report: table, exceptions to the bounds, what was not exercised, summary. Passing
    configuration sweeps are folded unless ``everything``.
    """
    rows = report.rows if everything else worst_rows(report.rows)
    # "bound" beside the error is the tighter of the two L2 bounds: the general one, and twice
    # PyTorch's own error
    head = (
        "op",
        "case",
        "type",
        "engine",
        "direction",
        "output",
        "error",
        "bound",
        "PyTorch",
        "peak",
        "bound",
        "verdict",
        "",
    )
    shown = [r for r in rows if everything or r.verdict == "FAIL" or "[" not in r.case]
    cells = [
        [r.op, r.case, r.type, r.engine, r.direction, r.output]
        + [number(v) for v in (r.error, min(r.limit, r.own_limit), r.own, r.peak, r.peak_limit)]
        + [r.verdict, r.note]
        for r in shown
    ]
    lines = table(head, cells, right=(6, 7, 8, 9, 10)) if cells else ["nothing was checked"]
    folded = len(rows) - len(cells)
    if folded:
        lines.append(f"and {folded} passing rows of launch configurations (--all lists them)")
    if some := exceptions({r.op for r in report.rows}):
        lines += ["", "exceptions to the bounds:", *(f"  {line}" for line in some)]
    if report.not_exercised:
        lines += ["", "not exercised in this run:", *(f"  {line}" for line in report.not_exercised)]
    failures = [r for r in report.rows if r.verdict == "FAIL"]
    env = report.environment
    where = env["device"] if env["mode"] == "GPU" else env["mode"]
    where += f", torch {env['torch']}, triton {env['triton']}"
    checked = len({r.op for r in report.rows})
    lines += ["", f"{checked} ops, {len(report.rows)} outputs, {report.seconds:.0f} s ({where})"]
    if report.slowest and report.seconds > 30:
        lines.append(
            "slowest: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.slowest)
        )
    if failures:
        names = ", ".join(dict.fromkeys(r.op for r in failures))
        lines.append(f"FAILED: {len(failures)} of {len(report.rows)} outputs ({names})")
    else:
        lines.append("every check passed" if report.rows else "FAILED: nothing was checked")
    return "\n".join(lines)
