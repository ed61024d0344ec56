"""One training step: the phases of an objective, run without reading the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fastgan import arguments
from fastgan.distributed.buckets import GradientBuckets
from fastgan.distributed.context import DistributedContext
from fastgan.errors import FastganError
from fastgan.objectives.base import Objective, OnePass, Step, draw
from fastgan.ops.adam.optimizer import FlatAdam
from fastgan.ops.functional_layers import FunctionalLayers
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


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale the gradients so that their norm together is at most `largest` (Pascanu et al. 2013),
    without reading the device; the norm before, 0-dim fp32."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norms = torch._foreach_norm(gradients, 2, torch.float32)
    norm = torch.linalg.vector_norm(torch.stack(norms))
    torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))
    return norm


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
        clip: float = 0.0,
        accumulate: int = 1,
        layers: bool = False,
    ) -> None:
        self.objective, self.nets, self.optimizers = objective, dict(nets), dict(optimizers)
        self.seed, self.batch_size, self.precision = seed, batch_size, precision
        self.ranks = ranks or DistributedContext()
        self.clip, self.accumulate = clip, accumulate
        if batch_size % (self.ranks.world * accumulate):
            raise FastganError(
                f"batch size {batch_size} does not divide by {self.ranks.world} processes"
                if accumulate == 1
                else f"a batch of {batch_size} images can't be worked off in {accumulate} equal "
                f"parts{f' on each of {self.ranks.world} processes' * (self.ranks.world > 1)}: "
                "choose another --accumulate or --batch-size"
            )
        self.samples = batch_size // (self.ranks.world * accumulate)
        """Samples of one pass here."""
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
        # Gradients of copies come in their low precision, in which parts must not be added up.
        copied = self.optimizers.values() if accumulate == 1 else ()
        self._low = LowWeights(o for o in copied if isinstance(o, FlatAdam))
        self._one: Tensor | None = None  # the gradient of a loss by itself
        self._layers = FunctionalLayers() if layers else None
        self._buckets = self._reduced() if self.ranks.world > 1 else {}
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
                arguments.network(name, self.nets, f"phase {phase.name!r} trains")
            held = [
                name for name in phase.trains if any(True for _ in self.nets[name].parameters())
            ]
            if held and not any(self._by_net[name] for name in phase.trains):
                raise FastganError(
                    f"network {held[0]!r} has no parameter that is trained: all are frozen, as "
                    f"fastgan.load returns them ({held[0]}.requires_grad_(True) undoes it)"
                )

    def _reduced(self) -> dict[str, GradientBuckets]:
        """Of each network that is trained, how its gradients are averaged over all processes."""
        found = {}
        for name in dict.fromkeys(name for phase in self.phases for name in phase.trains):
            adam = self.optimizers.get(name)
            flat = adam.flat if isinstance(adam, FlatAdam) else None
            if self._by_net[name]:
                found[name] = GradientBuckets(self._by_net[name], self.ranks, flat)
        return found

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
        parts: list[Step] = []
        for index, phase in enumerate(self.phases):
            for repeat in range(phase.repeat):
                if phase.fresh:
                    round_ += 1
                    graph_to = self._graphs_to[index][repeat == phase.repeat - 1]
                    drawn = noise[round_] if noise is not None else None
                    parts = [
                        self.begin(
                            self._part(batches[round_], i),
                            positions[round_] + i * self.samples if i else positions[round_],
                            scalar,
                            due,
                            graph_to,
                            self._part(drawn, i) if drawn is not None else None,
                        )
                        for i in range(self.accumulate)
                    ]
                logged.update(self.run_phase(index, repeat, parts))
        return logged

    def _part(self, batch: Mapping[str, Tensor], index: int) -> Mapping[str, Tensor]:
        """The samples of one pass, of those of a round."""
        if self.accumulate == 1:
            return batch
        first = index * self.samples
        return {name: value[first : first + self.samples] for name, value in batch.items()}

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
            noise = draw(self.objective.noise, self.seed, position, self.samples)
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
            step.live, _ = self._relation(step.index, graph_to)
            return fake

        step.graph_to, step.generate, step.one_pass = graph_to, generate, self.one_pass
        step.total = self.ranks.total
        return step

    def run_phase(self, index: int, repeat: int, parts: Sequence[Step]) -> dict[str, Tensor]:
        """Losses, backward and update of a phase, the repeat-th time; what it logged, as means over
        the parts of the batch, whose gradients add up."""
        phase, optimizers = self.phases[index], self._optimizers[index]
        scaler = self.scalers.get(phase.name)
        logged: dict[str, Tensor] = {}
        with self._training(phase.trains):
            for optimizer in optimizers:
                drop_gradients(optimizer)
            for step in parts:
                mine = self._backward(index, repeat, step, scaler, step is parts[-1])
                logged = {
                    key: value if step is parts[0] else logged[key] + value
                    for key, value in mine.items()
                }
        self._update(index, scaler, logged)
        return logged

    def _backward(
        self, index: int, repeat: int, step: Step, scaler: torch.amp.GradScaler | None, last: bool
    ) -> dict[str, Tensor]:
        """Add the gradients of one part of the batch, with the last one's over all processes; its
        share of what is logged."""
        phase, share = self.phases[index], 1 / self.accumulate
        step.index = index
        step.phase = phase.name if repeat == 0 else f"{phase.name}.{repeat}"
        step.live, _ = self._relation(index, step.graph_to)
        step.logged = {}
        with self.precision.autocast(), self._low or nullcontext(), self._layers or nullcontext():
            terms = phase.loss(step)
        if not terms:
            raise FastganError(f"phase {phase.name!r} returned no loss terms")
        total = sum_terms(terms)
        part = total if self.accumulate == 1 else total * share
        with ExitStack() as reducing:
            for name in phase.trains if last else ():
                if name in self._buckets:
                    reducing.enter_context(self._buckets[name].during_backward())
            if self._one is None:
                self._one = torch.ones_like(part)
            # Given, because backward() would fill one anew each time.
            (part if scaler is None else scaler.scale(part)).backward(self._one)
        _, changed = self._relation(index, step.graph_to)
        # The graph of a part's fakes would cost the memory that parts are there to save.
        if changed or self.accumulate > 1:
            step.cut()
        logged = step.logged
        if repeat:
            logged = {
                f"{phase.name}/{key.split('/', 1)[1]}": value for key, value in logged.items()
            }
        logged[f"loss/{phase.name}"] = total.detach()
        if len(terms) > 1:
            logged |= {f"loss/{phase.name}/{name}": value.detach() for name, value in terms.items()}
        if self.accumulate > 1:
            logged = {key: value * share for key, value in logged.items()}
        return logged

    def _update(
        self, index: int, scaler: torch.amp.GradScaler | None, logged: dict[str, Tensor]
    ) -> None:
        """Average the gradients of a phase over all processes, clip them, and let its optimisers
        take a step; the norm before clipping is logged."""
        phase, optimizers = self.phases[index], self._optimizers[index]
        for name in phase.trains:
            if name in self._buckets:
                self._buckets[name].finish()
        if self.clip and optimizers:
            if scaler is not None:
                for optimizer in optimizers:
                    scaler.unscale_(optimizer)
            trained = {id(p): p for name in phase.trains for p in self._by_net[name]}
            norm = clip_gradients(trained.values(), self.clip)
            logged[f"{phase.name}/gradient_norm"] = norm
        for optimizer in optimizers:
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
        if scaler is not None and optimizers:
            scaler.update()
