"""Runs side by side: their measures, the options that differ, their newest samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from fastgan.errors import FastganError, printable
from fastgan.monitor.pictures.charts import is_number, shorten
from fastgan.reports.reading import Story, number, parameters, read_grid, read_story

LOWER, HIGHER = ("KD-", "FD-", "FID", "KID"), ("precision", "recall", "density", "coverage", "IS")
SHOWN = ("precision", "recall", "density", "coverage", "memorised", "near_copies")
ALIKE = ("judge", "key", "data", "n", "n_reference")
"""What of two evaluations must be equal for their distances to be compared."""

WIDE, LABEL, CELL = 79, 24, 13
SIDE = 640
"""Pixels of the longer side of each run's samples in the picture."""


@dataclass(frozen=True)
class Comparison:
    """names: of the runs, each another one. measured, trained, options: row -> a value for each
    run, None where it has none. best: rows of `measured` whose best run is clearly so -> its
    index. notes: what a reader must know. pictures: what was real, then the newest samples of
    each run, with their captions."""

    names: list[str]
    measured: dict[str, list[Any]]
    trained: dict[str, list[Any]]
    options: dict[str, list[Any]]
    best: dict[str, int]
    notes: list[str]
    pictures: list[tuple[str, Image.Image]]

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        tables = {"measured": self.measured, "trained": self.trained, "options": self.options}
        return {"runs": self.names, **tables, "best": self.best, "notes": self.notes}

    def __str__(self) -> str:
        lines = []
        per = max(1, (WIDE - LABEL) // CELL)
        for first in range(0, len(self.names), per):
            part = slice(first, first + per)
            lines.append(" " * LABEL + "".join(_fit(n, CELL - 1, True) for n in self.names[part]))
            for title, rows in (
                ("", self.measured),
                ("training", self.trained),
                ("options that differ", self.options),
            ):
                lines += ["", f"{title}:"] if title and rows else []
                for name, values in rows.items():
                    cells = [
                        _cell(value) + ("*" if self.best.get(name) == i else " ")
                        for i, value in enumerate(values)
                    ]
                    lines.append(_fit(name, LABEL) + "".join(f"{c:>{CELL}}" for c in cells[part]))
            lines.append("")
        if self.best:
            lines.append("* better than all others by more than two standard errors")
        return "\n".join([*map(str.rstrip, lines), *self.notes])

    def picture(self, columns: int = 4) -> Image.Image | None:
        """Samples side by side with captions; None where there are none."""
        if not self.pictures:
            return None
        line, gap = 24, 8
        columns = min(columns, len(self.pictures))
        wide, high = (max(p.size[i] for _, p in self.pictures) for i in (0, 1))
        rows = -(-len(self.pictures) // columns)
        made = Image.new(
            "RGB", (columns * (wide + gap) + gap, rows * (high + line + gap)), (255, 255, 255)
        )
        pen, font = ImageDraw.Draw(made), ImageFont.load_default(14)
        for i, (caption, picture) in enumerate(self.pictures):
            x, y = gap + i % columns * (wide + gap), i // columns * (high + line + gap)
            text = shorten(caption, font, wide)
            pen.text((x + wide / 2, y + line / 2), text, (38, 41, 46), font, anchor="mm")
            made.paste(picture, (x + (wide - picture.width) // 2, y + line))
        return made


def compare(runs: Sequence[str | Path]) -> Comparison:
    """What the folders of at least two runs tell. Nothing of them is executed. Raises
    FastganError."""
    if len(runs) < 2:
        raise FastganError("give two runs or more to compare")
    stories = [read_story(run) for run in runs]
    names = [printable(story.name) for story in stories]
    names = [
        name if names.count(name) == 1 else printable(str(story.path))
        for name, story in zip(names, stories)
    ]
    if len(set(names)) < len(names):
        raise FastganError("a run is named twice: give different ones")
    measured = _table([dict(_measures(story.evaluation)) for story in stories])
    errors = [_errors(story.evaluation) for story in stories]
    notes = _notes(names, stories)
    alike = not any("not comparable" in note for note in notes)
    return Comparison(
        names,
        measured,
        _table([dict(_training(story)) for story in stories]),
        _differing([story.config for story in stories]),
        _clear(measured, errors) if alike else {},
        notes,
        list(_pictures(names, stories)),
    )


def _measures(found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Numbers of an evaluation that rank runs."""
    if "judge" not in found:  # a kind's own measure
        yield from _numbers(found.get("rows", found))
        return
    for name, value in found.items():
        distance = name.startswith(LOWER) and " " not in name
        if _good(value) and (distance or name in (*SHOWN, "FID", "KID", "IS")):
            yield printable(name), number(value)
    yield from _numbers(found.get("measures"))


def _numbers(tree: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in tree.items() if isinstance(tree, dict) else ():
        if _good(value) and name not in ("step", "seed"):
            yield printable(f"{prefix}{name}"), number(value)
        elif not prefix:
            yield from _numbers(value, f"{name}: ")


def _good(value: Any) -> bool:
    return is_number(value) and math.isfinite(number(value))


def _errors(found: Mapping[str, Any]) -> dict[str, float]:
    """Standard errors by the names of `_measures`."""
    errors = {}
    for part in ("small", "general"):  # the general one's neighbours are those shown
        one = found.get(part)
        if isinstance(one, dict) and isinstance(one.get("error"), dict):
            for name, value in one["error"].items():
                title = f"{name.upper()}-{one.get('name')}" if name in ("kd", "fd") else name
                if _good(value):
                    errors[title] = number(value)
    return errors


def _training(story: Story) -> Iterator[tuple[str, Any]]:
    yield "steps", story.step
    if (seen := story.last("images")) is not None:
        yield "images seen", int(seen)
    if (seconds := story.seconds()) is not None:
        yield "minutes", seconds / 60
    if (speed := story.last("images_per_s")) is not None:
        yield "images per second", speed
    for name, count in parameters(story.facts).items():
        yield f"parameters of {printable(name)}", count
    for key in story.metrics():
        if key.startswith("evaluation/KD-"):
            curve = [(v, step) for step, v in story.curve(key) if math.isfinite(v)]
            if curve:
                yield f"best {printable(key.removeprefix('evaluation/'))}", min(curve)[0]
    yield "warnings", len(story.alerts)


def _table(columns: list[dict[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: [column.get(name) for column in columns] for name in names}


APART = ("out", "progress")
"""Options that say nothing about a training."""


def _differing(configs: list[dict[str, Any]]) -> dict[str, list[Any]]:
    rows = _table([{printable(str(k)): v for k, v in c.items() if k not in APART} for c in configs])
    return {
        name: [None if v is None else printable(str(v)) for v in values]
        for name, values in rows.items()
        if any(value != values[0] for value in values)
    }


def _clear(measured: dict[str, list[Any]], errors: list[dict[str, float]]) -> dict[str, int]:
    """Rows of which one run is better than each other one by more than two standard errors of the
    difference -> that run."""
    found = {}
    for name, values in measured.items():
        sign = -1 if name.startswith(LOWER) else 1 if name in HIGHER else 0
        spread = [error[name] for error in errors if name in error]
        if not sign or None in values or len(spread) < len(values):
            continue
        first, *others = sorted(range(len(values)), key=lambda i: -sign * values[i])
        if all(
            sign * (values[first] - values[i]) > 2 * math.hypot(spread[first], spread[i])
            for i in others
        ):
            found[name] = first
    return found


def _notes(names: list[str], stories: list[Story]) -> list[str]:
    notes = [
        f"{name} is not measured yet: fastgan evaluate {printable(str(story.path))}"
        for name, story in zip(names, stories)
        if not story.evaluation
    ]
    measured = [(n, s) for n, s in zip(names, stories) if s.evaluation]
    for field in ALIKE:
        seen = dict.fromkeys(printable(str(s.evaluation.get(field))) for _, s in measured)
        if len(seen) > 1:
            notes.append(f"distances are not comparable: {field} is {' and '.join(seen)}")
    for name, story in measured:
        at, newest = story.evaluation.get("step"), max(story.checkpoints, default=0)
        if isinstance(at, int) and at != newest:
            notes.append(f"{name} was measured at step {at}; its newest checkpoint is of {newest}")
    return notes


def _pictures(names: list[str], stories: list[Story]) -> Iterator[tuple[str, Image.Image]]:
    real = read_grid(stories[0].path / "reals.png")
    if real is not None and len({str(story.config.get("data")) for story in stories}) == 1:
        yield "real", _sized(real[1])
    for name, story in zip(names, stories):
        for step in [*story.grids][:-4:-1]:  # one that can't be read gives way to the one before
            found = read_grid(story.grids[step])
            if found is not None:
                yield f"{name}, step {step:,}", _sized(found[1])
                break


def _sized(picture: Image.Image) -> Image.Image:
    factor = SIDE / max(picture.size)
    if factor >= 1:
        return picture
    size = [max(1, round(side * factor)) for side in picture.size]
    return picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def _fit(text: str, room: int, right: bool = False) -> str:
    """Cut to `room` columns, where names end alike at the front, and one more of space."""
    if len(text) > room - (not right):
        cut = room - 1 - (not right)
        text = f"…{text[-cut:]}" if right else f"{text[:cut]}…"
    return f"{text:>{room}} " if right else f"{text:<{room}}"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return _fit(value, CELL - 2, True).strip()
    return f"{value:,}" if isinstance(value, int) and abs(value) < 1e9 else f"{value:.4g}"
