"""What must be the same for a run to go on, and what is needed to load it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgan.engine.describe import NotDescribable, describe, describe_network
from fastgan.errors import FastganError

if TYPE_CHECKING:
    from fastgan.engine.trainer import Trainer


def of(trainer: Trainer) -> dict[str, Any]:
    """JSON-able facts on which the numbers of a run depend."""
    stages = []
    for stage in trainer.stages:
        try:
            objective = describe(stage.objective)
        except NotDescribable:
            objective = f"{type(stage.objective).__module__}:{type(stage.objective).__qualname__}"
        nets = {name: {key: list(value.shape) for key, value in net.state_dict().items()} for name, net in stage.nets.items()}
        stages.append(
            {"networks": nets, "objective": objective, "steps": stage.steps, "batch_size": stage.batch_size or trainer.batch_size}
        )
    return {
        "stages": stages,
        "seed": trainer.seed,
        "flip": trainer.flip,
        "ema_decay": trainer.ema_decay,
        "log_every": trainer.log_every,
    }


def of_stage(trainer: Trainer) -> dict[str, Any]:
    """The facts that belong to the stage being trained: its data and optimisers."""
    return {
        "data": {name: {"fingerprint": d.fingerprint, "images": len(d)} for name, d in trainer.datasets.items()},
        "optimizers": {name: type(o).__name__ for name, o in trainer.optimizers.items()},
    }


def compare(then: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raises FastganError naming the first field that differs."""
    for field, before, after in differences(then, now, ""):
        raise FastganError(
            f"can't go on with {path}: {field} was {before} and is {after} now; make it the same again, or start a new run"
        )


def differences(then: Any, now: Any, prefix: str) -> list[tuple[str, Any, Any]]:
    """(field, value then, value now) of the leaves in which two JSON trees differ."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        found = []
        for key in dict.fromkeys([*then, *now]):
            found += differences(then.get(key, "absent"), now.get(key, "absent"), f"{prefix}.{key}" if prefix else str(key))
        return found
    if (
        isinstance(then, list)
        and isinstance(now, list)
        and len(then) == len(now)
        and any(isinstance(v, (dict, list)) for v in then)
    ):
        return [d for i, (a, b) in enumerate(zip(then, now, strict=True)) for d in differences(a, b, f"{prefix}[{i}]")]
    return [] if then == now else [(prefix, then, now)]


def rebuilding(trainer: Trainer) -> dict[str, Any]:
    """How `fastgan.load` makes the networks and objectives again: classes and arguments, or why that can't be done."""
    stages = []
    for stage in trainer.stages:
        try:
            objective: Any = {"spec": describe(stage.objective)}
        except NotDescribable as error:
            objective = {"why_not": str(error)}
        nets = {name: describe_network(net) for name, net in stage.nets.items()}
        stages.append(
            {"nets": nets, "objective": objective, "ema": [name for name in stage.ema if name in stage.nets], "size": stage.size}
        )
    first = next((d for d in trainer.datasets.values()), None)
    classes = first.classes if first is not None else None
    return {"stages": stages, "classes": classes, "seed": trainer.seed}
