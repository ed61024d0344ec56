"""A stretch of training with one set of networks: what it is (Stage) and its live state (ActiveStage)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.data import Dataset, Stream
from fastgan.data import open as open_data
from fastgan.engine import optim
from fastgan.engine.optim import Ema, OptimizerSpec, Schedule
from fastgan.engine.precision import Precision
from fastgan.engine.step import StepRunner
from fastgan.errors import FastganError
from fastgan.objectives import Objective

STAGE_SEEDS = 2**32
"""Seeds of users are below this; stage i draws with seed + i * STAGE_SEEDS."""


@dataclass
class Stage:
    """One stage: a pyramid level, a resolution, a warm-up. Stages follow each other, each with its own networks, objective
    and data.

    nets: networks by name; the same module object in two stages is carried over with its weights. steps: how many this stage
    lasts (the last one may be
    open-ended: None). data, batch_size, size, channels, optimizers, schedules: of this stage, the trainer's where None. ema:
    names of averaged networks.
    carry: fn(nets of the stage before, nets of this one), called once when this stage begins, to copy weights.
    """

    nets: Mapping[str, nn.Module]
    objective: Objective
    steps: int | None = None
    data: Any = None
    batch_size: int | None = None
    size: int | None = None
    channels: int | None = None
    optimizers: Mapping[str, OptimizerSpec] | OptimizerSpec | None = None
    schedules: Mapping[str, Mapping[str, Schedule]] = field(default_factory=dict)
    ema: tuple[str, ...] = ("G",)
    carry: Callable[[Mapping[str, nn.Module], Mapping[str, nn.Module]], None] | None = None


def place(net: nn.Module, device: torch.device, memory_format: torch.memory_format) -> nn.Module:
    """Move a network in place; its convolution weights take the memory format."""
    return net.to(device).to(memory_format=memory_format)  # type: ignore[call-overload]


def open_streams(data: Any, *, size: int | None, channels: int | None, strict: bool) -> dict[str, Dataset]:
    """Data sets by stream name: a dict of sources is several streams, anything else is the stream "image"."""
    sources = data if isinstance(data, Mapping) else {"image": data}
    return {name: open_data(source, size=size, channels=channels, strict=strict) for name, source in sources.items()}


class ActiveStage:
    """Networks, optimisers, averages, streams and the step of the stage being trained."""

    def __init__(
        self,
        stage: Stage,
        datasets: Mapping[str, Dataset],
        *,
        index: int,
        seed: int,
        batch_size: int,
        ema_decay: float,
        flip: bool,
        device: torch.device,
        precision: Precision,
        memory_format: torch.memory_format,
        resident_bytes: int,
    ) -> None:
        self.stage, self.datasets, self.device, self.precision = stage, dict(datasets), device, precision
        self.memory_format = memory_format
        self.nets = {name: place(net, device, memory_format).train() for name, net in stage.nets.items()}
        trained = {name for phase in stage.objective.phases() for name in phase.trains}
        self.optimizers = optim.build_optimizers(stage.optimizers, self.nets, trained)
        optim.check_schedules(stage.schedules, self.optimizers)
        self.ema = Ema({name: self.nets[name] for name in stage.ema if name in self.nets}, ema_decay, trained)
        self.seed = seed + index * STAGE_SEEDS
        self.runner = StepRunner(
            stage.objective, self.nets, self.optimizers, seed=self.seed, batch_size=batch_size, precision=precision
        )
        self.streams = [
            Stream(
                dataset, name=name, seed=self.seed, batch_size=batch_size, device=device, flip=flip, resident_bytes=resident_bytes
            )
            for name, dataset in datasets.items()
        ]

    @property
    def images_per_step(self) -> int:
        """Images of the data seen in one step."""
        return self.runner.rounds * self.runner.batch_size

    def batch(self, position: int) -> dict[str, Tensor]:
        merged: dict[str, Tensor] = {}
        for stream in self.streams:
            for key, value in stream.batch(position).items():
                if key in merged:
                    raise FastganError(f"two streams both give {key!r}: rename one of them")
                merged[key] = value.contiguous(memory_format=self.memory_format) if value.dim() == 4 else value
        return merged

    def scalars(self, step: int) -> dict[str, Tensor]:
        return {name: torch.tensor(value, device=self.device) for name, value in self.stage.objective.schedule(step).items()}

    def train_step(self, step: int) -> dict[str, Tensor]:
        """Step number `step` of this stage, then the averages. Returns what was logged, on the device."""
        torch.manual_seed(
            (self.seed * 0x9E3779B97F4A7C15 + step) % 2**63
        )  # networks that draw for themselves (dropout) resume exactly too
        optim.apply_schedules(self.stage.schedules, self.optimizers, step)
        positions = self.runner.positions(step)
        batches = [self.batch(position) for position in positions]
        for stream in self.streams:
            if not stream.resident:
                for position in self.runner.positions(step + 1)[:2]:
                    stream.prefetch(position)
        where = [torch.tensor(position, dtype=torch.int64, device=self.device) for position in positions]
        logged = self.runner.run(batches, where, self.scalars(step), self.runner.due(step))
        self.ema.update(step)
        return logged

    def sampling_nets(self, averaged: bool = True) -> dict[str, nn.Module]:
        return {**self.nets, **self.ema.nets} if averaged else self.nets

    def close(self) -> None:
        for stream in self.streams:
            stream.close()

    def state(self) -> dict[str, Any]:
        """Everything that training changes, as groups for a checkpoint."""
        return {
            "nets": {name: net.state_dict() for name, net in self.nets.items()},
            "ema": {name: net.state_dict() for name, net in self.ema.nets.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }

    def load_state(self, groups: Mapping[str, Any]) -> None:
        for kind, mine in (("nets", self.nets), ("ema", self.ema.nets)):
            for name, net in mine.items():
                load_network(net, groups[kind][name], f"{kind}/{name}")
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(groups["optimizers"][name])

    def finite(self) -> bool:
        """Whether all parameters and buffers are finite; reads the device."""
        values = [v for net in self.nets.values() for v in net.state_dict().values() if v.is_floating_point() and v.numel()]
        return bool(torch.stack([value.sum().isfinite() for value in values]).all()) if values else True


def load_network(net: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load weights in place. Raises FastganError naming the first parameter that differs."""
    mine = net.state_dict()
    for key in [*mine, *state]:
        if key not in state or key not in mine or mine[key].shape != state[key].shape:
            here = tuple(mine[key].shape) if key in mine else "absent"
            there = tuple(state[key].shape) if key in state else "absent"
            raise FastganError(
                f"network {name} is not the one that was trained: {key} is {here} here and {there} in the checkpoint"
            )
    net.load_state_dict(state)
