"""A run made again from its folder: facts, objective and averaged networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgan import files
from fastgan.devices import pick_device
from fastgan.errors import FastganError
from fastgan.objectives import Objective
from fastgan.runs.checkpoint import Checkpoints
from fastgan.runs.run_folder import read_checkpoint, read_facts
from fastgan.runs.serialize import rebuild
from fastgan.trainer.networks import check_network, load_network


@dataclass
class Restored:
    """What a run samples with: its facts and those of the stage, the networks that could be made
    again in eval mode, why not those in `left`, and the objective's scalars."""

    run: dict[str, Any]
    described: dict[str, Any]
    objective: Objective
    nets: dict[str, nn.Module]
    left: dict[str, FastganError]
    scalar: dict[str, Tensor]
    device: torch.device


def restore(path: str | Path, step: int | None, device: str, trust: bool) -> Restored:
    """The averaged networks and the objective of a run. Raises FastganError, as `sample`."""
    run, groups, state = open_run(path, step)
    described = run["stages"][state["stage"]]
    if "spec" not in described["objective"]:
        raise FastganError(
            f"can't sample {path} without its script: {described['objective']['why_not']}; use "
            "Trainer(..., resume=True).sample()"
        )
    where = pick_device(device)
    objective = objective_of(described, folders_of(run, trust))
    nets: dict[str, nn.Module] = {}
    left: dict[str, FastganError] = {}
    for name in groups["nets"]:
        weights = groups["ema"].get(name, groups["nets"][name])
        try:
            net = network_of(run, state, name, weights, Path(path), trust)
        except FastganError as error:
            if name in described["ema"]:
                raise
            left[name] = error  # such as a discriminator: sampling has no use for it
            continue
        load_network(net, weights, name)
        nets[name] = net.to(where)
    first_step = sum(stage["steps"] for stage in run["stages"][: state["stage"]])
    scalar = scalars_of(objective, state["step"] - first_step, where)
    return Restored(run, described, objective, nets, left, scalar, where)


def open_run(
    path: str | Path, step: int | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    folder = files.path_of(path, "the run folder")
    facts = read_facts(folder)
    return facts, *read_checkpoint(Checkpoints(folder / "checkpoints"), facts, step)


def folders_of(facts: dict[str, Any], trust: bool) -> dict[str, str] | None:
    """What `rebuild` takes: where the run's modules lay, for those who trust it."""
    return facts.get("modules", {}) if trust else None


def objective_of(described: dict[str, Any], folders: dict[str, str] | None) -> Objective:
    made = rebuild(described["objective"]["spec"], folders)
    if not isinstance(made, Objective):
        raise FastganError(f"run.json is damaged: its objective is a {type(made).__name__}")
    return made


def scalars_of(objective: Objective, step: int, device: torch.device) -> dict[str, Tensor]:
    """The objective's numbers at a step. Raises FastganError for a schedule, of a file, that gives
    none."""
    try:
        return {
            name: torch.tensor(float(value), device=device)
            for name, value in objective.schedule(step).items()
        }
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise FastganError(f"run.json is damaged: its objective has no schedule ({why})") from error


def network_of(
    run: dict[str, Any],
    state: dict[str, Any],
    name: str,
    weights: Mapping[str, Tensor],
    path: Path,
    trust: bool,
) -> nn.Module:
    """A network made again, which these weights fit. Raises FastganError."""
    described = run["stages"][state["stage"]]
    if name not in described["nets"]:
        raise FastganError(
            f"{path} has no network {name!r}: there are {', '.join(described['nets'])}"
        )
    how = described["nets"][name]
    if "spec" not in how:
        remedy = "make it yourself and pass it, load(path, generator=net)"
        raise FastganError(
            f"network {name!r} of {path} can't be made again ({how['why_not']}): {remedy}"
        )
    folders = folders_of(run, trust)
    with torch.random.fork_rng([]):
        with torch.device("meta"):  # before memory is taken for whatever sizes the file asks for
            check_network(_module(how["spec"], folders), weights, name)
        return _module(how["spec"], folders)


def _module(spec: Any, folders: dict[str, str] | None) -> nn.Module:
    made = rebuild(spec, folders)
    if not isinstance(made, nn.Module):
        raise FastganError(f"run.json is damaged: a network is a {type(made).__name__}")
    return made
