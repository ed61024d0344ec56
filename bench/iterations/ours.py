"""Rows g to i: the same iteration by the engine, statistics included, and the random inputs it
draws."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fastgan.data
from fastgan.bench.iterations.pieces import Gradients, Inputs
from fastgan.bench.iterations.suites import Suite
from fastgan.data.permutation import Order
from fastgan.distributed.context import DistributedContext
from fastgan.errors import FastganError
from fastgan.graphs.backends import CudaGraph, Graph
from fastgan.monitor.statistics import Statistics
from fastgan.objectives.base import draw
from fastgan.ops import random
from fastgan.ops.conv.directions import whole
from fastgan.precision import resolve
from fastgan.trainer import preflight, sampling
from fastgan.trainer.cpu_engine import CpuEngine, StageForms
from fastgan.trainer.networks import load_network
from fastgan.trainer.stages.active import ActiveStage
from fastgan.trainer.stages.stage import Stage

SEED = 0
LOG_EVERY = 50


class Ours:
    """A row of fastgan, built. graph: None for eager steps, else what makes a graph. impl: the
    engine of every operator, as `Trainer(impl=...)` takes it: "auto" swaps the networks' layers on
    a GPU, "reference" leaves them alone. directions: a convolution's may have engines of their own.
    """

    def __init__(
        self,
        suite: Suite,
        arrays: Mapping[str, np.ndarray],
        device: torch.device,
        *,
        graph: Callable[[], Graph] | None = None,
        impl: str = "auto",
        averaged: bool = False,
        dropout: bool = True,
        precision: str = "auto",
        measured: str | None = None,
        directions: bool = True,
    ) -> None:
        if graph is CudaGraph and device.type != "cuda":
            raise FastganError("a CUDA graph needs a GPU")
        self.suite, self.device, self.directions = suite, device, directions
        torch.manual_seed(0)
        nets = suite.networks(suite.dropout if dropout else 0.0)
        data = fastgan.data.Aligned(**arrays) if len(arrays) > 1 else arrays["image"]
        dataset = fastgan.data.open(data)
        forms: StageForms = {}
        if measured is not None:  # as a run does before its first step
            cpu = CpuEngine(measured, impl, device, DistributedContext())
            few = sampling.conditions({"image": dataset}, SEED, 0, preflight.BATCH, device)
            exact = resolve("fp32", device)
            with torch.random.fork_rng([]), cpu.look(nets) as look:
                trial = preflight.Trial(suite.objective(), nets, few, SEED, device, exact)
                trial.memory_format()
            forms = cpu.choose(look, suite.batch / preflight.BATCH, torch.channels_last)
            precision = cpu.precision
        self.low = resolve(precision, device).compute is not None
        stage = Stage(
            nets, suite.objective(), optimizers=self._adam, ema=("G",) if averaged else ()
        )
        with self._switches():
            self.active = ActiveStage(
                stage,
                {"image": dataset},
                index=0,
                seed=SEED,
                batch_size=suite.batch,
                ema_decay=0.999,
                flip=False,
                device=device,
                precision=resolve(precision, device),
                memory_format=torch.channels_last,
                resident_bytes=2**34,
                graphs=graph,
                impl=impl,
                forms=forms,
            )
            self._tf32 = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
        self.nets = self.active.nets
        self.stats = Statistics(LOG_EVERY, device)
        self._wants_graph = graph is not None
        self._at = 0

    def _adam(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.suite.lr, betas=self.suite.betas, fused=True)

    @contextlib.contextmanager
    def _switches(self) -> Any:
        """The engine sets process-wide switches when it begins; here other rows run between."""
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        before = (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark)
        if hasattr(self, "_tf32"):
            cudnn.allow_tf32, matmul.allow_tf32 = self._tf32
        cudnn.benchmark = True
        try:
            with contextlib.nullcontext() if self.directions else whole():
                yield
        finally:
            cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before

    def flags(self) -> contextlib.AbstractContextManager[None]:
        return self._switches()

    def step(self) -> None:
        """One of fastgan's training steps, its statistics included."""
        self.stats.add(self.active.train_step(self._at))
        if self.stats.full:
            self.stats.take()
        self._at += 1
        if self._at == 1 and self._wants_graph and self.active.graph_reason is not None:
            raise FastganError(f"the step was not captured: {self.active.graph_reason}")

    def eager_step(self) -> None:
        """One step without a graph."""
        kept, self.active.graphs = self.active.graphs, None
        try:
            self.active.train_step(self._at)
        finally:
            self.active.graphs = kept

    def gradients(self, state: Mapping[str, Mapping[str, Tensor]], at: int) -> Gradients:
        """Each network's gradient in step `at`, from `state`, with a learning rate of 0. Of D's
        updates, the last one's."""
        groups = [group for o in self.active.optimizers.values() for group in o.param_groups]
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] = 0.0
        try:
            for name, net in self.nets.items():
                load_network(net, dict(state[name]), name)
            self.active.train_step(at)
            return {name: self._of(name) for name in self.nets}
        finally:
            for group, rate in zip(groups, rates):
                group["lr"] = rate

    def _of(self, name: str) -> list[Tensor]:
        found = [p.grad for p in self.nets[name].parameters()]
        if any(g is None for g in found):
            raise FastganError(
                f"network {name} has parameters without a gradient after a step: nothing to compare"
            )
        return [g.detach().to(torch.float32, copy=True) for g in found if g is not None]

    def close(self) -> None:
        """Let go of threads and memory."""
        self.active.close()
        self.active.graphs = None


def inputs_at(suite: Suite, step: int, count: int, device: torch.device) -> Inputs:
    """What the engine draws in step number `step` over `count` images: every row's gradients are
    taken on these."""
    objective = suite.objective()
    order = Order(SEED, "image", count)
    made = []
    for round_ in range(suite.rounds):
        position = (step * suite.rounds + round_) * suite.batch
        where = torch.tensor(position, dtype=torch.int64, device=device)
        given = {"index": torch.from_numpy(order(position, suite.batch).copy()).to(device)}
        given |= draw(objective.noise, SEED, where, suite.batch)
        if suite.gp:
            phase = "D" if round_ == 0 else f"D.{round_}"
            stream = random.stream_id(f"{phase}/gradient-penalty")
            given["epsilon"] = random.uniform(SEED, where, suite.batch, (1, 1, 1), stream=stream)
        made.append(given)
    return made
