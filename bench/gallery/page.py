"""docs/gallery.md from what was measured: `fastgan gallery --page`, and at the end of a
measurement."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgan.bench.gallery.measure import PICTURES, ROOT, SEEDS, kept, needed
from fastgan.bench.gallery.rows import CLOSE, FD, ROWS, Measure, Rival, Row
from fastgan.bench.gallery.trainings import LONGER, TRAININGS

PAGE = ROOT / "docs" / "gallery.md"
BEGIN, END = "<!-- gallery: begin -->", "<!-- gallery: end -->"
BEGIN_LONGER, END_LONGER = "<!-- longer: begin -->", "<!-- longer: end -->"


@dataclass(frozen=True)
class Numbers:
    """One number of several seeds, by default of the first ones."""

    values: tuple[float, ...]
    seeds: tuple[int, ...] = ()

    @property
    def by_seed(self) -> dict[int, float]:
        return dict(zip(self.seeds or range(len(self.values)), self.values, strict=True))

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def spread(self) -> float:
        """The standard deviation over seeds, 0 of one."""
        if len(self.values) < 2:
            return 0.0
        square = math.fsum((value - self.mean) ** 2 for value in self.values)
        return math.sqrt(square / (len(self.values) - 1))

    def __str__(self) -> str:
        digits = decimals(self.mean)
        text = f"{self.mean:.{digits}f}"
        return text if len(self.values) < 2 else f"{text} ± {self.spread:.{digits}f}"


def decimals(value: float) -> int:
    """Digits after the point so that three count, but for large numbers."""
    return max(0, min(4, 2 - math.floor(math.log10(abs(value))))) if value else 1


def at(found: Mapping[str, Any], key: str) -> float | None:
    """The number at a path of an evaluation."""
    place: Any = found
    for part in key.split("/"):
        if not isinstance(place, Mapping) or part not in place:
            return None
        place = place[part]
    return float(place)


def of(run: str, key: str, factor: float) -> Numbers | None:
    """That number of each seed of a training, or None where it isn't known."""
    every = {seed: at(found["evaluation"], key) for seed, found in kept(run).items()}
    have = {seed: value * factor for seed, value in every.items() if value is not None}
    return Numbers(tuple(have.values()), tuple(have)) if have else None


def own(row: Row, one: Measure) -> Numbers | None:
    """A result of a row, of each seed that is there."""
    return of(one.run or row.run, one.key, one.factor)


def rival_numbers(row: Row, one: Measure, rival: Rival) -> Numbers | None:
    """The same of what it has to beat."""
    if rival.value is not None:
        return Numbers((rival.value,))
    return of(rival.run or one.run or row.run, rival.key or one.key, one.factor)


def partial(numbers: Numbers) -> str:
    """How many seeds there are, where they aren't all."""
    count = len(numbers.values)
    return f" ({count} of {len(SEEDS)} seeds)" if count < len(SEEDS) else ""


def verdict(mine: Numbers, other: Numbers, higher: bool, paired: bool = False) -> str:
    """ "yes" or "no" where every seed of one is better than every one of the other; "seed by seed"
    where, if paired, each is better than the same seed; "in the mean" where they overlap."""
    sign = 1 if higher else -1
    a, b = ([sign * value for value in one.values] for one in (mine, other))
    if min(a) > max(b):
        return "yes"
    if max(a) < min(b):
        return "**no**"
    same, those = mine.by_seed, other.by_seed
    if paired and set(same) == set(those):
        if all(sign * (value - those[seed]) > 0 for seed, value in same.items()):
            return "yes, seed by seed"
        if all(sign * (value - those[seed]) < 0 for seed, value in same.items()):
            return "**no**, seed by seed"
    return "in the mean" if sign * (mine.mean - other.mean) > 0 else "**no**, in the mean"


def spent(run: str) -> float | None:
    """Mean CPU seconds of a training on the CPU that made most of its seeds, or None where it
    isn't made."""
    by: dict[str, list[float]] = {}
    for found in kept(run).values():
        by.setdefault(found["cpu"], []).append(found["cpu_seconds"])
    seconds = max(by.values(), key=len, default=[])
    return math.fsum(seconds) / len(seconds) if seconds else None


def price(seconds: float | None) -> str:
    """What stands behind the name of another training."""
    return "" if seconds is None else f" ({seconds:.0f} s)"


