"""The Trainer: drives stages, and leaves a run behind. What a step does is in step.py, what a run
folder holds in run_folder.py."""

from __future__ import annotations

import json
import os
import platform
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fastgan
from fastgan.data import Dataset
from fastgan.devices import memory_explained, pick_device, search_algorithms
from fastgan.distributed.context import join, local_device
from fastgan.errors import FastganError
from fastgan.graphs.backends import graph_backend
from fastgan.monitor.health import Health
from fastgan.monitor.loggers import find_logger
from fastgan.monitor.progress import Progress
from fastgan.monitor.reporter import Reporter
from fastgan.monitor.statistics import Statistics
from fastgan.objectives import Adversarial, Objective
from fastgan.ops.dispatch import prefer
from fastgan.precision import resolve
from fastgan.reports import page
from fastgan.runs import toml
from fastgan.runs.run_folder import RunFolder, read_checkpoint
from fastgan.runs.serialize import serialize_network
from fastgan.trainer import fingerprint, sampling
from fastgan.trainer.graceful_stop import GracefulStop
from fastgan.trainer.optimizers import OptimizerSpec, Schedule
from fastgan.trainer.preflight import choose_memory_format
from fastgan.trainer.stage import ActiveStage, Stage, load_network, open_streams

GRID = 64
"""Samples in a picture."""

LOOK_EVERY = 200
"""Steps between two looks of the watch at samples."""


