"""Before training: one dry pass of every loss on copies of the networks, so that misfits are named
before anything is written."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fastgan.errors import FastganError
from fastgan.objectives import Objective
from fastgan.objectives.base import Named
from fastgan.precision import Precision
from fastgan.trainer.networks import place
from fastgan.trainer.step.runner import StepRunner

BATCH = 4
"""Samples of the dry pass: batch normalisation needs more than one."""


def choose_memory_format(
    objective: Objective,
    nets: Mapping[str, nn.Module],
    batch: Mapping[str, Tensor],
    *,
    seed: int,
    device: torch.device,
    precision: Precision,
) -> torch.memory_format:
    """channels_last where the networks take it, contiguous where they reshape with `.view`. Raises
    FastganError where a loss can't be computed.

    batch: the first samples of each stream, on the device.
    """
    has_convolution = any(
        isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))
        for net in nets.values()
        for m in net.modules()
    )
    if has_convolution:
        try:
            _dry_pass(objective, nets, batch, seed, device, precision, torch.channels_last)
            return torch.channels_last
        except Exception as error:  # what a user's network or loss may raise
            if "view size is not compatible" not in str(error):
                raise _explained(error) from error
    try:
        _dry_pass(objective, nets, batch, seed, device, precision, torch.contiguous_format)
    except Exception as error:
        raise _explained(error) from error
    return torch.contiguous_format


def _explained(error: Exception) -> Exception:
    if "out of memory" in str(error).lower() or isinstance(error, FastganError):
        return error
    lines = str(error).splitlines() or [""]
    return FastganError(
        f"the networks do not fit the data or the objective: {type(error).__name__}: {lines[0]}"
    )


def _dry_pass(
    objective: Objective,
    nets: Mapping[str, nn.Module],
    batch: Mapping[str, Tensor],
    seed: int,
    device: torch.device,
    precision: Precision,
    memory_format: torch.memory_format,
) -> None:
    copies = {
        name: place(copy.deepcopy(net), device, memory_format).train() for name, net in nets.items()
    }
    runner = StepRunner(objective, copies, {}, seed=seed, batch_size=BATCH, precision=precision)
    first = {
        key: value[:BATCH].contiguous(memory_format=memory_format)
        if value.dim() == 4
        else value[:BATCH]
        for key, value in batch.items()
    }
    position = torch.zeros((), dtype=torch.int64, device=device)
    scalar = Named(
        {name: torch.tensor(value, device=device) for name, value in objective.schedule(0).items()}
    )
    step = runner.begin(first, position, scalar, runner.due(0), tuple(copies))
    with precision.autocast():
        objective.check_images(objective.generate(step), step)
    runner.run([first] * runner.rounds, [position] * runner.rounds, scalar, runner.due(0))
