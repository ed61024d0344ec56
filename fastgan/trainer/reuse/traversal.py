"""What one random input of a generator does: images in which it alone changes along a row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from fastgan.errors import FastganError
from fastgan.objectives import Objective
from fastgan.objectives.base import Step, draw
from fastgan.precision import Precision, resolve
from fastgan.trainer.reuse.restoring import open_run
from fastgan.trainer.sampling import evaluating


@torch.no_grad()
def traversal(
    objective: Objective,
    nets: Mapping[str, nn.Module],
    name: str,
    *,
    rows: int = 10,
    columns: int = 10,
    seed: int,
    device: torch.device,
    precision: Precision,
    scalar: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """What one random input does: float32 (rows * columns, C, H, W) in [0, 1], row by row.

    name: of `objective.noise`, "codes.0" for one number of several. All else is the same along a
    row. Categorical noise takes its values in turn, uniform goes from low to high, normal from -2
    to 2. Raises FastganError where there is no such noise.
    """
    field, _, index = name.partition(".")
    spec = objective.noise.get(field)
    if spec is None or (index and not (index.isdigit() and int(index) < math.prod(spec.shape))):
        known = [
            f"{n}.0 to {n}.{math.prod(s.shape) - 1}" if s.shape else n
            for n, s in objective.noise.items()
        ]
        raise FastganError(f"no input {name!r} to traverse: there are {', '.join(known)}")
    position = torch.zeros((), dtype=torch.int64, device=device)
    noise = draw(objective.noise, seed, position, rows)
    noise.update({key: value.repeat_interleave(columns, 0) for key, value in noise.items()})
    if spec.kind == "categorical":
        along = torch.arange(columns, device=device) % spec.classes
    else:
        low, high = (spec.low, spec.high) if spec.kind == "uniform" else (-2.0, 2.0)
        along = torch.linspace(low, high, columns, device=device)
    noise[field].view(rows * columns, -1)[:, int(index or 0)] = along.repeat(rows)
    with evaluating(nets), precision.autocast():
        images = objective.sample(Step(objective, nets, seed, noise=noise, scalar=scalar))
    return images.float().cpu().add(1).div(2).clamp(0, 1).contiguous()


def traverse(
    path: str | Path,
    name: str,
    *,
    seed: int = 0,
    step: int | str | None = None,
    device: str = "auto",
    trust: bool = False,
) -> Tensor:
    """`traversal` of a run's averaged generator, 10 x 10 images. Raises FastganError, as
    `fastgan.sample`."""
    run = open_run(path, step=step, device=device, trust=trust)
    if run.facts["classes"] and getattr(run.objective, "conditional", False):
        raise FastganError(f"{path} is told the label: sample its classes with --label")
    return traversal(
        run.objective,
        run.nets,
        name,
        seed=seed,
        device=run.device,
        precision=resolve("fp32", run.device),
        scalar=run.scalar,
    )
