"""What must be the same for a run to go on, and what is needed to load it again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from fastgan.data import Dataset
from fastgan.errors import FastganError, printable
from fastgan.precision import Precision
from fastgan.runs import changes, imports
from fastgan.runs.serialize import NotSerializable, foreign, rebuild, serialize
from fastgan.trainer.run_options import RunOptions
from fastgan.trainer.stages.stage import Stage

ADDED = {"clip": 0.0, "accumulate": 1}
"""Options that earlier runs did not have, and what they did."""


class RunFacts(Protocol):
    """What of a Trainer its run is known by."""

    descriptions: list[dict[str, dict[str, Any]]]
    options: RunOptions
    precision: Precision

    @property
    def config(self) -> Mapping[str, Any]: ...

    @property
    def stages(self) -> Sequence[Stage]: ...

    @property
    def datasets(self) -> Mapping[str, Dataset]: ...

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]: ...


def of(trainer: RunFacts) -> dict[str, Any]:
    """JSON-able facts on which the numbers of a run depend."""
    stages = []
    for stage in trainer.stages:
        nets = {
            name: {key: list(value.shape) for key, value in net.state_dict().items()}
            for name, net in stage.nets.items()
        }
        schedules = {
            net: {k: named(v) for k, v in options.items()}
            for net, options in stage.schedules.items()
        }
        stages.append(
            {
                "networks": nets,
                "objective": named(stage.objective),
                "noise": {
                    name: dataclasses.asdict(noise) for name, noise in stage.objective.noise.items()
                },
                "lazy": dict(stage.objective.lazy),
                "phases": {
                    p.name: [list(p.trains), p.repeat, p.fresh] for p in stage.objective.phases()
                },
                "schedules": schedules,
                "ema": [name for name in stage.ema if name in stage.nets],
                "steps": stage.steps,
                "batch_size": stage.batch_size or trainer.options.batch_size,
            }
        )
    return {
        "stages": stages,
        "seed": trainer.options.seed,
        "flip": trainer.options.flip,
        "ema_decay": trainer.options.ema_decay,
        "log_every": trainer.options.log_every,
        "precision": trainer.precision.name,
        **{name: getattr(trainer.options, name) for name in ADDED},
    }


def of_stage(trainer: RunFacts) -> dict[str, Any]:
    """The facts that belong to the stage being trained: its data and optimisers."""
    return {
        "data": {
            name: {"images": len(d), "fingerprint": d.fingerprint}
            for name, d in trainer.datasets.items()
        },
        "optimizers": {
            name: of_optimizer(optimizer) for name, optimizer in trainer.optimizers.items()
        },
    }


def of_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Class (FlatAdam's is the one it stands for), options as constructed (schedules change those
    of the groups), and how many parameters it holds.
    """
    plain = {
        key: value
        for key, value in optimizer.defaults.items()
        if isinstance(value, (bool, int, float, str, tuple, list))
    }
    return {
        "class": getattr(optimizer, "replaces", None) or type(optimizer).__name__,
        "options": plain,
        "parameters": [len(group["params"]) for group in optimizer.param_groups],
    }


def named(value: Any) -> Any:
    """The description of an object, or the name of its class or function where it has none."""
    try:
        return serialize(value)
    except NotSerializable:
        kind = value if hasattr(value, "__qualname__") else type(value)
        return f"{kind.__module__}:{kind.__qualname__}"


