"""Fine-tuning: the weights of an earlier run, or of safetensors files, for the networks of a new
one."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as deserialise
from torch import Tensor, nn

from fastgan import files
from fastgan.errors import FastganError
from fastgan.runs.checkpoint import STATE, Checkpoints
from fastgan.runs.run_folder import read_checkpoint, read_facts

MODEL = "model"
"""A file of this name holds the averaged generator, as exported folders do."""

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Source:
    """Weights by network, as trained and averaged, and what they are called in messages."""

    what: str
    nets: Mapping[str, Weights]
    ema: Mapping[str, Weights]


def read(path: str | Path) -> Source:
    """The weights of a run (its newest checkpoint), of one of its checkpoint folders, or of a
    folder with G.safetensors and D.safetensors, or model.safetensors (the averaged generator).

    Nothing but tensors is read, and no code of the run is needed. Raises FastganError.
    """
    folder = files.path_of(path)
    step, run = None, folder
    if files.kind(folder / STATE) == "file" and folder.parent.name == "checkpoints":
        run, step = folder.parents[1], folder.name.removeprefix("step-")
    if files.kind(run / "run.json") is not None:
        checkpoints = Checkpoints(run / "checkpoints")
        groups, state = read_checkpoint(
            checkpoints, read_facts(run), int(step) if step and step.isdecimal() else None
        )
        return Source(f"{run} at step {state['step']}", groups["nets"], groups["ema"])
    if files.kind(folder) != "folder":
        raise FastganError(
            f"no weights at {path}: give a run, one of its checkpoints, or a folder with "
            "G.safetensors and D.safetensors"
        )
    found = {file.stem: _tensors(file) for file in sorted(folder.glob("*.safetensors"))}
    average = {"G": found.pop(MODEL)} if MODEL in found else {}
    if not found and not average:
        raise FastganError(
            f"{path} is no run and has no .safetensors file: give a run, one of its checkpoints, "
            "or a folder with G.safetensors and D.safetensors"
        )
    return Source(str(folder), {**average, **found}, average)


def _tensors(file: Path) -> Weights:
    with files.explained(f"can't read {file}"):
        data = files.read(file, follow=True)
    try:
        tensors = deserialise(data)
    except Exception as error:
        why = " ".join(str(error).split())
        raise FastganError(f"{file} is damaged: {why}") from error
    # The file has an order of its own; layers are numbered in theirs, mostly.
    numbered = lambda key: [(not t, int(t or 0), n) for t, n in re.findall(r"(\d*)(\D*)", key)]
    return {key: tensors[key] for key in sorted(tensors, key=numbered)}


def into(nets: Mapping[str, nn.Module], source: Source) -> str:
    """Copy what fits into these networks, in place; one line that says what was taken and what was
    not.

    Layers are aligned by name and shape, or by their shapes in order, whichever fits more: all of a
    network of the same form; of one for another size those that both have, such as a generator's
    last layers and a discriminator's first ones. Raises FastganError where nothing fits or weights
    are not finite.
    """
    told, taken = [], 0
    for name, net in nets.items():
        mine = net.state_dict()
        if not mine:
            continue
        if name not in source.nets:
            told.append(f"{name} begins anew")
            continue
        theirs = source.nets[name]
        _refuse_infinite(theirs, f"{name} of {source.what}")
        pairs, left = aligned(mine, theirs)
        _copy(mine, theirs, pairs)
        count = len(_layers(mine))
        taken += count - len(left)
        told.append(
            f"{name} whole"
            if not left
            else f"{name} {count - len(left)} of {count} layers (new: {_few(left)})"
        )
    if not taken:
        raise FastganError(
            f"no layer of {source.what} fits: its networks have other layers than these, or other "
            "widths"
        )
    return f"weights of {source.what}: {', '.join(told)}"


def average_into(nets: Mapping[str, nn.Module], source: Source) -> bool:
    """Copy the averages of networks that are whole there; whether all of `nets` were."""
    whole = True
    for name, net in nets.items():
        mine, theirs = net.state_dict(), source.ema.get(name, {})
        pairs, left = aligned(mine, theirs)
        if left or not theirs:
            whole = False
            continue
        _refuse_infinite(theirs, f"the average {name} of {source.what}")
        _copy(mine, theirs, pairs)
    return whole


def aligned(mine: Weights, theirs: Weights) -> tuple[dict[str, str], list[str]]:
    """({key here: key there} of the layers that fit each other, names of the layers that do
    not)."""
    here, there = _layers(mine), _layers(theirs)
    forms = [_form(mine, keys) for keys in here.values()]
    others = {name: _form(theirs, keys) for name, keys in there.items()}
    same = [
        (name, name) for name, form in zip(here, forms, strict=True) if others.get(name) == form
    ]
    matcher = difflib.SequenceMatcher(None, forms, list(others.values()), autojunk=False)
    names, theirs_by_place = list(here), list(there)
    in_order = [
        (names[block.a + i], theirs_by_place[block.b + i])
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    ]
    fitting = max(same, in_order, key=len)
    pairs = {
        key: other
        for a, b in fitting
        for key, other in zip(sorted(here[a]), sorted(there[b]), strict=True)
    }
    fits = {name for name, _ in fitting}
    return pairs, [name for name in names if name not in fits]


def freeze_first(net: nn.Module, count: int) -> list[str]:
    """Freeze the first `count` layers with weights, in the order in which the network registers
    them, with the normalisation between them (FreezeD: Mo, Cho, Shin 2020, arXiv 2002.10964).

    Returns their names. Raises FastganError where that leaves nothing to train.
    """
    mine = dict(net.named_parameters())
    layers = _layers(mine)
    weighty = [name for name, keys in layers.items() if any(mine[k].dim() > 1 for k in keys)]
    if count >= len(weighty):
        raise FastganError(
            f"can't freeze {count} layers of D: it has {len(weighty)}, and the last one must be "
            "trained"
        )
    frozen: list[str] = []
    for name, keys in layers.items():
        if name == weighty[count]:
            break
        for key in keys:
            mine[key].requires_grad_(False)
        frozen.append(name)
    return frozen


def _layers(state: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """The keys of a state_dict by the module that holds them; parametrizations count as their
    module's."""
    found: dict[str, list[str]] = {}
    for key in state:
        module = key.partition("parametrizations.")[0] or key
        name = module.rstrip(".") if module != key else key.rpartition(".")[0]
        found.setdefault(name, []).append(key)
    return found


def _form(state: Mapping[str, Tensor], keys: list[str]) -> tuple[Any, ...]:
    """What two layers must share: names and shapes of their tensors."""
    parts = [key.split(".") for key in sorted(keys)]
    levels = itertools.takewhile(
        lambda level: len(set(level)) == 1, zip(*(part[:-1] for part in parts), strict=False)
    )
    common = len(list(levels))
    return tuple((*part[common:], tuple(state[".".join(part)].shape)) for part in parts)


@torch.no_grad()
def _copy(mine: Weights, theirs: Weights, pairs: Mapping[str, str]) -> None:
    for here, there in pairs.items():
        mine[here].copy_(theirs[there])


def _refuse_infinite(weights: Weights, what: str) -> None:
    for key, value in weights.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise FastganError(f"{what} is not finite ({key}): take an earlier checkpoint")


def _few(names: list[str]) -> str:
    shown = ", ".join(name or "its own parameters" for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
