"""The Trainer: drives stages, and leaves a run behind. Its state is in session.py, what a step does
in step.py, the loop in loop.py, what a run folder holds in runs/run_folder.py."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastgan import arguments
from fastgan.devices import memory_explained
from fastgan.errors import FastganError
from fastgan.monitor.health import Alert
from fastgan.monitor.progress import Progress
from fastgan.objectives import Objective
from fastgan.ops.dispatch import prefer
from fastgan.runs.restarts import restarted
from fastgan.trainer import recording
from fastgan.trainer.callbacks import Callbacks
from fastgan.trainer.graceful_stop import GracefulStop
from fastgan.trainer.loop import Loop
from fastgan.trainer.notes import notes
from fastgan.trainer.optimization.optimizers import OptimizerSpec, Schedule
from fastgan.trainer.reuse import rescuing
from fastgan.trainer.run_options import RunOptions
from fastgan.trainer.session import Session
from fastgan.trainer.stages.sequence import Sources, checked_stages, single_stage
from fastgan.trainer.stages.stage import Stage


class Trainer(Session):
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
        latent_shape: The shape of one latent vector where no objective is given; 16 is (16,).
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
        resume: Whether to go on with the run in `out`, exactly as if it had never stopped. So does
            a process that torchrun has started again with the run that it began.
        reschedule: With `resume`, whether changes that a run can take are accepted: schedules,
            learning rates, an objective's r1, gp or augment, flip, precision (docs/runs.md has
            them all). `rescheduled` then says what changed, and so does run.json.
        from_step: With `resume`, the step of an older checkpoint, or "best", to go on from instead
            of the newest. What comes after it is dropped with the first new checkpoint, and `cut`
            says what that is.
        init_from: A run, one of its checkpoints or a folder of safetensors whose weights the
            networks begin with, where layers fit; `taken` says which. A new run with its own data,
            optimisers and steps, unlike `resume`.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
        precision: "auto" (bf16 on Ampere GPUs and newer, else fp32), "fp32", "tf32", "bf16",
            "fp16".
        graph: "auto" replays each step as a CUDA graph where that is possible, "on" insists on it,
            "off" never does.
        impl: The engine of the operators: "auto", "reference", "cudnn" or "triton". "auto" swaps
            the networks' layers on a GPU, as `accelerate` does; "reference" keeps all kernels away.
        sync_bn: Under torchrun, whether batch norm sees the images of all processes together.
        flip: Whether images are mirrored at random.
        clip: The largest norm of the gradients of all networks that a phase trains, together;
            larger ones are scaled down to it. 0 leaves them as they are.
        accumulate: In how many equal parts a batch is worked off before each update. Equal to the
            whole batch up to rounding, but for layers that look at a batch as one (batch norm) or
            count their calls (spectral norm, dropout).
        ema: The names of networks whose weights are averaged for sampling; False averages none.
        ema_decay: The decay of that average.
        log_every: Steps between two rows of metrics.
        sample_every: Steps between two pictures of samples; there are early ones at steps 50, 100
            and 200, too.
        checkpoint_every: Steps between two checkpoints.
        checkpoint_minutes: Save also when the last checkpoint is so old; 0 saves by steps alone.
        keep: How many checkpoints are kept, of which at most the newest is one by time.
        evaluate_every: Steps between measurements of how far samples are from the images, which
            go to the metrics; 0: none. The checkpoint of the best one is kept besides the others,
            `fastgan.load(out, step="best")`.
        watch: Whether to look for what goes wrong, such as a collapse, and to warn.
        rescue: Whether a run that collapses or diverges goes back to its last good checkpoint,
            once, and on from there with another `r1` or `augment` of an `Adversarial` objective; a
            recipe changes learning rates and precision, too. What comes later is only warned of.
        strict: Whether an image that can't be read is an error instead of being left out.
        resident_bytes: Data sets of at most this many bytes lie on the device.
        progress: Whether a progress line is shown.
        log: "tensorboard", "wandb" or "mlflow", to log there as well; wandb stays offline unless
            WANDB_MODE says otherwise, mlflow in the run folder unless MLFLOW_TRACKING_URI does.
        config: What config.toml of the run shall hold. Default: these arguments.
        callbacks: Objects with any of the methods of `fastgan.Callback`, which are called while
            `fit` trains, on every process.

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

    remake: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    """Arguments of a trainer with these options otherwise, where a recipe has made it."""

    def __init__(
        self,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        *,
        nets: Mapping[str, nn.Module] | None = None,
        objective: Objective | None = None,
        loss: str = "non-saturating",
        latent_shape: tuple[int, ...] | int = (100, 1, 1),
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
        from_step: int | str | None = None,
        init_from: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
        graph: str = "auto",
        impl: str = "auto",
        sync_bn: bool = False,
        flip: bool = False,
        clip: float = 0.0,
        accumulate: int = 1,
        ema: Sequence[str] | bool = ("G",),
        ema_decay: float = 0.999,
        log_every: int = 50,
        sample_every: int = 500,
        checkpoint_every: int = 1000,
        checkpoint_minutes: float = 10.0,
        keep: int = 3,
        evaluate_every: int = 0,
        watch: bool = True,
        rescue: bool = False,
        strict: bool = False,
        resident_bytes: int = 2**31,
        progress: bool = True,
        log: str | None = None,
        config: Mapping[str, Any] | None = None,
        callbacks: Sequence[object] = (),
    ) -> None:
        given = {name: value for name, value in locals().items() if name != "self"}
        given.pop("__class__", None)
        self._begin(given, None)

    def _begin(self, given: dict[str, Any], rescue: rescuing.Rescue | None) -> None:
        """Make or resume the run; given: the arguments."""
        options = RunOptions.of(given)
        for name in ("resume", "reschedule"):
            arguments.flag(given[name], name)
        out, from_step = given["out"], given["from_step"]
        resume = given["resume"] or restarted(out) is not None
        if resume and out is None:
            raise FastganError("resume=True needs out=, the run to go on with")
        if from_step is not None and not resume:
            raise FastganError("from_step needs resume=True: it is the step of a run to go on from")
        if from_step not in (None, "best"):
            arguments.whole(from_step, "from_step", 0)
        for name in ("out", "init_from"):
            if given[name] is not None:
                arguments.path(given[name], name)
        config = given["config"]
        if config is not None:
            arguments.mapping(config, "config", "options by name")
        called = Callbacks(given["callbacks"])
        if given["stages"] is not None:
            stages = checked_stages(given["stages"])
        else:
            parts = ("generator", "discriminator", "nets", "objective", "loss", "latent_shape")
            more = ("optimizers", "schedules", "ema")
            stages = [single_stage(*(given[name] for name in (*parts, *more)))]
        sources = Sources(given["data"], given["size"], given["channels"])
        super().__init__(stages, sources, options, out=out, log=given["log"], config=config)
        self._given, self.callbacks = given, called
        self._parent = os.getppid() if self.ranks.world > 1 else None
        with self.ranks.together(), prefer(options.impl):
            self._check_rescue()
            if self.folder is not None and not resume and self.folder.exists():
                raise FastganError(
                    f"{self.folder.path} exists already: choose another out, or go on with it "
                    "(resume=True, --resume)"
                )
            try:
                with memory_explained(options.batch_size):
                    if resume:
                        assert self.out is not None
                        recording.resume(
                            self, self.out, given["reschedule"], from_step, rescue=rescue
                        )
                    else:
                        self.begin_from(given["init_from"])
                        recording.begin(self)
            except BaseException:
                self.close()
                raise
        if self.ranks.first and rescue is None:
            said = [note for d in self.datasets.values() for note in d.notes if config is None]
            spread = options.sync_bn and self.ranks.world > 1
            found = notes(self.stages, options.batch_size, options.accumulate, spread)
            for line in [*said, *found]:
                self.reporter.warn(line)

    def _check_rescue(self) -> None:
        """Raises FastganError where there can be no rescue, though one is wanted."""
        if not self.options.rescue:
            return
        if self.folder is None and self.ranks.first:
            raise FastganError("a rescue goes back to a checkpoint: it needs out=, a run folder")
        if self.watch is None:
            raise FastganError(
                "a rescue follows what the watch says: leave watch on, or rescue off"
            )
        if self.ranks.world > 1:
            raise FastganError("a run of several processes can't be rescued: leave rescue off")

    def _rescue(self, alert: Alert) -> bool:
        """Go back and on with what helps against `alert`; False, and said why, where that can't
        be."""
        if not self.reporter.armed or self.folder is None:
            return False
        own = self.config.get("recipe") == "python"
        config = rescuing.options_of(self.active.stage.objective) if own else self.config
        found = rescuing.find(alert, config, self.folder.checkpoints)
        self.reporter.armed = False
        if isinstance(found, str):
            self.reporter.warn(f"step {alert.step}: {alert.cause}, and no rescue: {found}")
            return False
        self.reporter.warn(f"step {alert.step}: {alert.cause}: {alert.evidence}")
        self.reporter.warn(f"rescue, the only one: {found}")
        if self.remake is not None:
            changes = self.remake(found.options)
        else:
            stages = rescuing.changed(self.stages, found.options, found.before)
            changes = {"stages": stages, "config": dict(self.config)}
            if len(self.stages) == 1 and self.stages[0].data is None:  # data may be read only once
                changes |= {"data": dict(self.datasets), "size": None, "channels": None}
        described, progress = self.descriptions, self.reporter.progress
        self.close()
        try:
            again = {"resume": True, "reschedule": True, "from_step": found.to, "init_from": None}
            self._begin({**self._given, **changes, **again}, found)
        except FastganError as error:
            raise FastganError(f"{error} (in a rescue: rescue off goes on without)") from error
        finally:
            self.reporter.progress = progress
        if own:  # the same networks, whose layers may have been swapped since
            self.descriptions = described
        return True

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
        arguments.whole(steps, "steps")
        if seconds is not None:
            arguments.number(seconds, "seconds")
        self.stopped_by = self.asked_to_stop = None
        if self.options.progress and self.ranks.first:
            self.reporter.progress = Progress(steps, start=self.step, seconds=seconds)
        devices = [self.device] if self.device.type == "cuda" else []
        try:
            with (
                self.ranks.together(),
                prefer(self.options.impl),
                memory_explained(self.options.batch_size),
                GracefulStop(self._parent) as request,
                torch.random.fork_rng(devices),
            ):
                until = time.monotonic() + seconds if seconds is not None else None
                Loop(self, self.callbacks, request, until, self._rescue).run(steps)
                self.callbacks.call("on_end", self)
        finally:
            if self.reporter.progress is not None:
                self.reporter.progress.close()
                self.reporter.progress = None

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
