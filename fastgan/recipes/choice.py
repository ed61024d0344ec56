"""What `--recipe auto` chose and why, in words and as a command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastgan import recipes
from fastgan.data.glance import Glance
from fastgan.recipes.config import fields_of


@dataclass(frozen=True)
class Choice:
    """recipe: its name. values: the options that differ from its defaults. why: at most five
    lines."""

    recipe: str
    values: dict[str, Any]
    why: list[str]

    seconds: float | None

    def command(self) -> str:
        """What says this choice by hand."""
        words = ["fastgan train --recipe", self.recipe]
        for name, value in sorted(self.values.items(), key=lambda item: item[0] != "data"):
            if isinstance(value, bool):
                words.append(flag(name) if value else flag(f"no_{name}"))
            else:
                words += [flag(name), shlex.quote(str(value))]
        return " ".join([*words, *([f"--for {self.seconds:g}s"] if self.seconds else [])])


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def reasons(
    seen: Glance,
    recipe: str,
    values: Mapping[str, Any],
    because: str,
    *,
    few: bool,
    gpu: bool,
    seconds: float | None,
) -> list[str]:
    """Five lines that say what was seen and why these options of a recipe were chosen; few: whether
    D learns so few images by heart."""
    augment = values.get("augment", fields_of(recipes.find(recipe))["augment"].default)
    time = "no limit of time" if seconds is None else f"{_minutes(seconds)}"
    kind = "grey" if (values.get("channels") or seen.channels) == 1 else "colour"
    labels = f"{seen.classes} classes" if seen.classes else "no labels"
    return [
        f"auto: {seen.images:,} {kind} images of about {seen.side} pixels, {labels}; "
        f"{'a GPU' if gpu else 'no GPU'}, {time}",
        f"  {recipe}: {because}",
        f"  {values['size']} pixels, batch {values['batch_size']}, width "
        f"{values.get('width') or values['base_width']}: what {'a GPU' if gpu else 'a CPU'} gets "
        "through in the time",
        f"  augmentation {augment}: "
        + (
            "it would cost the first minutes"
            if augment == "none" and few
            else "D would learn so few by heart"
            if few
            else "there are many images"
        )
        + ("" if recipe == "fastgan" else f"; R1 {values['r1']:g} keeps D from winning at once"),
        "  no flips: add --flip where a mirrored image is as good"
        if not values.get("flip")
        else "  flips, as asked for",
    ]


def _minutes(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} seconds"
    return f"{seconds / 60:g} minutes" if seconds < 7200 else f"{seconds / 3600:g} hours"