class Trainer:
    """Trains a GAN, your networks or a recipe's, on your images, and leaves a run folder.

    Making a trainer opens the data, tries every loss once on copies of the networks, and writes the
    beginning of the run; `fit` trains; `sample` makes images; `close`, or leaving a `with` block,
    lets go of the folder.

    Args:
        generator: The network "G". It maps latents (B, *latent_shape) to images (B, C, H, W) in
            [-1, 1], so it usually ends in Tanh.
        discriminator: The network "D". It maps images to logits of any shape, without a Sigmoid.
        nets: More networks by name, or all of them, such as `{"G": G, "D": D, "Q": Q}`.
        objective: What is trained against what. Default: `Adversarial(loss, latent_shape)`.
        loss: The name of the adversarial loss where no objective is given: "non-saturating",
            "minimax", "hinge", "wasserstein", "least-squares" or "relativistic".
        latent_shape: The shape of one latent vector where no objective is given.
        stages: Several stages that follow each other, instead of all arguments above.
        data: Whatever `fastgan.data.open` takes (a folder, archive, array, data set), or a dict of
            such sources by stream name. Default: the bundled Fashion-MNIST images.
        size: The side in pixels, or (height, width), that images are scaled and cut to. Default:
            what the data have.
        channels: 1, 3 or 4 channels. Default: what the data have.
        optimizers: A function from parameters to an optimiser, for all networks or by name; an
            optimiser of your own is taken, too. Default: Adam(2e-4, (0.5, 0.999)).
        schedules: `{"G": {"lr": fn}}`, where fn maps a step to a value.
        batch_size: The real images of one step, of all processes together.
        seed: A whole number in [0, 2**32). All that is random follows from it.
        out: The run folder, which must not exist yet. None keeps everything in memory.
        resume: Whether to go on with the run in `out`, exactly as if it had never stopped.
        reschedule: With `resume`, whether other schedules and learning rates than before are
            accepted. `rescheduled` then says what changed, and so does run.json.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
        precision: "auto" (bf16 on Ampere GPUs and newer, else fp32), "fp32", "tf32", "bf16",
            "fp16".
        graph: "auto" replays each step as a CUDA graph where that is possible, "on" insists on it,
            "off" never does.
        impl: The engine of the operators: "auto", "reference", "cudnn" or "triton". "auto" swaps
            the networks' layers on a GPU, as `accelerate` does; "reference" keeps all kernels away.
        sync_bn: Under torchrun, whether batch norm sees the images of all processes together.
        flip: Whether images are mirrored at random.
        ema: The names of networks whose weights are averaged for sampling.
        ema_decay: The decay of that average.
        log_every: Steps between two rows of metrics.
        sample_every: Steps between two pictures of samples.
        checkpoint_every: Steps between two checkpoints.
        checkpoint_minutes: Save also when the last checkpoint is so old; 0 saves by steps alone.
        keep: How many checkpoints are kept, of which at most the newest is one by time.
        watch: Whether to look for what goes wrong, such as a collapse, and to warn.
        strict: Whether an image that can't be read is an error instead of being left out.
        resident_bytes: Data sets of at most this many bytes lie on the device.
        progress: Whether a progress line is shown.
        log: "tensorboard" or "wandb", to log there as well; wandb stays offline unless WANDB_MODE
            says otherwise.
        config: What config.toml of the run shall hold. Default: these arguments.

    Raises:
        FastganError: The parts do not fit each other, or the folder, the data or the device can't
            be used. Nothing has been written then.

    Example:
        >>> import numpy as np
        >>> from torch import nn
        >>> import fastgan
        >>> pixels = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), np.uint8)
        >>> G = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
        >>> D = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
        >>> with fastgan.Trainer(
        ...     G, D, latent_shape=(16,), data=pixels, batch_size=16, out="runs/first"
        ... ) as trainer:
        ...     trainer.fit(steps=4)
        ...     images = trainer.sample(9)
        >>> images.shape
        torch.Size([9, 1, 8, 8])
    """

    def __init__(
        self,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        *,
        nets: Mapping[str, nn.Module] | None = None,
        objective: Objective | None = None,
        loss: str = "non-saturating",
        latent_shape: tuple[int, ...] = (100, 1, 1),
        stages: Sequence[Stage] | None = None,
        data: Any = "fashion-mnist",
        size: int | None = None,
        channels: int | None = None,
        optimizers: Mapping[str, OptimizerSpec] | OptimizerSpec | None = None,
        schedules: Mapping[str, Mapping[str, Schedule]] | None = None,
        batch_size: int = 64,
        seed: int = 0,
        out: str | Path | None = None,
        resume: bool = False,
        reschedule: bool = False,
        device: str = "auto",
        precision: str = "auto",
        graph: str = "auto",
        impl: str = "auto",
        sync_bn: bool = False,
        flip: bool = False,
        ema: Sequence[str] = ("G",),
        ema_decay: float = 0.999,
        log_every: int = 50,
        sample_every: int = 500,
        checkpoint_every: int = 1000,
        checkpoint_minutes: float = 10.0,
        keep: int = 3,
        watch: bool = True,
        strict: bool = False,
        resident_bytes: int = 2**31,
        progress: bool = True,
        log: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value in {
            "batch_size": batch_size,
            "log_every": log_every,
            "sample_every": sample_every,
            "checkpoint_every": checkpoint_every,
            "keep": keep,
        }.items():
            if value < 1:
                raise FastganError(f"{name} must be at least 1, not {value}")
        if not checkpoint_minutes >= 0:
            raise FastganError(f"checkpoint_minutes must be at least 0, not {checkpoint_minutes}")
        if not 0 <= seed < 2**32:
            raise FastganError(f"seed must lie in [0, 2**32), not {seed}")
        if resume and out is None:
            raise FastganError("resume=True needs out=, the run to go on with")
        self.stages = (
            list(stages)
            if stages
            else [
                _single_stage(
                    generator,
                    discriminator,
                    nets,
                    objective,
                    loss,
                    latent_shape,
                    optimizers,
                    schedules,
                    ema,
                )
            ]
        )
        self.data, self.size, self.channels = data, size, channels
        self.batch_size, self.seed, self.flip, self.ema_decay = batch_size, seed, flip, ema_decay
        self.log_every, self.sample_every, self.checkpoint_every = (
            log_every,
            sample_every,
            checkpoint_every,
        )
        self.checkpoint_minutes = checkpoint_minutes
        self.strict, self.resident_bytes, self.show_progress = strict, resident_bytes, progress
        self.device = pick_device(local_device(device))
        search_algorithms(self.device)
        self.ranks = join(self.device)
        with self.ranks.together(), prefer(impl):
            self.precision = resolve(precision, self.device)
            self.graph, self.impl, self.sync_bn = graph, impl, sync_bn
            self._backend = graph_backend(graph, self.device, self.ranks)
            self._told: str | None = None
            self.rescheduled: str | None = None
            self.step = 0
            self.stats = Statistics(log_every, self.device, self.ranks)
            self.watch = (
                Health(getattr(self.stages[0].objective, "loss", "non-saturating"))
                if watch
                else None
            )
            self.stopped_by: str | None = None
            self._stop_request = GracefulStop()
            self._path = Path(out).expanduser() if out is not None else None
            self.folder = (
                RunFolder(self._path, keep=keep)
                if self._path is not None and self.ranks.first
                else None
            )
            self._logger = find_logger(log, out) if self.ranks.first else None
            self.config = {
                **(config if config is not None else self._python_config()),
                "precision": self.precision.name,
            }
            self.reporter = Reporter(self.folder, self.watch, self._remedy())
            # Before anything is swapped: a network is made again from the classes its author wrote.
            self.descriptions = [
                {name: serialize_network(net) for name, net in stage.nets.items()}
                for stage in self.stages
            ]
            self._index = -1
            self._active: ActiveStage | None = None
            self._parent = os.getppid() if self.ranks.world > 1 else None
            self._saved_step, self._saved_at = -1, time.monotonic()
            if self.folder is not None and not resume and self.folder.exists():
                raise FastganError(
                    f"{self.folder.path} exists already: choose another out, or go on with it "
                    "(resume=True, --resume)"
                )
            try:
                with memory_explained(batch_size):
                    if resume:
                        self._resume(reschedule)
                    else:
                        self._enter(0)
                        self._begin_run()
            except BaseException:
                self.close()
                raise

    def fit(self, steps: int, *, seconds: float | None = None) -> None:
        """Train until `steps` steps have been done in all.

        A repeated call, or one after `resume=True`, goes on from where the last one ended. SIGINT,
        SIGTERM, SIGHUP and SIGUSR1 (the last two unless they are ignored) finish the step, save,
        and return with `stopped_by` set; a second SIGINT interrupts at once.

        Args:
            steps: The length of the whole run in updates of the generator.
            seconds: Stop earlier, after the step in which this time is over.

        Raises:
            FastganError: A value is not finite (the message names the last good checkpoint), or
                memory ran out (the message says what to lower).
        """
        self.stopped_by = None
        if self.show_progress and self.ranks.first:
            self.reporter.progress = Progress(steps, start=self.step, seconds=seconds)
        devices = [self.device] if self.device.type == "cuda" else []
        try:
            with (
                self.ranks.together(),
                prefer(self.impl),
                memory_explained(self.batch_size),
                GracefulStop(self._parent) as self._stop_request,
                torch.random.fork_rng(devices),
            ):
                self._train(steps, time.monotonic() + seconds if seconds is not None else None)
        finally:
            if self.reporter.progress is not None:
                self.reporter.progress.close()
                self.reporter.progress = None

    def sample(
        self, n: int = GRID, *, seed: int | None = None, labels: Any = None, ema: bool = True
    ) -> Tensor:
        """Images from the averaged generator.

        Args:
            n: How many images.
            seed: Another seed than the run's gives other images; the same one gives the same
                images.
            labels: A class, or n of them, for label-conditional networks.
            ema: False for the weights as trained instead of their average.

        Returns:
            float32 (n, C, H, W) in [0, 1], on the CPU.
        """
        stage = self.active
        step = max(self.step - self._first_step(self._index), 0)
        with prefer(self.impl):
            return sampling.generate(
                stage.stage.objective,
                stage.sampling_nets(ema),
                n,
                seed=self.seed if seed is None else seed,
                device=self.device,
                precision=self.precision,
                datasets=stage.datasets,
                labels=labels,
                scalar=stage.scalars(step),
            )

    def save(self) -> Path:
        """Write a checkpoint of the present state. All processes call this, and the first one
        writes.

        Returns:
            The folder of the checkpoint.

        Raises:
            FastganError: The trainer was made without `out`, or the checkpoint can't be written.
        """
        return self._save(passing=False)

    def _save(self, passing: bool) -> Path:
        if self._path is None:
            raise FastganError("nothing to save to: this trainer was made without out=")
        with self.ranks.together():
            stats = self.stats.state_dict()
            path = (
                self._path
                if self.folder is None
                else self._write_checkpoint(self.folder, stats, passing)
            )
        self._saved_step, self._saved_at = self.step, time.monotonic()
        return path

    def _write_checkpoint(self, folder: RunFolder, stats: dict[str, Any], passing: bool) -> Path:
        self.reporter.sync()
        watch = self.watch.state_dict() if self.watch else None
        state = {
            "images": self.images,
            "stage": self._index,
            "watch": watch,
            "identity": fingerprint.of_stage(self),
        }
        groups = {**self.active.state(), "others": self._other_nets(), "stats": stats}
        return folder.checkpoints.save(self.step, groups, state, passing)

    def close(self) -> None:
        """Let go of the run folder and of worker threads."""
        if self._active is not None:
            self._active.close()
        self.reporter.close()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        return (
            self._images_before
            + (self.step - self._first_step(self._index)) * self.active.images_per_step
        )

    @property
    def active(self) -> ActiveStage:
        assert self._active is not None
        return self._active

    def _other_nets(self) -> dict[str, dict[str, Tensor]]:
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

    def _first_step(self, index: int) -> int:
        return sum(stage.steps or 0 for stage in self.stages[:index])

    def _stage_of(self, step: int) -> int:
        """The stage that trains step number `step`; the last one goes on for ever."""
        for index in range(len(self.stages) - 1):
            if step < self._first_step(index + 1):
                return index
        return len(self.stages) - 1

    def _enter(self, index: int) -> None:
        """Make stage `index` the active one, with fresh optimisers and averages."""
        stage = self.stages[index]
        if stage.steps is None and index < len(self.stages) - 1:
            raise FastganError(f"stage {index} has no number of steps, and it is not the last")
        before = self._active
        size, channels = stage.size or self.size, stage.channels or self.channels
        source = self.data if stage.data is None else stage.data
        if self.ranks.first:
            datasets = open_streams(source, size=size, channels=channels, strict=self.strict)
        self.ranks.wait()  # the others find the cache that rank 0 has made
        if not self.ranks.first:
            datasets = open_streams(source, size=size, channels=channels, strict=self.strict)
        stage.objective.check(stage.nets)
        if before is not None:
            before.close()
            if stage.carry is not None:
                stage.carry(before.nets, stage.nets)
        batch_size = stage.batch_size or self.batch_size
        few = sampling.conditions(datasets, self.seed, 0, 4, self.device)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            layout = choose_memory_format(
                stage.objective,
                stage.nets,
                few,
                seed=self.seed,
                device=self.device,
                precision=self.precision,
            )
        self._active = ActiveStage(
            stage,
            datasets,
            index=index,
            seed=self.seed,
            batch_size=batch_size,
            ema_decay=self.ema_decay,
            flip=self.flip,
            device=self.device,
            precision=self.precision,
            memory_format=layout,
            resident_bytes=self.resident_bytes,
            ranks=self.ranks,
            graphs=self._backend,
            impl=self.impl,
            sync_bn=self.sync_bn,
        )
        if before is not None:
            for name, net in before.ema.nets.items():
                if (
                    stage.nets.get(name) is before.stage.nets[name]
                    and name in self._active.ema.nets
                ):
                    self._active.ema.nets[name].load_state_dict(net.state_dict())
        if self.watch is not None:
            self.watch.enter(getattr(stage.objective, "loss", "non-saturating"))
        self._index = index
        self._images_before = 0
        for i, earlier in enumerate(self.stages[:index]):
            rounds = sum(p.repeat for p in earlier.objective.phases() if p.fresh)
            self._images_before += (
                (self._first_step(i + 1) - self._first_step(i))
                * rounds
                * (earlier.batch_size or self.batch_size)
            )

    def _begin_run(self) -> None:
        if self.folder is None:
            return
        facts = {
            "fastgan": fastgan.__version__,
            "versions": {
                "torch": torch.__version__,
                "Python": platform.python_version(),
                "system": platform.system(),
            },
            **fingerprint.rebuilding(self),
            "identity": fingerprint.of(self),
        }
        facts["pairs"] = self.active.pairs
        self.folder.create()
        try:
            self.folder.write("config.toml", toml.dumps(self.config))
            self.folder.write("run.json", json.dumps(facts, indent=1))
            self._open_logger(self.folder)
            self.save()
            self._draw_reals()
            self._draw_samples()
            self.folder.begun()
        except BaseException:
            self.reporter.close_logger()
            self.folder.abandon()
            raise

    def _open_logger(self, folder: RunFolder) -> None:
        """Only now: a logger makes files in the run folder, which must be ours first."""
        if self._logger is not None:
            try:
                self.reporter.logger = self._logger(folder.path, self.config, self.step)
            except Exception as error:  # other people's code
                raise FastganError(
                    f"can't log to {self._logger.__name__}: {' '.join(str(error).split())}"
                ) from error

    def _resume(self, reschedule: bool) -> None:
        assert self._path is not None
        if self.folder is not None:
            self.folder.open()
        self.ranks.wait()
        folder = self.folder or RunFolder(self._path)
        facts, now = folder.facts(), fingerprint.of(self)
        changes = []
        if reschedule:
            step = max(folder.checkpoints.steps(), default=0)
            changes.append(
                fingerprint.reschedule(
                    facts["identity"], now, step - self._first_step(self._stage_of(step))
                )
            )
        fingerprint.compare(facts["identity"], now, self._path)
        groups, state = read_checkpoint(folder.checkpoints, facts)
        self._enter(state["stage"])
        here = fingerprint.of_stage(self)
        with folder.checkpoints.whole(state["step"]):
            rates = fingerprint.changed_rates(state["identity"], here) if reschedule else {}
            for net, (old, new) in rates.items():
                if "lr" not in self.active.stage.schedules.get(
                    net, {}
                ):  # a schedule has its own line
                    changes.append(f"{net}: lr goes on with {new:g} instead of {old:g}")
        self.rescheduled = "; ".join(filter(None, changes)) or None
        fingerprint.compare(state["identity"], here, self._path)
        with folder.checkpoints.whole(state["step"]):
            self.active.load_state(groups, own_rates=rates)
            for name in self._other_nets():
                index, _, net = name.partition("/")
                load_network(
                    self.stages[int(index)].nets[net],
                    groups["others"][name],
                    f"{net} of stage {index}",
                )
            self.stats.load_state_dict(groups["stats"])
            self.step = state["step"]
            if self.watch is not None and state["watch"] is not None:
                self.watch.load_state_dict(state["watch"])
        self._saved_step = self.step
        if self.folder is not None:
            self._go_on_in(self.folder, facts)

    def _go_on_in(self, folder: RunFolder, facts: dict[str, Any]) -> None:
        """Make the folder of a resumed run what it was at the step that it goes on from."""
        lost = [
            path.name
            for path in folder.checkpoints.incomplete()
            if path > folder.checkpoints.path(self.step)
        ]
        if lost:
            self.reporter.warn(
                f"{folder.checkpoints.folder / lost[-1]} has no state.json: going on from step "
                f"{self.step}"
            )
        folder.rewind(self.step)
        missing = self.step // self.log_every - len(folder.rows(folder.metrics))
        if missing > 0:
            self.reporter.warn(
                f"{folder.metrics} has lost {missing} of its {self.step // self.log_every} rows"
            )
        folder.write("config.toml", toml.dumps(self.config))
        if self.rescheduled:
            facts.setdefault("changes", []).append({"step": self.step, "what": self.rescheduled})
        if facts.pop("demo", None) is not None or self.rescheduled:
            folder.write("run.json", json.dumps(facts, indent=1))
        with self.reporter.accessory("metrics.csv"):
            folder.write_table()
        with self.reporter.accessory("the log"):
            self._open_logger(folder)
        with self.reporter.accessory("samples"):
            folder.rewind_pictures(self.step)
        # Stopped between checkpoint and picture, or they could not be written then.
        if not (folder.path / "reals.png").exists():
            self._draw_reals()
        if not (folder.path / "samples" / f"{self.step:08d}.png").exists():
            self._draw_samples()

    def _remedy(self) -> str:
        """What to do about a run that diverges: a command where one began it."""
        rates = {
            name: value for name, value in self.config.items() if name in ("lr", "lr_g", "lr_d")
        }
        if self._path is None:
            go_on = "Start again with lower learning rates"
        elif self.config.get("recipe") == "python" or not rates:
            go_on = (
                "Go on from there with lower learning rates in optimizers= or schedules=, "
                "resume=True and reschedule=True"
            )
        else:
            flags = " ".join(
                f"--{name.replace('_', '-')} {value / 2:g}" for name, value in rates.items()
            )
            go_on = (
                "Go on from there at half the rate: fastgan train --resume "
                f"{shlex.quote(str(self._path))} {flags}"
            )
        return (
            go_on
            if self.precision.name == "fp32"
            else f"{go_on}; or start again with precision fp32"
        )

    def _python_config(self) -> dict[str, Any]:
        keys = (
            "batch_size",
            "seed",
            "flip",
            "ema_decay",
            "log_every",
            "sample_every",
            "checkpoint_every",
            "checkpoint_minutes",
            "size",
            "channels",
        )
        known = {key: getattr(self, key) for key in keys if getattr(self, key) is not None}
        return {
            "recipe": "python",
            "data": self.data if isinstance(self.data, str) else type(self.data).__name__,
            **known,
        }

    def _train(self, steps: int, until: float | None) -> None:
        clock, images = time.monotonic(), self.images
        began = self.step
        while self.step < steps and not self._asked_to_stop(until):
            index = self._stage_of(self.step)
            if index != self._index:
                self._enter(index)
                images = self.images
            self.stats.add(self.active.train_step(self.step - self._first_step(index)))
            self.step += 1
            if self.stats.full:
                row = self.stats.take() | self.active.rates.row()
                if self.watch is not None and self.watch.diversity is not None:
                    row["diversity"] = self.watch.diversity
                now = time.monotonic()
                self.reporter.row(
                    self.step,
                    self.images,
                    row,
                    (self.images - images) / max(now - clock, 1e-9),
                    self.log_every,
                )
                clock, images = now, self.images
            elif self.reporter.progress is not None:
                self.reporter.progress.update(self.step)
            if (
                self._backend is not None
                and (why := self.active.graph_reason) is not None
                and why != self._told
            ):
                if self.graph == "on":
                    raise FastganError(f"graph='on', but steps can't be captured: {why}")
                self._told = why
                self.reporter.say(f"steps run without a CUDA graph: {why}")
            if self.step % LOOK_EVERY == 0:
                self._look_at_samples()
            if self.step % self.checkpoint_every == 0:
                self._checkpoint()
            if self.step % self.sample_every == 0:
                self._draw_samples()
        if self.step > began and self.step % self.checkpoint_every:
            self._checkpoint()
        if self.step > began and self.step % self.sample_every:
            self._draw_samples()
        self.reporter.curves()
        if self.folder is not None:
            with self.reporter.accessory("report.html"):
                page.write(self.folder.path)

    def _asked_to_stop(self, until: float | None) -> bool:
        """Whether a signal came or the time is over; all ranks stop after the same step, and save
        after the same one where the last checkpoint is too old.
        """
        now = time.monotonic()
        old = bool(self.checkpoint_minutes) and now - self._saved_at >= 60 * self.checkpoint_minutes
        late = until is not None and now >= until
        number = signal.Signals[self._stop_request.name] if self._stop_request.name else 0
        wish = self.ranks.largest(2 + number if number else 2 if late else int(old))
        if wish == 1 and self.step != self._saved_step:
            self._checkpoint(passing=True)
        self.stopped_by = signal.Signals(wish - 2).name if wish > 2 else None
        return wish > 1

    def _checkpoint(self, passing: bool = False) -> None:
        if self.ranks.largest(int(not self.active.finite())):  # every rank stops, or none
            self.reporter.diverged("a parameter is not finite")
        if self._path is not None:
            self._save(passing)

    def _look_at_samples(self) -> None:
        if self.watch is None or not self.ranks.first or "image" not in self.datasets:
            return
        reals = sampling.conditions(self.datasets, self.seed, 0, GRID, self.device)["image"]
        live = self.sample(GRID, ema=False, seed=self.seed + self.step) * 2 - 1
        fixed = self.sample(GRID) * 2 - 1
        if live.shape[1:] == reals.shape[1:]:
            self.reporter.tell(self.watch.observe_samples(self.step, live, fixed, reals.cpu()))

    def _draw_reals(self) -> None:
        if "image" in self.datasets:
            reals = sampling.conditions(self.datasets, self.seed, 0, GRID, self.device)["image"]
            self.reporter.picture("reals", self.step, (reals.float().cpu() + 1) / 2)

    def _draw_samples(self) -> None:
        if self.folder is not None:
            self.reporter.picture("samples", self.step, self.sample(GRID))


def _single_stage(
    generator: nn.Module | None,
    discriminator: nn.Module | None,
    nets: Mapping[str, nn.Module] | None,
    objective: Objective | None,
    loss: str,
    latent_shape: tuple[int, ...],
    optimizers: Mapping[str, OptimizerSpec] | OptimizerSpec | None,
    schedules: Mapping[str, Mapping[str, Schedule]] | None,
    ema: Sequence[str],
) -> Stage:
    by_name = dict(nets or {})
    if generator is not None:
        by_name["G"] = generator
    if discriminator is not None:
        by_name["D"] = discriminator
    for name, net in by_name.items():
        if not isinstance(net, nn.Module):
            raise FastganError(f"network {name!r} is a {type(net).__name__}, not a torch.nn.Module")
    if not by_name:
        raise FastganError("no networks: pass generator= and discriminator=, or nets=")
    chosen = objective or Adversarial(loss, latent_shape)
    return Stage(by_name, chosen, optimizers=optimizers, schedules=schedules or {}, ema=tuple(ema))
