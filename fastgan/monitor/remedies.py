"""What to do about what the watch has named: changes of options, and the command that makes them.
Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RATES = ("lr", "lr_g", "lr_d")


def changes(cause: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that may help, of a run with these; none where the recipe has no such option.

    They are among those that --resume accepts (`runs.changes`).
    """
    if cause in ("collapse", "discriminator-too-strong"):
        found: dict[str, Any] = {}
        if config.get("augment") == "none":
            found["augment"] = "color,translation,cutout"
        if "r1" in config and config["r1"] < 5:
            found["r1"] = 5.0
        return found or _slower(config, "lr_d", "lr")
    if cause == "generator-too-strong":
        return _slower(config, "lr_g", "lr")
    if cause == "oscillation":
        if "r1" in config and not config["r1"]:
            return {"r1": 5.0}
        return _slower(config, *RATES)
    if cause == "non-finite":
        low = {"precision": "fp32"} if config.get("precision") in ("bf16", "fp16") else {}
        return _slower(config, *RATES) | low
    if cause == "stall":
        return {n: 2e-4 for n in RATES if n in config and config[n] <= 1e-5}
    return {}


def _slower(config: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: config[name] / 2 for name in names if config.get(name)}


def flags(options: Mapping[str, Any]) -> str:
    """These options as they are typed."""
    shown = {n: f"{v:g}" if isinstance(v, float) else str(v) for n, v in options.items()}
    return " ".join(f"--{n.replace('_', '-')} {shlex.quote(v)}" for n, v in shown.items())


def command(cause: str, config: Mapping[str, Any], path: str | Path | None) -> str | None:
    """The command that goes on with the remedy; None for a run without a folder, or that no command
    began, or where no option helps."""
    options = changes(cause, config)
    if path is None or config.get("recipe") == "python" or not options:
        return None
    return f"fastgan train --resume {shlex.quote(str(path))} {flags(options)}"
