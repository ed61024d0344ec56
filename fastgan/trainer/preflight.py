"""Before training: one dry pass of every loss on copies of the networks, so that misfits are named
before anything is written."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Trial:
    """What a stage's losses are tried on.

    batch: the first samples of each stream, on the device. seed, precision: the training's.
    """

    objective: Objective
    nets: Mapping[str, nn.Module]
    batch: Mapping[str, Tensor]
    seed: int
    device: torch.device
    precision: Precision

    def memory_format(self) -> torch.memory_format:
        """channels_last where the networks take it, contiguous where they reshape with `.view`.

        Raises FastganError where a loss can't be computed."""
        has_convolution = any(
            isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))
            for net in self.nets.values()
            for m in net.modules()
        )
        if has_convolution:
            try:
                self._dry_pass(torch.channels_last)
                return torch.channels_last
            except Exception as error:  # what a user's network or loss may raise
                if "view size is not compatible" not in str(error):
                    raise _explained(error) from error
        try:
            self._dry_pass(torch.contiguous_format)
        except Exception as error:
            raise _explained(error) from error
        return torch.contiguous_format

    def check_single(self, memory_format: torch.memory_format) -> None:
        """Raises FastganError where the losses can't be computed of one image alone."""
        try:
            self._dry_pass(memory_format, 1)
        except Exception as error:
            if "more than 1 value per channel" in str(error):
                raise FastganError(
                    "batch norm needs more than one image at a time, and each process has one: "
                    "raise batch_size, or lower accumulate"
                ) from error
            raise _explained(error) from error

    def initialize_lazy(self) -> None:
        """Give lazy modules their parameters, by one pass over the networks themselves in eval
        mode; nothing else of them changes. Raises FastganError where some get none."""
        try:
            with evaluating(self.nets):
                self._run(self.nets, self.batch, BATCH)
        except Exception as error:
            raise _explained(error) from error
        for name, net in self.nets.items():
            for p in net.parameters():
                if is_lazy(p):
                    raise FastganError(
                        f"network {name!r} has a lazy module that no loss uses: leave it out"
                    )
                p.grad = None

    def _dry_pass(self, memory_format: torch.memory_format, count: int = BATCH) -> None:
        copies = {
            name: place(copy.deepcopy(net), self.device, memory_format).train()
            for name, net in self.nets.items()
        }
        first = {
            key: value[:count].contiguous(memory_format=memory_format)
            if value.dim() == 4
            else value[:count]
            for key, value in self.batch.items()
        }
        self._run(copies, first, count)

    def _run(self, nets: Mapping[str, nn.Module], batch: Mapping[str, Tensor], count: int) -> None:
        """All losses once, with checks of what the networks return."""
        objective, device = self.objective, self.device
        runner = StepRunner(
            objective, nets, {}, seed=self.seed, batch_size=count, precision=self.precision
        )
        position = torch.zeros((), dtype=torch.int64, device=device)
        scalar = Named(
            {
                name: torch.tensor(value, device=device)
                for name, value in objective.schedule(0).items()
            }
        )
        step = runner.begin(batch, position, scalar, runner.due(0), tuple(nets))
        with runner.precision.autocast():
            fake = objective.generate(step)
            if not isinstance(fake, Tensor):
                raise FastganError(
                    f"the generator returns a {type(fake).__name__}, not one tensor of images: "
                    "return these alone, or write an Objective whose generate() picks them"
                )
            objective.check_images(fake, step)
        runner.run([batch] * runner.rounds, [position] * runner.rounds, scalar, runner.due(0))


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
