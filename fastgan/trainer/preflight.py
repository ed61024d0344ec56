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
from fastgan.trainer.networks import is_lazy, place
from fastgan.trainer.sampling import evaluating
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


def check_single(
    objective: Objective,
    nets: Mapping[str, nn.Module],
    batch: Mapping[str, Tensor],
    *,
    seed: int,
    device: torch.device,
    precision: Precision,
    layout: torch.memory_format,
) -> None:
    """Raises FastganError where the losses can't be computed of one image alone."""
    try:
        _dry_pass(objective, nets, batch, seed, device, precision, layout, 1)
    except Exception as error:
        if "more than 1 value per channel" in str(error):
            raise FastganError(
                "batch norm needs more than one image at a time, and each process has one: raise "
                "batch_size, or lower accumulate"
            ) from error
        raise _explained(error) from error


def initialize_lazy(
    objective: Objective,
    nets: Mapping[str, nn.Module],
    batch: Mapping[str, Tensor],
    *,
    seed: int,
    device: torch.device,
    precision: Precision,
) -> None:
    """Give lazy modules their parameters, by one pass over the networks themselves in eval mode;
    nothing else of them changes. Raises FastganError where some get none."""
    runner = StepRunner(objective, nets, {}, seed=seed, batch_size=BATCH, precision=precision)
    try:
        with evaluating(nets):
            _run(runner, nets, batch, device)
    except Exception as error:
        raise _explained(error) from error
    for name, net in nets.items():
        for p in net.parameters():
            if is_lazy(p):
                raise FastganError(
                    f"network {name!r} has a lazy module that no loss uses: leave it out"
                )
            p.grad = None


def _explained(error: Exception) -> Exception:
    if "out of memory" in str(error).lower() or isinstance(error, FastganError):
        return error
    if isinstance(error, IndexError) and "index out of range" in str(error):
        return FastganError(
            "a network knows fewer classes than the data have labels, which count from 0 to the "
            f"number of classes - 1 ({error}): give its embedding as many as `fastgan data` shows"
        )
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
    count: int = BATCH,
) -> None:
    copies = {
        name: place(copy.deepcopy(net), device, memory_format).train() for name, net in nets.items()
    }
    runner = StepRunner(objective, copies, {}, seed=seed, batch_size=count, precision=precision)
    first = {
        key: value[:count].contiguous(memory_format=memory_format)
        if value.dim() == 4
        else value[:count]
        for key, value in batch.items()
    }
    _run(runner, copies, first, device)


def _run(
    runner: StepRunner,
    nets: Mapping[str, nn.Module],
    batch: Mapping[str, Tensor],
    device: torch.device,
) -> None:
    """All losses once, with checks of what the networks return."""
    objective = runner.objective
    position = torch.zeros((), dtype=torch.int64, device=device)
    scalar = Named(
        {name: torch.tensor(value, device=device) for name, value in objective.schedule(0).items()}
    )
    step = runner.begin(batch, position, scalar, runner.due(0), tuple(nets))
    with runner.precision.autocast():
        fake = objective.generate(step)
        if not isinstance(fake, Tensor):
            raise FastganError(
                f"the generator returns a {type(fake).__name__}, not one tensor of images: return "
                "these alone, or write an Objective whose generate() picks them"
            )
        objective.check_images(fake, step)
    runner.run([batch] * runner.rounds, [position] * runner.rounds, scalar, runner.due(0))