def compare(then: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raises FastganError naming the first field that differs."""
    for field, before, after in differences(then, json.loads(json.dumps(now)), ""):
        if len(now.get("stages", ())) == 1:
            field = field.removeprefix("stages[0].")
        other = (
            "go on with it on purpose (reschedule=True)"
            if changes.accepted(f"stages[0].{field}") or changes.accepted(field)
            else f"start a new run, with these weights if you like (--init-from {path}, init_from=)"
        )
        field, before, after = (printable(str(part)) for part in (field, before, after))
        raise FastganError(
            f"can't go on with {path}: {field} was {before} and is {after} now; make it the same "
            f"again, or {other}"
        )


def reschedule(then: dict[str, Any], now: Mapping[str, Any], step: int) -> str | None:
    """Give `then` what differs in `now` and may (`changes.CHANGES`); one line that says what
    changes at `step` of the stage, or None where nothing does."""
    changed: dict[str, list[str]] = {}
    for before, after in zip(then["stages"], json.loads(json.dumps(now))["stages"], strict=False):
        for net in {**before["schedules"], **after["schedules"]}:
            old, new = (side["schedules"].get(net, {}) for side in (before, after))
            for option in {**old, **new}:
                if old.get(option) != new.get(option):
                    values = [at(old.get(option), step), at(new.get(option), step, ours=True)]
                    changed.setdefault(
                        f"{option} goes on with {values[1]} instead of {values[0]}", []
                    ).append(net)
        before["schedules"] = after["schedules"]
    lines = [f"{' and '.join(nets)}: {what}" for what, nets in changed.items()]
    for field, old, new in changes.take_over(then, json.loads(json.dumps(now))):
        lines.append(f"{field.rpartition('.')[2]} goes on with {new} instead of {old}")
    return printable("; ".join(lines)) or None


def changed_options(
    then: dict[str, Any], now: Mapping[str, Any]
) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Give the optimisers of `then` the options of `now` that may differ (`changes.CHANGES`):
    {network: {option: (value then, value now)}}."""
    found: dict[str, dict[str, tuple[Any, Any]]] = {}
    for field, old, new in changes.take_over(then, json.loads(json.dumps(now))):
        net, _, option = field.removeprefix("optimizers.").rpartition(".options.")
        found.setdefault(net, {})[option] = (old, new)
    return found


def at(spec: Any, step: int, *, ours: bool = False) -> str:
    """A described schedule's value at `step`, or what is known of it; `ours`: of this program, not
    of a file."""
    if spec is None:
        return "no schedule"
    try:
        if not ours and not spec["$object"].startswith("fastgan.objectives.schedules:"):
            raise TypeError("nothing else is called for a file")
        return f"{rebuild(spec, {} if ours else None)(step):.4g}"
    except Exception:  # a file's numbers, or the user's own function
        return "one that can't be told"


def differences(then: Any, now: Any, prefix: str) -> list[tuple[str, Any, Any]]:
    """(field, value then, value now) of the leaves in which two JSON trees differ."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        found = []
        for key in dict.fromkeys([*then, *now]):
            found += differences(
                then.get(key, "absent"),
                now.get(key, "absent"),
                f"{prefix}.{key}" if prefix else str(key),
            )
        return found
    if (
        isinstance(then, list)
        and isinstance(now, list)
        and len(then) == len(now)
        and any(isinstance(v, (dict, list)) for v in then)
    ):
        return [
            d
            for i, (a, b) in enumerate(zip(then, now, strict=True))
            for d in differences(a, b, f"{prefix}[{i}]")
        ]
    return [] if then == now else [(prefix, then, now)]


def rebuilding(trainer: RunFacts) -> dict[str, Any]:
    """How `fastgan.load` makes the networks and objectives again: classes and arguments, or why
    that can't be done."""
    stages: list[dict[str, Any]] = []
    for stage in trainer.stages:
        try:
            objective: Any = {"spec": serialize(stage.objective)}
        except NotSerializable as error:
            objective = {"why_not": str(error)}
        nets = trainer.descriptions[len(stages)]
        averaged = [name for name in stage.ema if name in stage.nets]
        stages.append(
            {
                "nets": nets,
                "objective": objective,
                "ema": averaged,
                "steps": stage.steps,
                "size": stage.size,
            }
        )
    first = next((d for d in trainer.datasets.values()), None)
    classes = first.classes if first is not None else None
    empty = set(range(len(classes or ()))) - set(first.present.tolist() if first else ())
    names = {*foreign(stages), str(trainer.config.get("model")).partition(":")[0]}
    modules = {
        name.partition(".")[0]: folder
        for name in sorted(names)
        if (folder := imports.folder_of(name)) is not None
    }
    return {
        "stages": stages,
        "classes": classes,
        "empty": sorted(empty),
        "seed": trainer.options.seed,
        "modules": modules,
    }
