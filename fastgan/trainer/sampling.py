"""Images from a trained generator: a pure function of (networks, seed, index)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan import arguments
from fastgan.data import Dataset, order
from fastgan.errors import FastganError
from fastgan.objectives import Noise, Objective
from fastgan.objectives.base import Step, draw
from fastgan.ops.images import gather
from fastgan.precision import Precision

CHUNK = 64
"""Samples of one forward pass, whatever is asked for: the result must not depend on how many are
asked for."""


@contextmanager
def evaluating(nets: Mapping[str, nn.Module]) -> Iterator[None]:
    """Networks in eval mode inside, each module's own mode back afterwards."""
    modes = [(module, module.training) for net in nets.values() for module in net.modules()]
    try:
        for net in nets.values():
            net.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def conditions(
    datasets: Mapping[str, Dataset], seed: int, first: int, count: int, device: torch.device
) -> dict[str, Tensor]:
    """What conditional generators are given for the samples from `first` to `first + count - 1`.

    These are rows of the data in a fixed order; labels take each class that has images in turn.
    """
    batch: dict[str, Tensor] = {}
    for name, dataset in datasets.items():
        rows = dataset.read(order(seed, f"sample/{name}", len(dataset), first, count))
        for field, spec in dataset.fields.items():
            key = key_of(name, field)
            value = torch.from_numpy(rows[field]).to(device)
            if spec.kind == "image":
                value = gather(value, torch.arange(count, device=device))
            elif spec.kind == "label" and dataset.classes:
                present = dataset.present
                turn = np.arange(first, first + count) % len(present)
                value = torch.from_numpy(present[turn]).to(device)
            batch[key] = value
    return batch


@torch.no_grad()
def generate(
    objective: Objective,
    nets: Mapping[str, nn.Module],
    n: int,
    *,
    seed: int,
    device: torch.device,
    precision: Precision,
    datasets: Mapping[str, Dataset] | None = None,
    labels: Any = None,
    given: Mapping[str, Tensor] | None = None,
    scalar: Mapping[str, Tensor] | None = None,
    noise: Mapping[str, Tensor] | None = None,
    shown: bool = False,
) -> Tensor:
    """n images, float32 (n, C, H, W) in [0, 1], or what else the objective's medium says, on the
    CPU.

    labels: int or n ints, for label-conditional generators. given: more of the batch by name, n
        rows each. noise: random inputs by name, (n, ...) each, instead of the seed's. Sample i
        depends on (seed, i) and its rows alone.
    shown: with all that the objective shows beside them, see `beside`.
    """
    arguments.samples(n)
    arguments.whole(seed, "seed", 0, 2**32 - 1)
    made = []
    try:
        wanted = (
            None
            if labels is None
            else torch.as_tensor(labels, dtype=torch.int64, device=device).reshape(-1)
        )
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise FastganError(
            f"labels must be a class number or one for each image, not {arguments.shown(labels)}"
        ) from None
    if wanted is not None:
        arguments.one_or_each(len(wanted), "labels", n)
        wanted = wanted.expand(n)
    with evaluating(nets), precision.autocast():
        for first in range(0, n, CHUNK):
            position = torch.tensor(first, dtype=torch.int64, device=device)
            batch = conditions(datasets or {}, seed, first, CHUNK, device)
            if wanted is not None:
                batch["label"] = _chunk(wanted, first)
            for name, rows in (given or {}).items():
                batch[name] = _chunk(rows, first).to(device)
            drawn = (
                draw(objective.noise, seed, position, CHUNK)
                if noise is None
                else {name: _chunk(value, first).to(device) for name, value in noise.items()}
            )
            step = Step(objective, nets, seed, batch=batch, noise=drawn, scalar=scalar)
            images = objective.sample(step)
            if shown and objective.medium.drawn_by_pixel:
                images = beside(objective.panels(step, images))
            made.append(images.float().cpu()[: n - first])
    return objective.medium.finished(torch.cat(made))


