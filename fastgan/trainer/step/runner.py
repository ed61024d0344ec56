"""One training step: the phases of an objective, run without reading the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.distributed.context import DistributedContext
from fastgan.errors import FastganError
from fastgan.objectives.base import Objective, OnePass, Step, draw
from fastgan.ops.adam.optimizer import FlatAdam
from fastgan.ops.low_weights import LowWeights
from fastgan.precision import Precision


def parameters_behind(output: Tensor) -> frozenset[int]:
    """ids of the leaf tensors that the autograd graph of `output` reaches."""
    found: set[int] = set()
    seen: set[Any] = set()
    todo = [output.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        todo += [following for following, _ in node.next_functions]
    return frozenset(found)


def sum_terms(terms: Mapping[str, Tensor]) -> Tensor:
    """The sum of 0-dim loss terms in fp32."""
    total: Tensor | None = None
    for name, value in terms.items():
        if value.dim():
            raise FastganError(
                f"loss term {name!r} has shape {tuple(value.shape)}: reduce it to one number"
            )
        total = value.float() if total is None else total + value.float()
    assert total is not None
    return total


def drop_gradients(optimizer: torch.optim.Optimizer) -> None:
    """optimizer.zero_grad(set_to_none=True), without what torch's does for its profiler at every
    step."""
    if type(optimizer).zero_grad is not torch.optim.Optimizer.zero_grad:
        optimizer.zero_grad(set_to_none=True)
        return
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = None


class StepRunner:
    """Runs the phases of one objective on one set of networks; the part of training that a CUDA
    graph holds."""

    def __init__(
        self,
        objective: Objective,
        nets: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        *,
        seed: int,
        batch_size: int,
        precision: Precision,
        ranks: DistributedContext | None = None,
    ) -> None:
        self.objective, self.nets, self.optimizers = objective, dict(nets), dict(optimizers)
        self.seed, self.batch_size, self.precision = seed, batch_size, precision
        self.ranks = ranks or DistributedContext()
        self.phases = tuple(objective.phases())
        self.rounds = sum(p.repeat for p in self.phases if p.fresh)
        self.one_pass: dict[str, OnePass] = {}
        """Networks that `Step.pair` may call once for reals and fakes."""
        self._parameters = [
            (name, p)
            for name, net in self.nets.items()
            for p in net.parameters()
            if p.requires_grad
        ]
        self.scalers = {
            phase.name: scaler
            for phase in self.phases
            if (scaler := precision.scaler()) is not None
        }
        self._by_net = {
            name: [p for net, p in self._parameters if net == name] for name in self.nets
        }
        self._wanted: dict[tuple[str, ...], list[tuple[nn.Parameter, bool]]] = {}
        self._check()
        self._trained = [
            frozenset(id(p) for name in phase.trains for p in self._by_net[name])
            for phase in self.phases
        ]
        self._behind: dict[tuple[str, ...], frozenset[int]] = {}
        self._relations: dict[tuple[int, tuple[str, ...]], tuple[bool, bool]] = {}
        self._graphs_to = [
            (self._graph_to(i, False), self._graph_to(i, True)) for i in range(len(self.phases))
        ]
        self._low = LowWeights(o for o in self.optimizers.values() if isinstance(o, FlatAdam))
        self._optimizers = [
            [self.optimizers[name] for name in p.trains if name in self.optimizers]
            for p in self.phases
        ]

    def _check(self) -> None:
        if not self.phases or not self.phases[0].fresh:
            raise FastganError(
                "an objective needs at least one phase, and its first phase must be fresh"
            )
        names = [p.name for p in self.phases]
        if len(set(names)) != len(names):
            raise FastganError(f"two phases of the objective share a name: {', '.join(names)}")
        for phase in self.phases:
            for name in phase.trains:
                if name not in self.nets:
                    raise FastganError(
                        f"phase {phase.name!r} trains {name!r}, which is not among the networks: "
                        f"{', '.join(self.nets)}"
                    )

    def positions(self, step: int) -> list[int]:
        """Global sample index at which each fresh round of `step` begins, for all ranks
        together."""
        return [(step * self.rounds + r) * self.batch_size for r in range(self.rounds)]

    def due(self, step: int) -> dict[str, int]:
        """The lazy terms to be computed in `step`, with their intervals."""
        return {name: every for name, every in self.objective.lazy.items() if step % every == 0}

    def _graph_to(self, index: int, kept: bool) -> tuple[str, ...]:
        """Networks that the fake of phase `index` must carry a graph to: those it trains, with
        `kept` those of later phases that keep its batch, and those of phases that train a part of
        these: who makes the fake shows in the whole graph alone.
        """
        group = [index]
        while kept and group[-1] + 1 < len(self.phases) and not self.phases[group[-1] + 1].fresh:
            group.append(group[-1] + 1)
        others = [
            i for i, mine in enumerate(self._trained) if any(mine & self._trained[g] for g in group)
        ]
        return tuple(
            dict.fromkeys(name for i in (*group, *others) for name in self.phases[i].trains)
        )

    def _relation(self, index: int, graph_to: tuple[str, ...]) -> tuple[bool, bool]:
        """(whether phase `index` gets the fake with its graph, whether it changes what the fake was
        made of).

        It gets the graph if it trains parameters behind the fake; not if it trains others besides,
        and only a part of what a generator's phase trains there: that is a discriminator which
        shares parameters with the
            generator.
        """
        if graph_to not in self._behind:
            return False, False
        found = self._relations.get((index, graph_to))
        if found is None:
            mine, behind = self._trained[index], self._behind[graph_to]
            part = any((mine & behind) < (other & behind) for other in self._trained)
            live = bool(mine & behind) and not (part and mine - behind)
            found = self._relations[index, graph_to] = live, bool(mine & behind)
        return found

    def run(
        self,
        batches: Sequence[Mapping[str, Tensor]],
        positions: Sequence[Tensor],
        scalar: Mapping[str, Tensor],
        due: Mapping[str, int],
        noise: Sequence[Mapping[str, Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """One step. batches, positions: one for each fresh round, on the device; noise: the same,
        where it is drawn already. Returns what was logged, as 0-dim tensors on the device.
        """
        logged: dict[str, Tensor] = {}
        round_ = -1
        step: Step | None = None
        for index, phase in enumerate(self.phases):
            for repeat in range(phase.repeat):
                if phase.fresh:
                    round_ += 1
                    graph_to = self._graphs_to[index][repeat == phase.repeat - 1]
                    drawn = noise[round_] if noise is not None else None
                    step = self.begin(
                        batches[round_], positions[round_], scalar, due, graph_to, drawn
                    )
                assert step is not None
                logged.update(self._phase(index, repeat, step))
        return logged

    @contextmanager
    def _training(self, names: tuple[str, ...]) -> Iterator[None]:
        """Only the parameters of `names`, shared with other networks or not, require gradients
        inside; those the user froze stay frozen.
        """
        wanted = self._wanted.get(names)
        if wanted is None:
            trained = {id(p) for name in names for p in self._by_net[name]}
            wanted = self._wanted[names] = [(p, id(p) in trained) for _, p in self._parameters]
        changed = [(p, required) for p, required in wanted if p.requires_grad != required]
        try:
            for p, required in changed:
                p.requires_grad_(required)
            yield
        finally:
            for p, required in changed:
                p.requires_grad_(not required)

    def begin(
        self,
        batch: Mapping[str, Tensor],
        position: Tensor,
        scalar: Mapping[str, Tensor],
        due: Mapping[str, int],
        graph_to: tuple[str, ...],
        noise: Mapping[str, Tensor] | None = None,
    ) -> Step:
        if noise is None:
            noise = draw(
                self.objective.noise, self.seed, position, self.batch_size // self.ranks.world
            )
        step = Step(
            self.objective,
            self.nets,
            self.seed,
            batch=batch,
            noise=noise,
            scalar=scalar,
            due=due,
            position=position,
        )

        def generate() -> Tensor:
            # A loss may look at the fake without gradients first: the graph is what later phases
            # are trained through.
            with torch.enable_grad(), self._training(graph_to), self.precision.autocast():
                fake = self.objective.generate(step)
            if graph_to not in self._behind:
                self._behind[graph_to] = parameters_behind(fake)
            step._live, _ = self._relation(step._index, graph_to)
            return fake

        step._generate = generate
        step._graph_to = graph_to
        step._one_pass = self.one_pass
        return step

    def _phase(self, index: int, repeat: int, step: Step) -> dict[str, Tensor]:
        phase = self.phases[index]
        step._phase = phase.name if repeat == 0 else f"{phase.name}.{repeat}"
        step._index = index
        step._live, _ = self._relation(index, step._graph_to)
        step.logged = {}
        optimizers = self._optimizers[index]
        with self._training(phase.trains):
            with self.precision.autocast(), self._low or nullcontext():
                terms = phase.loss(step)
            if not terms:
                raise FastganError(f"phase {phase.name!r} returned no loss terms")
            total = sum_terms(terms)
            for optimizer in optimizers:
                drop_gradients(optimizer)
            scaler = self.scalers.get(phase.name)
            (total if scaler is None else scaler.scale(total)).backward()
        _, changed = self._relation(index, step._graph_to)
        if step._fake is not None and changed:
            step._fake = step._fake.detach()
        for name in phase.trains if self.ranks.world > 1 else ():
            if isinstance(adam := self.optimizers.get(name), FlatAdam):
                self.ranks.average_flat(adam.flat)
            else:
                self.ranks.average_gradients(self._by_net[name])
        for optimizer in optimizers:
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
        if scaler is not None and optimizers:
            scaler.update()
        logged = step.logged
        if repeat:
            logged = {
                f"{phase.name}/{key.split('/', 1)[1]}": value for key, value in logged.items()
            }
        logged[f"loss/{phase.name}"] = total.detach()
        if len(terms) > 1:
            logged |= {f"loss/{phase.name}/{name}": value.detach() for name, value in terms.items()}
        return logged
