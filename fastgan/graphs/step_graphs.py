"""The captured variants of a training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastgan.errors import FastganError
from fastgan.graphs.backends import Graph
from fastgan.graphs.host_reads import HostRead, NoHostReads
from fastgan.graphs.optimizer_state import baked, capturable, require_capturable, unborn
from fastgan.graphs.state import State, clear_gradients


class StepGraphs:
    """The engine's own graphs: one for each set of lazy terms that are due, sharing one memory
    pool; falls back to eager steps with a reason, after `give_up`, which undoes what was done for
    the graphs.
    """

    LIMIT = 16

    def __init__(
        self,
        state: State,
        backend: Callable[[], Graph],
        warmup: int = 3,
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.state, self.backend, self.warmup, self.give_up = state, backend, warmup, give_up
        self.reason: str | None = None
        self.variants: dict[Any, tuple[Graph, Any]] = {}

    def run(self, due: Mapping[str, int], step: Callable[[], Any]) -> Any:
        """Replay the graph of this variant, capturing it first where it is new."""
        if self.reason is not None:
            return step()
        key = (tuple(sorted(due.items())), repr(baked(self.state.optimizers)))
        if key not in self.variants:
            if any(unborn(optimizer) for optimizer in self.state.optimizers):
                return step()  # warm-up could not be undone; the next step finds the state there
            try:
                if len(self.variants) >= self.LIMIT:
                    raise FastganError(
                        "an optimizer option that is a Python number changes too often: make it a "
                        "tensor"
                    )
                self.variants[key] = self._capture(step)
            except (HostRead, FastganError, RuntimeError) as error:
                self.reason = str(error).splitlines()[0]
                self.variants.clear()
                self.give_up()
                return step()
        graph, output = self.variants[key]
        graph.replay()
        return output

    def _capture(self, step: Callable[[], Any]) -> tuple[Graph, Any]:
        for i, optimizer in enumerate(self.state.optimizers):
            require_capturable(optimizer, i)
        before = self.state.take()
        try:
            with NoHostReads():
                step()
            graph = self.backend()
            graph.warm_up(step, self.warmup)
            self.state.restore(before)
            clear_gradients(self.state)
            with capturable(self.state.optimizers):
                return graph, graph.capture(step)
        finally:
            self.state.restore(before)
