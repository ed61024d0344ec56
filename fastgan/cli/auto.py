"""`fastgan train --recipe auto`: look, choose, say so."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import click

from fastgan import recipes
from fastgan.cli import options
from fastgan.errors import empty
from fastgan.recipes import Config
from fastgan.recipes.auto import CANDIDATES, Auto, choose

UNITS = {"s": 1, "m": 60, "h": 3600}


class Duration(click.ParamType):
    """90s, 30m, 2h or 1h30m, in seconds."""

    name = "TIME"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, float):
            return value
        parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", value)
        if not parts or "".join(map("".join, parts)) != value:
            self.fail(f"{value!r} is no time: write 90s, 30m, 2h or 1h30m", param, ctx)
        seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
        if seconds <= 0:
            self.fail("a run of no time trains nothing: write 90s, 30m, 2h or 1h30m", param, ctx)
        return seconds


def flags() -> list[click.Option]:
    """Those of all recipes, and hidden ones of what may be chosen."""
    made = {option.name: option for option in options.flags(Auto)}
    for name in CANDIDATES:
        for option in options.flags(recipes.find(name)):
            if option.name not in made:
                option.hidden = True
                made[option.name] = option
    return list(made.values())


def decide(
    file: Mapping[str, Any], flags: Mapping[str, Any], seconds: float | None, where: str
) -> Config:
    """The configuration that is chosen, said in six lines."""
    from fastgan.data.glance import glance
    from fastgan.devices import pick_device
    from fastgan.distributed.context import local_device

    given = {name.replace("-", "_"): value for name, value in file.items() if name != "recipe"}
    given |= {name: value for name, value in flags.items() if value is not None}
    if given.get("data") == "":
        raise empty("--data")
    device = pick_device(local_device(str(given.get("device", "auto"))))
    seen = glance(given.get("data", "fashion-mnist"))
    choice = choose(seen, given, gpu=device.type == "cuda", seconds=seconds)
    if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        click.echo("\n".join([*choice.why, f"  by hand: {choice.command()}"]))
    typed = {name: value for name, value in flags.items() if value is not None}
    rest = {name: value for name, value in choice.values.items() if name not in typed}
    return options.assemble(recipes.find(choice.recipe), rest, typed, where)
