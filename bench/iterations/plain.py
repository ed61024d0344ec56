"""Rows a to f2: the iteration in plain PyTorch, from the tutorial's loop to whole-step compilation
and hand-made graphs.

Nothing of ours is on these paths but the graph wrapper, which is a dozen lines around
torch.cuda.CUDAGraph.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastgan.bench.iterations.pieces import FunctionalAdam, Gradients, Inputs, Options
from fastgan.bench.iterations.plain_losses import Losses
from fastgan.bench.iterations.suites import Suite
from fastgan.errors import FastganError
from fastgan.graphs.backends import CudaGraph, Graph


class Plain(Losses):
    """A plain row, built: `step()` trains one iteration. Raises whatever PyTorch raises."""

    def __init__(
        self,
        suite: Suite,
        options: Options,
        arrays: Mapping[str, np.ndarray],
        device: torch.device,
        *,
        dropout: bool = True,
        graph: Callable[[], Graph] | None = None,
    ) -> None:
        if options.graph and graph is None and device.type != "cuda":
            raise FastganError("a CUDA graph needs a GPU")
        super().__init__(suite, options, arrays, device, dropout)
        self.recorded: Gradients | None = None
        self._optimizers = (
            {} if options.whole else {name: self._adam(net) for name, net in self.nets.items()}
        )
        self._functional = (
            {n: FunctionalAdam(net, suite.lr, suite.betas) for n, net in self.nets.items()}
            if options.whole
            else {}
        )
        with self.flags():
            self._compile()
        self._graph: Graph | None = None
        self._make_graph: Callable[[], Graph] = graph or CudaGraph

    def _adam(self, net: nn.Module) -> torch.optim.Optimizer:
        extra: dict[str, Any] = {}
        if self.options.fused:
            extra = {"fused": True, "capturable": self.device.type == "cuda"}
        lr: Any = self.suite.lr
        if self.options.graph and self.device.type == "cuda":
            lr = torch.tensor(lr, device=self.device)
        return torch.optim.Adam(net.parameters(), lr=lr, betas=self.suite.betas, **extra)

    def _compile(self) -> None:
        if self.options.modules:
            mode = None if self.options.modules == "default" else self.options.modules
            self.call = {
                name: torch.compile(net, mode=mode, dynamic=False)
                for name, net in self.nets.items()
            }
        if self.options.whole:
            mode = None if self.options.whole == "default" else self.options.whole
            make = lambda function: torch.compile(
                function, mode=mode, fullgraph=True, dynamic=False
            )
            self._compiled = {
                "both": make(self._both),
                "D": make(self._d_compiled),
                "G": make(self._g_compiled),
            }
            for held in [
                *self.store.values(),
                *(t for given in self.inputs for t in given.values()),
            ]:
                torch._dynamo.mark_static_address(held)  # no copies into the graphs' own memory
            for adam in (
                self._functional.values()
            ):  # what a step changes has to stay where it is, or there are no graphs
                for held in adam.tensors():
                    torch._dynamo.mark_static_address(held)
            for net in self.nets.values():
                for held in [*net.parameters(), *net.buffers()]:
                    torch._dynamo.mark_static_address(held)

    # Iterations

    def _iteration(self) -> None:
        if self.draws and self.loader is None:
            self.draw()
        elif self.draws:
            for name in ("z", "epsilon"):
                for given in self.inputs:
                    if name in given:  # the tutorial makes a new tensor at each turn
                        fill = torch.randn if name == "z" else torch.rand
                        given[name] = fill(given[name].shape, device=self.device)
        reuse = self.suite.critic == 1
        for given in self.inputs[: self.suite.critic]:
            batch, fake = self._d_round(given, keep=reuse)
        if not reuse:
            given = self.inputs[-1]
            batch = self.batch(given) if self.suite.paired else {}
            with self.autocast():
                fake = self.generate(batch, given)
        D = self.nets["D"]
        if self.options.freeze:
            D.requires_grad_(False)
        self._optimizers["G"].zero_grad(set_to_none=True)
        with self.autocast():
            loss = self.g_terms(batch, fake)
        loss.backward()
        self._record("G")
        self._optimizers["G"].step()
        if self.options.freeze:
            D.requires_grad_(True)
        if self.options.reads:
            loss.item()

    def _d_round(self, given: Mapping[str, Tensor], keep: bool) -> tuple[dict[str, Tensor], Tensor]:
        """One update of D. keep: G's update will use the fakes, so they need their graph."""
        optimizer = self._optimizers["D"]
        batch = self.batch(given)
        with_graph = torch.enable_grad() if keep or not self.options.freeze else torch.no_grad()
        optimizer.zero_grad(set_to_none=True)
        with self.autocast(), with_graph:
            fake = self.generate(batch, given)
        if (
            self.options.modules
        ):  # compiled spectral norm changes what an earlier forward saved: each term at once
            terms = self.d_terms(batch, fake, given)
            loss = torch.zeros((), device=self.device)
            while (term := self._next(terms)) is not None:
                term.backward()
                loss = loss + term.detach()
        else:
            with self.autocast():
                loss = self.d_total(batch, fake, given)
            loss.backward()
        self._record("D")
        optimizer.step()
        if self.options.reads:
            loss.item()
        return batch, fake

    def _next(self, terms: Iterator[Tensor]) -> Tensor | None:
        with self.autocast():
            return next(terms, None)

    def _tutorial(self) -> None:
        """The loop of the DCGAN tutorial, its five reads of the device included; other suites read
        each loss."""
        D, G, device = self.nets["D"], self.nets["G"], self.device
        criterion = nn.BCEWithLogitsLoss()
        given = self.inputs[0]
        D.zero_grad()
        real = self.batch(given)["image"]
        label = torch.full((self.suite.batch,), 1.0, device=device)
        output = D(real).view(-1)
        on_real = criterion(output, label)
        on_real.backward()
        output.mean().item()
        z = (
            torch.randn(self.suite.batch, *self.suite.latent, device=device)
            if self.draws
            else given["z"]
        )
        fake = G(z)
        label.fill_(0.0)
        output = D(fake.detach()).view(-1)
        on_fake = criterion(output, label)
        on_fake.backward()
        output.mean().item()
        self._record("D")
        self._optimizers["D"].step()
        G.zero_grad()
        label.fill_(1.0)
        output = D(fake).view(-1)
        loss = criterion(output, label)
        loss.backward()
        output.mean().item()
        self._record("G")
        self._optimizers["G"].step()
        (on_real + on_fake).item()
        loss.item()

    def _record(self, name: str) -> None:
        if self.recorded is not None:
            self.recorded[name] = [
                p.grad.detach().clone() for p in self.nets[name].parameters() if p.grad is not None
            ]

    # Whole-step compilation: gradients, and Adam on them, within one graph

    def _update(self, name: str, loss: Tensor) -> list[Tensor]:
        gradients = torch.autograd.grad(loss, self._functional[name].parameters)
        self._functional[name].step(gradients)
        return list(gradients)

    def _both(self, given: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        with self.autocast():
            batch = self.batch(given)
            fake = self.generate(batch, given)
            on_d = self.d_total(batch, fake, given)
        of_d = self._update("D", on_d)
        with self.autocast():
            on_g = self.g_terms(batch, fake)
        return of_d, self._update("G", on_g)

    def _d_compiled(self, given: dict[str, Tensor]) -> list[Tensor]:
        with self.autocast():
            batch = self.batch(given)
            with torch.no_grad():
                fake = self.generate(batch, given)
            loss = self.d_total(batch, fake, given)
        return self._update("D", loss)

    def _g_compiled(self, given: dict[str, Tensor]) -> list[Tensor]:
        with self.autocast():
            batch = self.batch(given) if self.suite.paired else {}
            loss = self.g_terms(batch, self.generate(batch, given))
        return self._update("G", loss)

    def _whole(self) -> None:
        if self.draws:
            self.draw()
        torch.compiler.cudagraph_mark_step_begin()
        if self.suite.critic == 1:
            of_d, of_g = self._compiled["both"](self.inputs[0])
        else:
            for given in self.inputs[:-1]:
                torch.compiler.cudagraph_mark_step_begin()
                of_d = self._compiled["D"](given)
            if self.recorded is not None:
                of_d = [g.clone() for g in of_d]
            torch.compiler.cudagraph_mark_step_begin()
            of_g = self._compiled["G"](self.inputs[-1])
        if self.recorded is not None:
            self.recorded |= {"D": [g.clone() for g in of_d], "G": [g.clone() for g in of_g]}

    def _eager(self) -> None:
        if self.options.whole:
            self._whole()
        elif (
            self.options.reads
            and self.suite.loss == "non-saturating"
            and not (self.suite.paired or self.suite.r1)
        ):
            self._tutorial()
        else:
            self._iteration()

    def eager_step(self) -> None:
        """One iteration without a graph: what saved activations are counted on."""
        self._eager()

    def step(self) -> None:
        """Train one iteration, enqueued; nothing waits but a row's own reads."""
        if not self.options.graph:
            self._eager()
            return
        if self._graph is None:
            self._graph = self._make_graph()
            self._graph.warm_up(self._eager, 3)
            self._graph.capture(self._eager)
        self._graph.replay()

    # State and gradients

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The networks' parameters and buffers, copied to the host."""
        return {
            name: {k: v.detach().cpu().clone() for k, v in net.state_dict().items()}
            for name, net in self.nets.items()
        }

    def gradients(self, state: Mapping[str, Mapping[str, Tensor]], inputs: Inputs) -> Gradients:
        """Each network's gradient, as this row computes it on `inputs` from `state` with a learning
        rate of 0.

        The last round's gradient of D, and G's, in order of parameters.
        """
        self.draws, self.given, self.recorded = False, inputs, {}
        timed, self._graph = (
            self._graph,
            None,
        )  # the timed graph draws its own noise: the same iteration is captured without
        rates = self._still()
        try:
            for mine, theirs in zip(self.inputs, inputs, strict=True):
                for name, value in mine.items():
                    value.copy_(theirs[name])
            if self.options.graph:
                graph = self._make_graph()
                graph.warm_up(self._eager, 3)
                self._load(state)
                graph.capture(self._eager)
                self._load(state)
                graph.replay()
            else:
                self._load(state)
                self._eager()
            return {
                name: [g.detach().clone() for g in found] for name, found in self.recorded.items()
            }
        finally:
            self.draws, self.given, self.recorded, self._graph = True, None, None, timed
            self._go(rates)

    @torch.no_grad()
    def _load(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        for name, net in self.nets.items():
            for key, value in net.state_dict().items():
                value.copy_(state[name][key])

    def _still(self) -> list[Any]:
        rates = [
            copy.copy(group["lr"]) for o in self._optimizers.values() for group in o.param_groups
        ]
        self._go([0.0] * len(rates))
        held = [adam.lr.clone() for adam in self._functional.values()]
        for adam in self._functional.values():
            adam.lr.zero_()
        return rates + held

    def _go(self, rates: Sequence[Any]) -> None:
        groups = [group for o in self._optimizers.values() for group in o.param_groups]
        for group, rate in zip(groups, rates):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        for adam, rate in zip(self._functional.values(), rates[len(groups) :]):
            adam.lr.copy_(rate)

    def close(self) -> None:
        """Let go of graphs, workers and memory."""
        self._graph = self.loader = None
        self.store, self._optimizers, self._functional = {}, {}, {}
