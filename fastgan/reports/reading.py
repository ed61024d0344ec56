"""What a run folder tells about a run, read as a stranger's: whatever does not fit is left out."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from fastgan import files
from fastgan.errors import FastganError
from fastgan.monitor.pictures.charts import is_number
from fastgan.runs.layout import EVALUATION
from fastgan.runs.run_folder import RunFolder, read_facts

LAST_STEP = 2**53
"""Steps from here on are no steps: a browser could not count them."""

SIDE = 4096
"""Pixels of a picture's longer side, beyond which it is no grid of ours."""

KEYS = 60
"""Curves that are read of one run."""


@dataclass(frozen=True)
class Story:
    """A run as its folder tells it.

    rows, alerts: as RunFolder.rows has them, with steps that are steps. grids: sample grids by
    step, ascending. evaluation: what `fastgan evaluate` left, or {}.
    """

    path: Path
    facts: dict[str, Any]
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    alerts: list[dict[str, Any]]
    grids: dict[int, Path]
    checkpoints: list[int]
    evaluation: dict[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """The last step that left anything."""
        found = [self.checkpoints[-1:], [row["step"] for row in self.rows[-1:]], [*self.grids][-1:]]
        return max((step for steps in found for step in steps), default=0)

    @property
    def name(self) -> str:
        return self.path.name or str(self.path)

    def curve(self, key: str) -> list[tuple[int, float]]:
        """(step, value) of a metric; NaN where it was not finite."""
        return [(row["step"], number(row[key])) for row in self.rows if is_number(row.get(key))]

    def metrics(self) -> list[str]:
        """Names of the metrics, in the order of their first row."""
        named = dict.fromkeys(
            key for row in self.rows for key, value in row.items() if is_number(value)
        )
        return [key for key in named if key not in ("step", "images", "time")][:KEYS]

    def last(self, key: str) -> float | None:
        """The last finite value of a metric."""
        return next((value for _, value in self.curve(key)[::-1] if math.isfinite(value)), None)

    def seconds(self) -> float | None:
        """Seconds between the first and the last row, pauses of more than ten minutes left out."""
        times = [t for _, t in self.curve("time") if math.isfinite(t)]
        gaps = [b - a for a, b in itertools.pairwise(times) if 0 <= b - a < 600]
        return sum(gaps) if gaps else None


def read_story(run: str | Path) -> Story:
    """Everything that a run folder tells. Raises FastganError where it is no run."""
    path = files.path_of(run)
    facts = read_facts(path)
    folder = RunFolder(path)
    return Story(
        path,
        facts,
        read_config(path),
        rows(folder, folder.metrics),
        rows(folder, folder.alerts),
        grids(path),
        folder.checkpoints.steps(),
        evaluation(path),
    )


def read_config(run: Path) -> dict[str, Any]:
    """The options of config.toml, or {} where it can't be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        return tomllib.loads(files.read(run / "config.toml", files.TEXT).decode())
    return {}


def evaluation(run: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(files.read(run / EVALUATION, files.TEXT))
        return found if isinstance(found, dict) else {}
    return {}


def grids(run: Path) -> dict[int, Path]:
    """Pictures in samples/ by step, ascending."""
    if files.kind(run / "samples", follow=False) != "folder":
        return {}
    with contextlib.suppress(OSError):
        named = [p for p in (run / "samples").glob("*.png") if p.stem.isdecimal()]
        return {int(p.stem): p for p in sorted(named, key=lambda p: int(p.stem))}
    return {}


def evenly(items: list[Any], count: int) -> list[Any]:
    """At most `count` of them, the first and the last included."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def rows(folder: RunFolder, path: Path) -> list[dict[str, Any]]:
    """Rows of a .jsonl file whose steps are steps; none where it can't be read."""
    with contextlib.suppress(FastganError):
        return [row for row in folder.rows(path) if 0 <= row["step"] < LAST_STEP]
    return []


def number(value: Any) -> float:
    """A float of whatever number JSON held; NaN where it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return math.nan


def parameters(facts: dict[str, Any]) -> dict[str, int]:
    """Trainable and fixed numbers of each network of the last stage, where run.json says."""
    found: dict[str, int] = {}
    with contextlib.suppress(AttributeError, TypeError, KeyError, FastganError):
        for name, tensors in facts["identity"]["stages"][-1]["networks"].items():
            sizes = [[int(side) for side in shape] for shape in tensors.values()]
            if all(0 <= side < 2**31 for shape in sizes for side in shape):
                found[str(name)] = sum(math.prod(shape) for shape in sizes if shape)
    return found


def read_grid(path: Path) -> tuple[bytes, Image.Image] | None:
    """A PNG's bytes and pixels, or None where it is no picture of ours."""
    try:
        data = files.read(path, 2**26)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            return (data, picture.convert("RGB")) if max(picture.size) <= SIDE else None
    except Exception:  # whatever a decoder says of a stranger's file
        return None


def timelapse(grids: dict[int, Path]) -> list[Image.Image]:
    """Grids with their steps below, all of one size; those that can't be read are left out."""
    read = {step: found[1] for step, path in grids.items() if (found := read_grid(path))}
    if not read:
        return []
    wide, high = (max(picture.size[i] for picture in read.values()) for i in (0, 1))
    frames = []
    for step, picture in read.items():
        frame = Image.new("RGB", (wide, high + 24), (255, 255, 255))
        frame.paste(picture, ((wide - picture.width) // 2, (high - picture.height) // 2))
        font = ImageFont.load_default(14)
        ImageDraw.Draw(frame).text(
            (wide / 2, high + 11), f"step {step:,}", (38, 41, 46), font, anchor="mm"
        )
        frames.append(frame)
    return frames
