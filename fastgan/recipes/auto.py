"""`--recipe auto`: one of the other recipes and its numbers, from a glance at the images, the
device and the time. What was measured for this choice is in docs/auto-recipe.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fastgan import recipes
from fastgan.data.glance import Glance
from fastgan.errors import FastganError
from fastgan.recipes.choice import Choice, flag, reasons
from fastgan.recipes.config import Config, fields_of

CANDIDATES = ("fastgan", "dcgan", "cgan")
FEW = 5000
"""Fewer images than this are few: D learns them by heart within the time that people wait."""

A_CLASS = 500
"""A network that is told the class needs about so many images of each."""

FEW_MINUTES, MINUTES, HOUR = 240, 600, 3600
"""Seconds. Up to MINUTES a CPU is short of time: at 70, dcgan with R1 was ahead on two of three
sets; at 600, measured on one set (drawings), far ahead."""

NARROW_FROM = 64
"""Pixels. From this size on, half the channels make four times the steps of a short time."""

SIDES = (32, 64, 128, 256)
AS_LONG_AS_TIME_LASTS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Auto(Config):
    """The options that all recipes have; `choose` takes those of the candidates, too."""

    recipe: ClassVar[str] = "auto"
    summary: ClassVar[str] = "chooses another recipe from the images, the device and the time"


def choose(
    seen: Glance, given: Mapping[str, Any], *, gpu: bool, seconds: float | None = None
) -> Choice:
    """A recipe and its options; those that are `given` stay.

    seconds: what the training may take. Raises FastganError where no candidate has all given
    options.
    """
    small = not gpu and seconds is not None and seconds <= MINUTES
    hasty = small and (seconds or 0) < FEW_MINUTES
    side = given.get("size") or _side(seen.side, 128 if gpu else 32 if hasty else 64)
    recipe, because = _recipe(seen, given, side, small)
    few = seen.images < FEW
    values: dict[str, Any] = {
        "size": side,
        "batch_size": 64 if gpu and recipe != "fastgan" else 16,
        "ema_decay": _decay(small, gpu, seconds),
    }
    if recipe == "fastgan":
        values |= {"width": 64 if gpu else 8, "latent": 256 if gpu else 128}
    else:
        narrow = small and side >= NARROW_FROM
        values |= {"base_width": 64 if gpu else 16 if narrow else 32, "r1": 5.0}
        if few and not small:
            values["augment"] = "color,translation"
    if seconds is not None:
        values["steps"] = AS_LONG_AS_TIME_LASTS
        values["sample_every"] = 100 if small else 500
    values |= given
    shown = {k: v for k, v in values.items() if v != fields_of(recipes.find(recipe))[k].default}
    why = reasons(seen, recipe, values, because, few=few, gpu=gpu, seconds=seconds)
    return Choice(recipe, shown, why, seconds)


def _decay(small: bool, gpu: bool, seconds: float | None) -> float:
    """Of the averaged generator: what it remembers is a small part of the training."""
    if small:  # small images and narrow networks make many steps
        return 0.99 if (seconds or 0) < FEW_MINUTES else 0.999
    return 0.999 if gpu or (seconds or 0) > HOUR else 0.995


def _recipe(seen: Glance, given: Mapping[str, Any], side: int, small: bool) -> tuple[str, str]:
    """A candidate that has all given options, and why this one."""
    own = [n for n in given if n not in fields_of(Auto)]
    able = [n for n in CANDIDATES if set(own) <= set(fields_of(recipes.find(n)))]
    if not able:
        raise FastganError(
            f"no recipe that auto chooses from has {' and '.join(map(flag, own))}: name one "
            "(--recipe NAME), or leave some out"
        )
    if "fastgan" in able and "dcgan" not in able:
        return "fastgan", "the one that has the options given"
    if seen.classes and seen.images >= A_CLASS * seen.classes and "cgan" in able:
        return "cgan", "there are enough images of each class to ask for one"
    if "fastgan" not in able or given.get("model"):
        return "dcgan", "the one that has the options given"
    if small:
        return "dcgan", "the first to show shapes where there are minutes and no GPU"
    if seen.images < FEW and side in SIDES:
        return "fastgan", "light networks and a D that must redraw what it saw, for few images"
    return "dcgan", "simple and quick, and there are images enough"


def _side(side: int, most: int) -> int:
    """The largest side that networks make, up to the images' own and to `most`."""
    if 28 <= side < 32:
        return 28
    return max((s for s in SIDES if s <= min(side, most)), default=32)
