"""The stage being trained: its live state, and its steps split into what host and device decide."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastgan import arguments
from fastgan.cpu.layers import give
from fastgan.data import Dataset, Stream
from fastgan.devices import seed_generators
from fastgan.distributed.context import DistributedContext
from fastgan.errors import FastganError
from fastgan.graphs.backends import Graph
from fastgan.graphs.capture import State
from fastgan.graphs.step_graphs import StepGraphs
from fastgan.objectives import Objective
from fastgan.ops.adam.optimizer import FlatAdam
from fastgan.ops.conv.formed import Forms
from fastgan.ops.dispatch import prefer
from fastgan.ops.norm import sync
from fastgan.precision import Precision
from fastgan.trainer.networks import is_compiled, load_network, place
from fastgan.trainer.optimization import fused
from fastgan.trainer.optimization import optimizers as optim
from fastgan.trainer.optimization.optimizers import Ema
from fastgan.trainer.optimization.scheduled_options import ScheduledOptions
from fastgan.trainer.stages.stage import Stage
from fastgan.trainer.step.noise_buffer import NoiseBuffer
from fastgan.trainer.step.runner import StepRunner

STAGE_SEEDS = 2**32
"""Seeds of users are below this; stage i draws with seed + i * STAGE_SEEDS."""


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
        ranks: DistributedContext | None = None,
        graphs: Callable[[], Graph] | None = None,
        impl: str = "auto",
        sync_bn: bool = False,
        clip: float = 0.0,
        accumulate: int = 1,
        forms: Mapping[str, Mapping[str, Forms]] | None = None,
    ) -> None:
        self.impl = impl
        self.ranks = ranks or DistributedContext()
        self.stage, self.datasets, self.device, self.precision = (
            stage,
            dict(datasets),
            device,
            precision,
        )
        self.memory_format = memory_format
        self.nets = {
            name: place(net, device, memory_format).train() for name, net in stage.nets.items()
        }
        give(self.nets, forms or {})
        if sync_bn and self.ranks.world > 1:
            for net in self.nets.values():
                sync.convert(net)
        if impl in ("cudnn", "triton") or (impl == "auto" and device.type == "cuda"):
            from fastgan.acceleration import (
                accelerate,
            )  # imports every operator, which the plain path has no use for

            for net in self.nets.values():
                accelerate(net)
        trained = {name for phase in stage.objective.phases() for name in phase.trains}
        self.optimizers = optim.build_optimizers(stage.optimizers, self.nets, trained)
        own = stage.optimizers if isinstance(stage.optimizers, Mapping) else {}
        kept = [name for name, optimizer in self.optimizers.items() if own.get(name) is optimizer]
        self.optimizers = fused.replace_adams(
            self.optimizers,
            kept,
            impl,
            channels_last=memory_format == torch.channels_last,
            captured=graphs is not None,
            low_precision=precision.copied
            if not any(map(is_compiled, self.nets.values()))
            else None,
        )
        self.rates = ScheduledOptions(stage.schedules, self.optimizers)
        for name in stage.ema:
            if name != "G":
                arguments.network(name, self.nets, "ema names")
        self.ema = Ema(
            {name: self.nets[name] for name in stage.ema if name in self.nets}, ema_decay, trained
        )
        self.seed = seed + index * STAGE_SEEDS
        self.runner = StepRunner(
            stage.objective,
            self.nets,
            self.optimizers,
            seed=self.seed,
            batch_size=batch_size,
            precision=precision,
            ranks=self.ranks,
            clip=clip,
            accumulate=accumulate,
            layers=device.type == "cuda" and impl in ("auto", "triton"),
        )
        self.streams = [
            Stream(
                dataset,
                name=name,
                seed=self.seed,
                batch_size=batch_size,
                device=device,
                flip=flip,
                resident_bytes=resident_bytes,
                rank=self.ranks.rank,
                world=self.ranks.world,
                rounds=self.runner.rounds,
            )
            for name, dataset in datasets.items()
        ]
        alone = device.type == "cpu" and graphs is None and self.ranks.world == 1
        self._ahead = (
            NoiseBuffer(stage.objective.noise, self.seed, batch_size, self.runner.rounds)
            if alone
            else None
        )
        self._slots = [
            [stream.slots() for stream in self.streams] for _ in range(self.runner.rounds)
        ]
        self._positions = [
            torch.zeros((), dtype=torch.int64, device=device) for _ in range(self.runner.rounds)
        ]
        self._scalars = self.scalars(0)
        self._share = torch.zeros((), device=device)
        self._keep = torch.zeros((), dtype=torch.float64, device=device)
        self._adams = {name: o for name, o in self.optimizers.items() if isinstance(o, FlatAdam)}
        # In one launch where it comes to the same: one update a step of this network alone, which
        # no overflow of fp16 skips.
        members = {name: {id(p) for p in net.parameters()} for name, net in self.nets.items()}
        inside = [
            name
            for name, adam in self._adams.items()
            if members[name].issuperset(map(id, adam.flat.parameters))
        ]
        updates = {
            name: sum(p.repeat for p in self.runner.phases if name in p.trains)
            for name in self._adams
        }
        together = [
            name
            for name in inside
            if name in self.ema.nets and updates[name] == 1 and not self.runner.scalers
        ]
        fused.share_averages(self._adams, self.ema, together, self._keep)
        self.ranks.same(
            [
                value
                for net in [*self.nets.values(), *self.ema.nets.values()]
                for value in net.state_dict().values()
            ]
        )
        for adam in self._adams.values():
            adam.renew_copies()
        self.pairs = self._pairs(stage.objective)
        self.graphs = (
            StepGraphs(
                State(
                    [
                        *self.nets.values(),
                        *self.ema.nets.values(),
                        *self.optimizers.values(),
                        *self.runner.scalers.values(),
                    ]
                ),
                graphs,
                give_up=self.rates.release,
            )
            if graphs
            else None
        )
        self._hold_rates()

    def _pairs(self, objective: Objective) -> list[str]:
        """Lets `step.pair` call networks once where that is the same; a line for each network, or
        one that says why none."""
        if objective.one_pass is False:
            return ["two passes: the objective asks for them"]
        if objective.one_pass is None and self.device.type != "cuda":
            return ["two passes: on a CPU one is no faster"]
        if objective.one_pass is None and self.impl == "reference":
            return ["two passes: that is the reference"]
        # imports every operator, which the plain path has no use for
        from fastgan.trainer import sampling
        from fastgan.trainer.step import pairing

        few = sampling.conditions(self.datasets, self.seed, 0, pairing.SAMPLES, self.device)
        with prefer(self.impl):
            found = pairing.decide(
                objective,
                self.nets,
                self._merge([few]),
                seed=self.seed,
                device=self.device,
                ranks=self.ranks,
            )
        self.runner.one_pass = {
            name: pairing.one_pass for name, why in found.items() if why is None
        }
        return [
            f"{name}: {'one pass' if why is None else f'two passes: {why}'}"
            for name, why in found.items()
        ]

    @property
    def images_per_step(self) -> int:
        """Images of the data seen in one step, by all ranks together."""
        return self.runner.rounds * self.runner.batch_size

    def batch(self, position: int) -> dict[str, Tensor]:
        """The merged batch of all streams at a global position."""
        return self._merge([stream.batch(position) for stream in self.streams])

    def _merge(self, parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        merged: dict[str, Tensor] = {}
        for part in parts:
            for key, value in part.items():
                if key in merged:
                    raise FastganError(f"two streams both give {key!r}: rename one of them")
                merged[key] = (
                    value.contiguous(memory_format=self.memory_format)
                    if value.dim() == 4
                    else value
                )
        return merged

    def scalars(self, step: int) -> dict[str, Tensor]:
        return {
            name: torch.tensor(value, device=self.device)
            for name, value in self.stage.objective.schedule(step).items()
        }

    def train_step(self, step: int) -> dict[str, Tensor]:
        """Step number `step` of this stage, then the averages. Returns what was logged, on the
        device."""
        with prefer(self.impl):
            self._fill(step)
            due = self.runner.due(step)
            if self.graphs is not None:
                return self.graphs.run(due, lambda: self.on_device(due))
            return self.on_device(due, self._ahead.of(step) if self._ahead is not None else None)

    def _fill(self, step: int) -> None:
        """All that the host decides about a step, written to device memory that the step reads."""
        # Networks that draw for themselves (dropout) resume exactly too.
        seed_generators(
            (self.seed * 0x9E3779B97F4A7C15 + step * self.ranks.world + self.ranks.rank) % 2**63,
            self.device,
        )
        self.rates.apply(step)
        positions = self.runner.positions(step)
        for where, slots, position in zip(self._positions, self._slots, positions, strict=True):
            where.fill_(position + self.ranks.rank * (self.runner.batch_size // self.ranks.world))
            for stream, slot in zip(self.streams, slots, strict=True):
                stream.fill(slot, position)
        for stream in self.streams:
            if not stream.resident:
                rounds = (
                    self.runner.rounds
                )  # the coming batches follow each other, be they of this step or of later ones
                for ahead in range((step + 1) * rounds, (step + 1) * rounds + stream.depth):
                    stream.prefetch(ahead * self.runner.batch_size)
        for name, value in self.stage.objective.schedule(step).items():
            self._scalars[name].fill_(value)
        self._share.fill_(1.0 - self.ema.weight(step))
        if self._adams:
            self._keep.fill_(self.ema.weight(step))
        for adam in self._adams.values():
            adam.sync_hyper()

    def on_device(
        self, due: dict[str, int], noise: Sequence[Mapping[str, Tensor]] | None = None
    ) -> dict[str, Tensor]:
        """The step itself, from filled slots: nothing here depends on the host but which lazy terms
        are due."""
        batches = [
            self._merge([s.assemble(slot) for s, slot in zip(self.streams, slots, strict=True)])
            for slots in self._slots
        ]
        logged = self.runner.run(batches, self._positions, self._scalars, due, noise)
        self.ema.update(self._share)
        return logged

    def sampling_nets(self, averaged: bool = True) -> dict[str, nn.Module]:
        return {**self.nets, **self.ema.nets} if averaged else self.nets

    @property
    def graph_reason(self) -> str | None:
        """Why steps run without a graph, or None where they replay one."""
        return self.graphs.reason if self.graphs is not None else "off"

    def close(self) -> None:
        for stream in self.streams:
            stream.close()

    def state(self) -> dict[str, Any]:
        """Everything that training changes, as groups for a checkpoint."""
        return {
            "nets": {name: net.state_dict() for name, net in self.nets.items()},
            "ema": {name: net.state_dict() for name, net in self.ema.nets.items()},
            "optimizers": {
                name: self.rates.plain(name, o.state_dict()) for name, o in self.optimizers.items()
            },
            "scalers": {name: scaler.state_dict() for name, scaler in self.runner.scalers.items()},
        }

    def load_state(
        self, groups: Mapping[str, Any], own_options: Mapping[str, Collection[str]] | None = None
    ) -> None:
        """Take over what `state` gave. own_options: by network, options that its optimiser keeps,
        such as "lr". What the objective itself remembers begins anew where the state has none: it
        was given another option then."""
        new = set(self.stage.objective.own_nets()) - set(groups["nets"])
        for kind, mine in (("nets", self.nets), ("ema", self.ema.nets)):
            for name, net in mine.items():
                if name in new:
                    continue
                load_network(net, groups[kind][name], f"{kind}/{name}")
        for name, optimizer in self.optimizers.items():
            kept = [
                {option: group[option] for option in (own_options or {}).get(name, ())}
                for group in optimizer.param_groups
            ]
            optimizer.load_state_dict(groups["optimizers"][name])
            for group, own in zip(optimizer.param_groups, kept, strict=False):
                group |= own
        for name, scaler in self.runner.scalers.items():
            if name in groups["scalers"]:  # not where another precision goes on
                scaler.load_state_dict(groups["scalers"][name])
        self._hold_rates()

    def _hold_rates(self) -> None:
        """Where steps are captured, scheduled rates move to the device; a schedule that can't
        leaves eager steps."""
        if self.graphs is not None and self.graphs.reason is None:
            try:
                self.rates.hold(self.device)
            except FastganError as error:
                self.graphs.reason = str(error)

    def infinite(self) -> str | None:
        """The path in `state` of a tensor that is not finite, such as a moment of Adam, or None;
        reads the device."""
        from fastgan.runs.checkpoint import infinite  # a step alone needs no safetensors

        return infinite(self.state())
