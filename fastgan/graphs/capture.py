"""`fastgan.capture`: your own step as one CUDA graph, refused rather than wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.graphs.backends import CudaGraph, Graph
from fastgan.graphs.comparison import compare
from fastgan.graphs.host_reads import HostRead, NoHostReads
from fastgan.graphs.optimizer_state import baked, capturable, require_capturable
from fastgan.graphs.state import State, clear_gradients
from fastgan.ops.adam.optimizer import FlatAdam


class Captured:
    """A step that replays a graph. `captured` says whether it does, `reason` why not; an uncaptured
    one runs eagerly."""

    def __init__(
        self, step: Callable[..., Any], backend: Callable[[], Graph], state: State
    ) -> None:
        self.step, self.backend, self.state = step, backend, state
        self.captured = False
        self.reason: str | None = None
        self._graph: Graph | None = None
        self._inputs: list[Tensor] = []
        self._output: Any = None
        self._baked: list[tuple[str, Any]] = []

    def __call__(self, *inputs: Tensor) -> Any:
        """Run the step. Inputs are copied into the graph's own memory; outputs are the graph's
        tensors, overwritten by the next call.

        Raises FastganError when an optimiser's Python scalar has changed since capture, or an input
        has another shape or type.
        """
        if self._graph is None:
            return self.step(*inputs)
        if len(inputs) != len(self._inputs):
            raise FastganError(
                f"the step takes {len(self._inputs)} inputs as it was captured, not {len(inputs)}"
            )
        now = baked(self.state.optimizers)
        for (name, then), (_, value) in zip(self._baked, now, strict=True):
            if then != value:
                raise FastganError(
                    f"{name} was {then} at capture and is {value} now, which a graph can't follow: "
                    "make it a tensor"
                )
        for i, (mine, given) in enumerate(zip(self._inputs, inputs, strict=True)):
            if mine.shape != given.shape or mine.dtype != given.dtype:
                raise FastganError(
                    f"input {i} is {kind(given)}, but the graph was captured with {kind(mine)}"
                )
            mine.copy_(given, non_blocking=True)
        for optimizer in self.state.optimizers:
            if isinstance(optimizer, FlatAdam):
                optimizer.sync_hyper()
        self._graph.replay()
        return self._output


def capture(
    step: Callable[..., Any],
    *,
    example_inputs: Sequence[Tensor] = (),
    state: Sequence[Any] = (),
    warmup: int = 3,
    check: bool = True,
    on_fail: str = "eager",
    backend: Callable[[], Graph] | None = None,
) -> Captured:
    """Turn a training step of your own into one CUDA graph.

    A host read in the step (`.item()`, `if` on a tensor) is found before capture and named by file
    and line. State is left as it was found, random generators included.

    Args:
        step: A function of tensors that trains in place (losses, backward, optimisers, in any
            order) and returns tensors.
        example_inputs: Tensors of the shapes and types that will come.
        state: All modules, optimisers, GradScalers and other tensors that the step changes.
        warmup: Eager steps before the capture, in which optimiser state and caches are born.
        check: Whether eager steps and replays are compared, twice from one state, with other inputs
            and learning rates the second time. A difference beyond that of eager steps from each
            other refuses the graph.
        on_fail: "eager" keeps the uncaptured step and says why in `reason`; "raise" raises.
        backend: A function that makes a graph. Default: a CUDA graph.

    Returns:
        A function like `step` with `captured` (whether it replays a graph) and `reason` (why not).
        Its outputs are the graph's own tensors, which the next call overwrites.

    Raises:
        FastganError: `state` holds something else, `on_fail` is neither, or, with "raise", the step
            can't be captured. A call raises where a Python number in `param_groups`, a shape or a
            type has changed since.

    Example:
        >>> import torch
        >>> import fastgan
        >>> net = torch.nn.Linear(4, 1)
        >>> sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> def step(x):
        ...     sgd.zero_grad()
        ...     loss = net(x).square().mean()
        ...     loss.backward()
        ...     sgd.step()
        ...     return loss.detach()
        >>> captured = fastgan.capture(step, example_inputs=[torch.ones(2, 4)], state=[net, sgd])
        >>> captured.reason if not torch.cuda.is_available() else "CUDA graphs need a GPU"
        'CUDA graphs need a GPU'
        >>> captured(torch.ones(2, 4)).shape
        torch.Size([])
    """
    if on_fail not in ("eager", "raise"):
        raise FastganError(f"on_fail must be 'eager' or 'raise', not {on_fail!r}")
    held = State(state)
    captured = Captured(step, backend or CudaGraph, held)
    try:
        _capture(captured, list(example_inputs), warmup, check, default_backend=backend is None)
    except (HostRead, FastganError, RuntimeError) as error:
        captured._graph = None
        captured.reason = str(error).splitlines()[0]
        if on_fail == "raise":
            raise FastganError(f"the step can't be captured: {captured.reason}") from error
    return captured


def _capture(
    captured: Captured, examples: list[Tensor], warmup: int, check: bool, default_backend: bool
) -> None:
    if default_backend and not torch.cuda.is_available():
        raise FastganError("CUDA graphs need a GPU")
    for i, optimizer in enumerate(captured.state.optimizers):
        require_capturable(optimizer, i)
    state = captured.state
    before = state.take()
    inputs = [value.clone() for value in examples]
    try:
        with NoHostReads():
            captured.step(*inputs)
        graph = captured.backend()
        graph.warm_up(lambda: captured.step(*inputs), warmup)
        state.restore(before)
        clear_gradients(state)
        with capturable(state.optimizers):
            output = graph.capture(lambda: captured.step(*inputs))
        state.restore(before)
        captured._graph, captured._inputs, captured._output = graph, inputs, output
        captured._baked = baked(state.optimizers)
        if check:
            difference = compare(captured.step, captured, state, examples)
            if difference:
                captured._graph = None
                raise FastganError(difference)
        captured.captured = True
    finally:
        state.restore(before)


def kind(value: Tensor) -> str:
    return f"{tuple(value.shape)} {value.dtype}"