def beside(panels: Sequence[Tensor]) -> Tensor:
    """Panels (B, 1 or 3, h, w) as one image (B, C, H, W'), left to right: grey ones in colour where
    one is, small ones magnified by repeating pixels.
    """
    height = max(panel.shape[2] for panel in panels)
    channels = max(panel.shape[1] for panel in panels)
    row = []
    for panel in panels:
        factor = height // panel.shape[2]
        large = panel.float().repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        large = F.pad(large, (0, 0, 0, height - large.shape[2]), value=1.0)
        row.append(large.expand(-1, channels, -1, -1))
    return torch.cat(row, 3)


@torch.no_grad()
def walk(
    objective: Objective,
    nets: Mapping[str, nn.Module],
    datasets: Mapping[str, Dataset],
    *,
    seed: int,
    device: torch.device,
    precision: Precision,
    scalar: Mapping[str, Tensor] | None = None,
    label: int | None = None,
) -> Iterator[tuple[Step, Tensor]]:
    """The samples of the data sets in their order, a chunk at a time: (step, images (b, C, H, W) in
    [-1, 1]).

    label: the class that a conditional generator is given instead of each sample's own.
    """
    n = min(map(len, datasets.values()))
    with evaluating(nets), precision.autocast():
        for first in range(0, n, CHUNK):
            index = np.arange(first, min(first + CHUNK, n))
            batch: dict[str, Tensor] = {}
            for name, dataset in datasets.items():
                for field, value in dataset.read(index).items():
                    rows = torch.from_numpy(value).to(device)
                    if dataset.fields[field].kind == "image":
                        rows = gather(rows, torch.arange(len(index), device=device))
                    batch[key_of(name, field)] = rows
            if label is not None:
                batch["label"] = torch.full((len(index),), label, device=device)
            position = torch.tensor(first, dtype=torch.int64, device=device)
            noise = draw(objective.noise, seed, position, len(index))
            step = Step(objective, nets, seed, batch=batch, noise=noise, scalar=scalar)
            yield step, objective.sample(step)


def key_of(stream: str, field: str) -> str:
    """The name in a batch of a field of a stream."""
    return field if stream == "image" else stream if field == "image" else f"{stream}_{field}"


def _chunk(values: Tensor, first: int) -> Tensor:
    """CHUNK rows from `first` on, the last one repeated where there are fewer."""
    part = values[first : first + CHUNK]
    return torch.cat([part, part[-1:].expand(CHUNK - len(part), *part.shape[1:])])


def noise_of_seeds(noise: Mapping[str, Noise], seeds: Sequence[int]) -> dict[str, Tensor]:
    """The random inputs of the first sample of each seed, (len(seeds), ...) each, on the CPU."""
    first = torch.tensor(0, dtype=torch.int64)
    drawn = [draw(noise, seed, first, 1) for seed in seeds]
    return {name: torch.cat([one[name] for one in drawn]) for name in noise}


def truncated(
    noise: Mapping[str, Noise], drawn: Mapping[str, Tensor], bound: float
) -> dict[str, Tensor]:
    """Random inputs brought nearer to the middle, which trades variety for quality.

    Normal ones follow the normal distribution cut at +-bound (Brock et al. 2019) by their
    quantiles, so that the same seed stays recognisable; uniform ones lie in the inner `bound` of
    their range; categorical ones stay. Raises FastganError for a bound that is not positive.
    """
    if not 0 < bound < math.inf:
        raise FastganError(f"truncation must be above 0, not {bound:g}")
    made = dict(drawn)
    for name, spec in noise.items():
        if spec.kind == "normal":
            share = math.erf(bound / math.sqrt(2))
            quantiles = torch.special.erf(drawn[name].double() / math.sqrt(2)) * share
            made[name] = (torch.special.erfinv(quantiles) * math.sqrt(2)).to(drawn[name].dtype)
        elif spec.kind == "uniform":
            middle = (spec.low + spec.high) / 2
            made[name] = middle + (drawn[name] - middle) * min(bound, 1.0)
    return made
