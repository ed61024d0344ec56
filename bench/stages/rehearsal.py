"""A dry run of the plan on a simulated clock: what two calls would measure if every row took a
share of the time that it declares. Nothing runs, no GPU is needed.

    fastgan bench --rehearse

The rules are the plan's own: its groups and budget, what starts a row, what the clock kills. A
suite's rows are built in its order, each only while its own seconds fit; its time is spread over
them evenly. Every process imports for IMPORT seconds before its clock runs.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fastgan.bench.benchmark import QUICKLY
from fastgan.bench.iterations import rows as rows_
from fastgan.bench.stages import parts, plan, proof
from fastgan.bench.stages.iteration_times import WARM
from fastgan.verify import registry

SHARES = (0.5, 1.0, 1.5)
CALLS = 2
IMPORT = 12.0
HEADLINE = "dcgan-64-b128"
"""The suite that the README's first line is of: it is there once rows_.FIRST are."""


@dataclass
class Rehearsal:
    """What is known, and when: seconds of the simulated clock since the first call's start."""

    share: float
    known: dict[str, set[str]] = field(default_factory=dict)
    at: dict[str, float] = field(default_factory=dict)
    headline: float | None = None

    def has(self, stage: str, key: str) -> bool:
        return key in self.known.get(stage, ())

    def add(self, stage: str, key: str, now: float) -> None:
        self.known.setdefault(stage, set()).add(key)
        self.at[f"{stage} {key}"] = now


def declared(stage: str) -> list[tuple[str, float]]:
    """(key, seconds) of a stage's rows on a GPU, in order."""
    if stage == "verify":  # its rows depend on the device: each type of each operator here
        return [
            (f"{op.name} {kind}", proof.SECONDS[op.uses_dot])
            for op in registry.load().values()
            for kind in op.dtypes
        ]
    module = importlib.import_module(plan.STAGES[stage][0])
    return [(row.key, row.seconds) for row in module.rows(False)]


def suite(
    found: Rehearsal, name: str, whole: float, only: Sequence[str], now: float, end: float
) -> tuple[float, bool]:
    """(when a suite's row ends, whether nothing of it is missing); notes when the headline is
    there."""
    everything = [row for row in rows_.ROWS if not row.cpu]
    each, quick = whole * found.share / len(everything), True
    chosen = [row for row in everything if not only or row.key in only]
    built: set[str] = set()
    for row in sorted(chosen, key=rows_.worth):
        if quick and row.seconds > QUICKLY:
            quick = False
            note_headline(found, name, built, now)
        warm = found.has("warm", f"{name} {row.key}")
        if end - 5 - now >= (WARM if warm else row.seconds):
            now += each
            built.add(row.key)
    note_headline(found, name, built, now)
    return now, len(built) == len(chosen)


def note_headline(found: Rehearsal, name: str, built: set[str], now: float) -> None:
    if name == HEADLINE and built.issuperset(rows_.FIRST) and found.headline is None:
        found.headline = now


def run_part(
    found: Rehearsal, part: parts.Part, rows: Sequence[tuple[str, float]], now: float
) -> float:
    """When a part that starts now ends."""
    start = now + IMPORT
    end, now = start + part.seconds, start
    for key, seconds in rows:
        stage, known = ("suites", key.split()[0]) if part.again else (part.stage, key)
        if not re.match(part.rows, key) or found.has(stage, known):
            continue
        if not plan.fits(end - now, seconds, part):
            continue
        if part.stage == "suites":
            now, whole = suite(found, key, seconds, part.only, now, end)
            if whole:
                found.add(part.stage, key, now)
            continue
        now += found.share * seconds
        if now > end + plan.GRACE - IMPORT:  # the clock kills it; a new process would have no time
            return end + plan.GRACE - IMPORT
        if not part.prefetch:
            found.add(part.stage, key, now)
    return now


def rehearse(share: float, calls: int = CALLS, budget: float = plan.BUDGET) -> Rehearsal:
    """The plan, `calls` times with `budget` seconds each, where a row takes `share` of its
    seconds."""
    found = Rehearsal(share)
    rows = {stage: declared(stage) for stage in plan.STAGES}
    for call in range(calls):
        now, end = call * budget, (call + 1) * budget
        groups = plan.groups((), False)
        for index, group in enumerate(groups):
            remaining = end - now
            if remaining <= 5:
                break
            given = plan.share(remaining, index == len(groups) - 1)
            fitting = [replace(p, seconds=min(p.seconds or given, remaining)) for p in group]
            now = max(run_part(found, part, rows[part.stage], now) for part in fitting)
    return found


def table() -> str:
    """Markdown: rows measured of each stage after each call, by the share of the declared time."""
    stages = {stage: len(declared(stage)) for stage in plan.STAGES}
    lines = [
        "| each row takes | calls | headline after | " + " | ".join(stages) + " |",
        "|---|---:|---:|" + "---:|" * len(stages),
        "| declared rows | | | " + " | ".join(map(str, stages.values())) + " |",
    ]
    for share in SHARES:
        for calls in range(1, CALLS + 1):
            found = rehearse(share, calls)
            said = "no" if found.headline is None else f"{found.headline:.0f} s"
            counts = [str(len(found.known.get(stage, ()))) for stage in stages]
            lines.append(f"| {share:.0%} | {calls} | {said} | " + " | ".join(counts) + " |")
    return "\n".join(lines)
