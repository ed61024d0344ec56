"""The tables of the README, made from results and put between their markers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastgan.bench.tables import headline
from fastgan.errors import FastganError

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
NOT_MEASURED = "GPU figures: not measured yet."
HEADS = (
    "| iteration | tutorial loop, ms | PyTorch's best, ms (row) | fastgan, ms (row) "
    "| against PyTorch's best | against the tutorial |"
)


def _headline(suite: Mapping[str, Any]) -> tuple[float, str] | None:
    """(speed-up, the README's line) of our best row against the best of the others."""
    timed = [e for e in suite["rows"] if "ms" in e]
    ours = min((e for e in timed if e["ours"]), key=lambda e: e["ms"][1], default=None)
    if ours is None or "speedup" not in ours:
        return None
    best = next(e for e in timed if e["row"] == ours["best"])
    first = next((e for e in timed if e["row"] == "a"), None)
    low, mid, high = ours["speedup"]
    return mid, (
        f"| {suite['what']} | {'-' if first is None else format(first['ms'][1], '.2f')} | "
        f"{best['ms'][1]:.2f} ({best['row']}) "
        f"| {ours['ms'][1]:.2f} ({ours['row']}) | {mid:.2f}x ({low:.2f} to {high:.2f}) "
        f"| {'-' if first is None else format(ours['vs_a'][1], '.2f') + 'x'} |"
    )


KERNEL_HEADS = (
    "| operator | direction | shapes | against the better of eager and compile, "
    "geomean "
    "| worst | of the floor |"
)


def _kernel_lines(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The README's line an operator and direction, of the engine that auto takes. A CPU's tiny
    shapes are not for quoting."""
    groups: dict[tuple[str, str], list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for entry in entries:
        row = headline(entry)
        if row is not None and entry["device"] != "cpu":
            groups.setdefault((entry["op"], entry["direction"]), []).append((entry, row))
    lines = []
    for (op, direction), members in groups.items():
        speed = [row["speedup"][1] for _, row in members]
        mean = math.exp(sum(map(math.log, speed)) / len(speed))
        entry, worst = min(members, key=lambda member: member[1]["speedup"][1])
        shares = [100 * row["roofline"] for _, row in members if "roofline" in row]
        floor = f"{min(shares):.0f} to {max(shares):.0f} %" if shares else "-"
        way = "forward" if direction == "forward" else "forward and backward"
        lines.append(
            f"| {op} | {way} | {len(members)} | {mean:.2f}x "
            f"| {worst['speedup'][1]:.2f}x ({entry['case']}, {entry['type']}; {worst['best']}) | "
            f"{floor} |"
        )
    return lines


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """The README's tables: best of the others, ours, speed-up with its spread, losses included;
    what was not measured, said."""
    lines: list[str] = []
    if not any(not r["machine"]["device"].startswith("CPU") for r in results):
        lines += [NOT_MEASURED, ""]
    for result in results:
        about = result["machine"]
        by_suite: dict[str, tuple[float, str]] = {}
        for suite in result["suites"]:
            if (
                suite["kind"] != "rows"
                or suite["suite"].startswith("tiny-")
                or (line := _headline(suite)) is None
            ):
                continue
            # Where a suite was run in two parts, the part with the stronger rival counts.
            by_suite[suite["suite"]] = min(line, by_suite.get(suite["suite"], line))
        rows = [line for _, line in by_suite.values()]
        ops = _kernel_lines(result.get("kernels", []))
        if rows or ops:
            cpu = about["device"].startswith("CPU")
            facts = (
                (about.get("instructions") or "", f"{about['threads']} threads")
                if cpu
                else (f"driver {about['driver']}", f"triton {about['triton']}")
            )
            about_line = ", ".join(
                (
                    about["device"],
                    *facts,
                    f"torch {about['torch']}",
                    f"commit {about['commit']}",
                    about["date"],
                )
            )
            lines += [about_line + ":", ""]
            lines += [HEADS, "|---|---:|---:|---:|---:|---:|", *rows, ""] if rows else []
            lines += [KERNEL_HEADS, "|---|---|---:|---:|---|---:|", *ops, ""] if ops else []
    return "\n".join(lines).rstrip() + "\n"


def fill(text: str, table: str) -> str:
    """`text` with what stands between the markers replaced. Raises FastganError where they are
    missing."""
    if BEGIN not in text or END not in text:
        raise FastganError(
            f"no place for the table: put {BEGIN} and {END} into the file, on lines of their own"
        )
    head, rest = text.split(BEGIN, 1)
    _, tail = rest.split(END, 1)
    return f"{head}{BEGIN}\n{table}{END}{tail}"
