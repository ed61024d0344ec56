"""The stages of a run in their order: which one trains which step, what passes from one to the
next, and which networks lie outside the present one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastgan import arguments
from fastgan.data import Dataset
from fastgan.distributed.context import DistributedContext
from fastgan.errors import FastganError
from fastgan.graphs.backends import Graph
from fastgan.objectives import Adversarial, Objective
from fastgan.precision import Precision, resolve
from fastgan.trainer import preflight, sampling
from fastgan.trainer.cpu_engine import CpuEngine, StageForms
from fastgan.trainer.networks import is_lazy
from fastgan.trainer.optimization.optimizers import OptimizerSpec, Schedule
from fastgan.trainer.run_options import RunOptions
from fastgan.trainer.stages.active import ActiveStage
from fastgan.trainer.stages.stage import Stage, names_of, networks_of, open_streams


def single_stage(
    generator: nn.Module | None,
    discriminator: nn.Module | None,
    nets: Mapping[str, nn.Module] | None,
    objective: Objective | None,
    loss: str,
    latent_shape: tuple[int, ...] | int,
    optimizers: Mapping[str, OptimizerSpec] | OptimizerSpec | None,
    schedules: Mapping[str, Mapping[str, Schedule]] | None,
    ema: Sequence[str] | bool,
) -> Stage:
    """The one stage that `Trainer`'s arguments describe. Raises FastganError for what is no
    network, or where there is none."""
    by_name = dict(networks_of({} if nets is None else nets))
    if generator is not None:
        by_name["G"] = generator
    if discriminator is not None:
        by_name["D"] = discriminator
    networks_of(by_name)
    if not by_name:
        raise FastganError("no networks: pass generator= and discriminator=, or nets=")
    chosen = (
        Adversarial(loss, arguments.shape(latent_shape, "latent_shape"))
        if objective is None
        else objective
    )
    scheduled = {} if schedules is None else schedules
    return Stage(by_name, chosen, optimizers=optimizers, schedules=scheduled, ema=names_of(ema))


def checked_stages(stages: Any) -> list[Stage]:
    """Raises FastganError for what is no list of stages."""
    if isinstance(stages, (str, bytes)) or not isinstance(stages, Sequence) or not stages:
        raise FastganError(f"stages must be a list of Stage, not {arguments.shown(stages)}")
    return [arguments.one_of(stage, "one of stages", Stage, "a fastgan.Stage") for stage in stages]


@dataclass(frozen=True)
class Sources:
    """Where images come from when a stage names nothing of its own; see `fastgan.data.open`."""

    data: Any
    size: int | None
    channels: int | None


class StageSequence:
    """The stages of a run, one of which is active.

    Args:
        stages: At least one; only the last may leave its number of steps open.
        sources: Data of the stages that have none of their own.
        options: Of the run.
        device, precision, ranks: Where and how all of it is computed.
        cpu: What chooses forms, and the precision where it is measured, on a CPU.
        graphs: Makes a CUDA graph; None runs every step eagerly.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        sources: Sources,
        options: RunOptions,
        *,
        device: torch.device,
        precision: Precision,
        ranks: DistributedContext,
        cpu: CpuEngine,
        graphs: Callable[[], Graph] | None,
    ) -> None:
        self.stages, self.sources, self.options = list(stages), sources, options
        self.device, self.precision, self.ranks, self.graphs = device, precision, ranks, graphs
        self.cpu = cpu
        self.forms: StageForms = {}
        self.index = -1
        self._active: ActiveStage | None = None
        self._images_before = 0

    @property
    def active(self) -> ActiveStage:
        """The stage being trained."""
        assert self._active is not None
        return self._active

    def first_step(self, index: int) -> int:
        """The step of the run with which stage `index` begins."""
        return sum(stage.steps or 0 for stage in self.stages[:index])

    def at(self, step: int) -> int:
        """The stage that trains step number `step`; the last one goes on for ever."""
        for index in range(len(self.stages) - 1):
            if step < self.first_step(index + 1):
                return index
        return len(self.stages) - 1

    def own_step(self, step: int) -> int:
        """The active stage's own count, from 0 on, at `step` of the run."""
        return step - self.first_step(self.index)

    def images(self, step: int) -> int:
        """Images of the data seen in `step` steps."""
        return self._images_before + self.own_step(step) * self.active.images_per_step

    def enter(self, index: int) -> None:
        """Make stage `index` the active one, with fresh optimisers and averages."""
        stage, options = self.stages[index], self.options
        if stage.steps is None and index < len(self.stages) - 1:
            raise FastganError(f"stage {index} has no number of steps, and it is not the last")
        datasets = self._open(stage)
        stage.objective.check(stage.nets)
        before = self._active
        if before is not None:
            before.close()
            if stage.carry is not None:
                stage.carry(before.nets, stage.nets)
        trial = self._trial(stage, datasets)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), self.cpu.look(stage.nets) as look:
            layout = trial.memory_format()
            batch_size = stage.batch_size or options.batch_size
            if batch_size == self.ranks.world * options.accumulate:
                trial.check_single(layout)
        self.forms = self.cpu.choose(
            look, batch_size / options.accumulate / preflight.BATCH, layout
        )
        if self.cpu.on and self.cpu.precision != "auto":
            self.precision = resolve(self.cpu.precision, self.device)
        self._active = ActiveStage(
            stage,
            datasets,
            index=index,
            seed=options.seed,
            batch_size=batch_size,
            ema_decay=options.ema_decay,
            flip=options.flip,
            device=self.device,
            precision=self.precision,
            memory_format=layout,
            resident_bytes=options.resident_bytes,
            ranks=self.ranks,
            graphs=self.graphs,
            impl=options.impl,
            sync_bn=options.sync_bn,
            clip=options.clip,
            accumulate=options.accumulate,
            forms=self.forms,
        )
        if before is not None:
            averages = self._active.ema.nets
            for name, net in before.ema.nets.items():
                if stage.nets.get(name) is before.stage.nets[name] and name in averages:
                    averages[name].load_state_dict(net.state_dict())
        self.index = index
        self._images_before = sum(map(self._images_of, range(index)))

    def initialize(self) -> None:
        """Give the lazy modules of all stages their parameters."""
        for stage in self.stages:
            if any(is_lazy(p) for net in stage.nets.values() for p in net.parameters()):
                for net in stage.nets.values():
                    net.to(self.device)
                self._trial(stage, self._open(stage)).initialize_lazy()

    def _trial(self, stage: Stage, datasets: Mapping[str, Dataset]) -> preflight.Trial:
        """Of samples of each stream, the largest label among them."""
        few = sampling.conditions(datasets, self.options.seed, 0, preflight.BATCH, self.device)
        for name, dataset in datasets.items():
            for field, spec in dataset.fields.items():
                if spec.kind == "label" and dataset.classes:
                    few[sampling.key_of(name, field)][0] = int(dataset.present.max())
        return preflight.Trial(
            stage.objective, stage.nets, few, self.options.seed, self.device, self.precision
        )

    def other_nets(self) -> dict[str, dict[str, Tensor]]:
        """Weights of the networks that only other stages hold: later stages may use them, or begin
        from them."""
        seen = {id(net) for net in self.active.nets.values()}
        found = {}
        for index, stage in enumerate(self.stages):
            for name, net in stage.nets.items():
                if id(net) not in seen:
                    seen.add(id(net))
                    found[f"{index}/{name}"] = {
                        key: value.contiguous() for key, value in net.state_dict().items()
                    }
        return found

    def close(self) -> None:
        """Let go of worker threads."""
        if self._active is not None:
            self._active.close()

    def _open(self, stage: Stage) -> dict[str, Any]:
        source = self.sources.data if stage.data is None else stage.data
        size, channels = stage.size or self.sources.size, stage.channels or self.sources.channels
        strict = self.options.strict
        if self.ranks.first:
            datasets = open_streams(source, size=size, channels=channels, strict=strict)
        self.ranks.wait()  # the others find the cache that rank 0 has made
        if not self.ranks.first:
            datasets = open_streams(source, size=size, channels=channels, strict=strict)
        return datasets

    def _images_of(self, index: int) -> int:
        """Images seen by a stage from its beginning to its end."""
        stage = self.stages[index]
        rounds = sum(phase.repeat for phase in stage.objective.phases() if phase.fresh)
        return (stage.steps or 0) * rounds * (stage.batch_size or self.options.batch_size)
