"""The state of a run that is being trained: what its loop, its pictures and its folder work on."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgan import files
from fastgan.cpu.measure import forms_as_json
from fastgan.data import Dataset
from fastgan.data.opening import BUNDLED
from fastgan.devices import pick_device, search_algorithms
from fastgan.distributed.context import join, local_device
from fastgan.errors import FastganError
from fastgan.graphs.backends import graph_backend
from fastgan.monitor import remedies
from fastgan.monitor.health import Health
from fastgan.monitor.loggers import find_logger
from fastgan.monitor.quality import Quality
from fastgan.monitor.reporter import Reporter
from fastgan.monitor.statistics import Statistics
from fastgan.ops.dispatch import prefer
from fastgan.precision import resolve
from fastgan.runs import transfer
from fastgan.runs.run_folder import RunFolder
from fastgan.runs.serialize import serialize_network
from fastgan.runs.writing import CheckpointWriter
from fastgan.trainer import fingerprint, sampling
from fastgan.trainer.cpu_engine import CpuEngine
from fastgan.trainer.run_options import RunOptions
from fastgan.trainer.stages.active import ActiveStage
from fastgan.trainer.stages.sequence import Sources, StageSequence
from fastgan.trainer.stages.stage import Stage


class Session:
    """Everything of a run but the loop and the front door (`Trainer`).

    Args:
        stages: At least one.
        sources: The data of stages that have none of their own.
        options: Of the run.
        out: The run folder; None keeps everything in memory.
        log: The logger beside the run's own files, or None.
        config: What config.toml shall hold; None: what `options` and `sources` say.

    Attributes:
        step: Steps done.
        stopped_by: What ended `fit` early: a signal's name, or the reason given to `stop`; or None.
        asked_to_stop: That reason, until the step is done.
        rescheduled: What a resumed run does otherwise than before, or None.
        cut: What a run that has gone back drops with its next checkpoint, or None.
        taken: What was taken over from `init_from`, or None.
        told: The last reason said for steps without a graph.
        behind: Whether training goes on while a checkpoint is written: where it would keep other
            processes or a GPU waiting.
        saved_step, saved_at: Of the newest checkpoint: its step, and its time.
        quality: What was measured of the samples, and which step was best.
        descriptions: For each stage, how its networks are made again.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        sources: Sources,
        options: RunOptions,
        *,
        out: str | Path | None,
        log: str | None,
        config: Mapping[str, Any] | None,
    ) -> None:
        self.options = options
        self.device = pick_device(local_device(options.device))
        search_algorithms(self.device)
        self.ranks = join(self.device)
        with self.ranks.together(), prefer(options.impl):
            self.precision = resolve(options.precision, self.device)
            self.cpu = CpuEngine(options.precision, options.impl, self.device, self.ranks)
            self.sequence = StageSequence(
                stages,
                sources,
                options,
                device=self.device,
                precision=self.precision,
                ranks=self.ranks,
                cpu=self.cpu,
                graphs=graph_backend(options.graph, self.device, self.ranks),
            )
            self.step, self.saved_step, self.saved_at = 0, -1, time.monotonic()
            self.told: str | None = None
            self.rescheduled: str | None = None
            self.cut: str | None = None
            self.writer = CheckpointWriter()
            self.behind = self.ranks.world > 1 or self.device.type == "cuda"
            self.taken: str | None = None
            self.stopped_by: str | None = None
            self.asked_to_stop: str | None = None
            self.stats = Statistics(options.log_every, self.device, self.ranks)
            self.quality = Quality(options.seed, self.device)
            self.watch = Health(self._loss(stages[0])) if options.watch else None
            self.out = files.path_of(out, "out") if out is not None else None
            self.folder = (
                RunFolder(self.out, keep=options.keep)
                if self.out is not None and self.ranks.first
                else None
            )
            self.logger = find_logger(log, out) if self.ranks.first else None
            self.config: dict[str, Any] = {
                **(_python_config(options, sources) if config is None else config),
                "precision": self.precision.name,
            }
            self.reporter = Reporter(self.folder, self.watch, self._command)
            self.sequence.initialize()
            # Before anything is swapped: a network is made again from the classes its author wrote.
            self.descriptions = [
                {name: serialize_network(net) for name, net in stage.nets.items()}
                for stage in stages
            ]

    def enter(self, index: int) -> None:
        """Begin stage `index`."""
        self.sequence.enter(index)
        self.compute_in(self.cpu.precision)
        if self.options.evaluate_every:
            self.quality.enter(self.datasets.get("image"))
        if self.watch is not None:
            self.watch.enter(self._loss(self.active.stage))

    def begin_from(self, init_from: str | Path | None) -> None:
        """Begin the first stage, with the weights of another training where they fit."""
        if init_from is None:
            return self.enter(0)
        source = transfer.read(init_from)
        self.taken = transfer.into(self.stages[0].nets, source)
        self.enter(0)
        if transfer.average_into(self.ema, source):
            self.active.ema.warm_up = False
            self.taken += ", averages too"
        return None

    def compute_in(self, precision: str) -> None:
        """Take what was measured for precision "auto", or what the run was trained with."""
        if self.cpu.on and precision not in ("auto", self.precision.name):
            self.precision = self.sequence.precision = resolve(precision, self.device)
            self.config["precision"] = precision

    def sample(
        self,
        n: int = 64,
        *,
        seed: int | None = None,
        labels: Any = None,
        ema: bool = True,
        shown: bool = False,
    ) -> Tensor:
        """Images from the averaged generator.

        Args:
            n: How many images.
            seed: Another seed than the run's gives other images; the same one gives the same
                images.
            labels: A class, or n of them, for label-conditional networks.
            ema: False for the weights as trained instead of their average.
            shown: With all that the objective shows beside them, such as input and target.

        Returns:
            float32 (n, C, H, W) in [0, 1], on the CPU.
        """
        stage = self.active
        step = max(self.sequence.own_step(self.step), 0)
        with prefer(self.options.impl):
            return sampling.generate(
                stage.stage.objective,
                stage.sampling_nets(ema),
                n,
                seed=self.options.seed if seed is None else seed,
                device=self.device,
                precision=self.precision,
                datasets=stage.datasets,
                labels=labels,
                scalar=stage.scalars(step),
                shown=shown,
            )

    def save(self, *, passing: bool = False, behind: bool = False) -> Path:
        """Write a checkpoint of the present state. All processes call this, and the first one
        writes.

        Args:
            passing: Whether the next checkpoint may replace this one, as it does those by time.
            behind: Whether training may go on while it is written: not after `writer.settle()`.

        Returns:
            The folder of the checkpoint.

        Raises:
            FastganError: The trainer was made without `out`, or the checkpoint can't be written.
        """
        if self.out is None:
            raise FastganError("nothing to save to: this trainer was made without out=")
        with self.ranks.together():
            stats, path = self.stats.state_dict(), self.out
            if (folder := self.folder) is not None:
                self.writer.settle()
                self.reporter.sync()
                state = {
                    "images": self.images,
                    "stage": self.sequence.index,
                    "watch": self.watch.state_dict() if self.watch else None,
                    "identity": fingerprint.of_stage(self),
                    "forms": forms_as_json(self.sequence.forms),
                }
                state |= self.quality.state()
                folder.checkpoints.best = self.quality.best_step
                others = self.sequence.other_nets()
                groups = {**self.active.state(), "others": others, "stats": stats}
                step, path = self.step, folder.checkpoints.path(self.step)
                given = (step, groups, state, passing)
                checkpoints = folder.checkpoints
                write = (
                    checkpoints.prepared(*given) if behind else partial(checkpoints.save, *given)
                )

                def job() -> Path:
                    written = write()
                    folder.cut.saved(step)
                    return written

                self.writer.write(job, behind=behind)
        self.saved_step, self.saved_at = self.step, time.monotonic()
        return path

    def stop(self, why: str = "stop()") -> None:
        """Ask `fit` to end after this step, saved, with `why` in `stopped_by`; for callbacks."""
        self.asked_to_stop = why

    def close(self) -> None:
        """Let go of the run folder and of worker threads. Where a checkpoint that was being written
        fails, a line says so."""
        try:
            self.writer.close()
        except FastganError as error:
            self.reporter.warn(str(error))
        self.sequence.close()
        self.reporter.close()

    @property
    def stages(self) -> list[Stage]:
        return self.sequence.stages

    @property
    def active(self) -> ActiveStage:
        """The stage being trained."""
        return self.sequence.active

    @property
    def nets(self) -> dict[str, nn.Module]:
        """The networks being trained, by name."""
        return self.active.nets

    @property
    def ema(self) -> dict[str, nn.Module]:
        """The averaged networks, by name, in eval mode."""
        return self.active.ema.nets

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return self.active.optimizers

    @property
    def datasets(self) -> dict[str, Dataset]:
        return self.active.datasets

    @property
    def images(self) -> int:
        """Images of the data seen so far."""
        return self.sequence.images(self.step)

    def _command(self, cause: str) -> str | None:
        """What to type against a cause that was named."""
        return remedies.command(cause, self.config, self.out)

    @staticmethod
    def _loss(stage: Stage) -> str:
        return getattr(stage.objective, "loss", "non-saturating")


def _python_config(options: RunOptions, sources: Sources) -> dict[str, Any]:
    """config.toml of a run that no command began."""
    data = sources.data
    if isinstance(data, (str, os.PathLike)):
        data = BUNDLED if data == BUNDLED else files.recorded(os.fspath(data))
    else:
        data = type(data).__name__
    shape = {"size": sources.size, "channels": sources.channels}
    shape = {name: value for name, value in shape.items() if value is not None}
    return {"recipe": "python", "data": data, **shape, **dataclasses.asdict(options)}