def cells(row: Row) -> list[str]:
    """Kind, seconds, results, what was to beat, whether it was, the remark."""
    name, seconds = f"[{row.kind}](kinds/{row.kind}.md)", spent(row.run)
    if seconds is None:
        return [name, "", "not measured", "", "not measured", row.remark]
    results, others, verdicts = [], [], []
    for one in row.measures:
        mine = own(row, one)
        if mine is None:
            continue
        own_cost = spent(one.run) if one.run is not None else None
        results.append(f"{one.label}{price(own_cost)} {mine}{partial(mine)}")
        for rival in one.rivals:
            other = rival_numbers(row, one, rival)
            if other is not None:
                cost = spent(rival.run) if rival.run is not None else None
                few = partial(other) if rival.run is not None else ""
                others.append(f"{rival.label}{price(cost)}: {other}{few}")
                answer = verdict(mine, other, one.higher, rival.paired)
                verdicts.append("" if rival.ceiling else answer)
    joined = [";<br>".join(part) for part in (results, others, verdicts)]
    return [name, f"{seconds:.0f}", *joined, row.remark]


def won(row: Row) -> str | None:
    """ "yes" where the row's first result is better than all it has to beat in every seed, "in the
    mean" where some seeds overlap, "no", or None where a seed of either isn't measured."""
    if not row.measures:
        return None
    one = row.measures[0]
    rivals = [rival for rival in one.rivals if not rival.ceiling]
    mine, others = own(row, one), [rival_numbers(row, one, rival) for rival in rivals]
    if mine is None or partial(mine):
        return None
    answers = set()
    for rival, other in zip(rivals, others, strict=True):
        if other is None or (rival.value is None and partial(other)):
            return None
        answers.add(verdict(mine, other, one.higher, rival.paired).split(",")[0])
    return next((a for a in ("yes", "in the mean") if answers <= {"yes", a}), "no")


def summary(rows: Sequence[Row] = ROWS) -> str:
    """How many kinds beat what stands beside them, and which do not."""
    by = {
        answer: [row.kind for row in rows if won(row) == answer]
        for answer in ("yes", "in the mean", "no", None)
    }
    means = f" ({', '.join(by['in the mean'])})" if by["in the mean"] else ""
    lines = [
        f"**{len(by['yes'])} of {len(rows)} kinds beat all that their first result is compared "
        f"with in every seed**, {len(by['in the mean'])} more in the mean of the seeds{means}."
    ]
    lines += [f"Not better than it: {', '.join(by['no'])}."] if by["no"] else []
    lines += [f"Not measured: {', '.join(by[None])}."] if by[None] else []
    return textwrap.fill(" ".join(lines), 100, break_on_hyphens=False)


HEAD = ("kind", "CPU seconds", "result", "to beat", "beaten?", "")


def table(rows: Sequence[Row] = ROWS) -> str:
    lines = [HEAD, ("---", "---:", "---", "---", "---", "---"), *(cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def commands(rows: Sequence[Row] = ROWS) -> str:
    """The options of each training, its seed and folder left out."""
    names = [name for name in needed(row.kind for row in rows) if name in TRAININGS]
    lines = [("training", "options of `fastgan train`", "CPU"), ("---", "---", "---")]
    lines += [(name, f"`{TRAININGS[name]}`", machines(name)) for name in names]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machines(name: str) -> str:
    """The CPUs that a training was made on."""
    return ", ".join(sorted({found["cpu"] for found in kept(name).values()}))


def longer() -> str:
    """Three minutes of the kinds for larger images, those that are there."""
    heads = ("kind", "options of `fastgan train --seed 0`", "CPU", "CPU seconds", FD, CLOSE)
    lines: list[tuple[str, ...]] = [heads, ("---", "---", "---", "---:", "---:", "---:")]
    for kind, options in LONGER.items():
        name = f"longer-{kind}"
        if (seconds := spent(name)) is not None:
            found = (of(name, key, 1) for key in (FD, CLOSE))
            numbers = ["not measured" if one is None else str(one) for one in found]
            lines.append((kind, f"`{options}`", machines(name), f"{seconds:.0f}", *numbers))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def pictures(rows: Sequence[Row] = ROWS) -> str:
    """The picture of each kind that has one."""
    found = []
    for row in rows:
        if (PICTURES / f"{row.kind}.png").is_file():
            found.append(f"**{row.kind}**\n\n![{row.kind}](images/gallery/{row.kind}.png)")
    return "\n\n".join(found)


def write(path: Path = PAGE) -> None:
    """Put the tables, commands and pictures into the page, between its marks."""
    parts = [summary(), table(), "The trainings:", commands(), "Seed 0 of each:", pictures()]
    text = put(path.read_text("utf-8"), BEGIN, END, "\n\n".join(parts))
    path.write_text(put(text, BEGIN_LONGER, END_LONGER, longer()), "utf-8")


def put(text: str, begin: str, end: str, made: str) -> str:
    """The text with what stands between two marks replaced."""
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{made}\n\n{end}{rest.split(end)[1]}"
