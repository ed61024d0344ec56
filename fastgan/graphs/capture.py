"""`fastgan.capture`: your own step as one CUDA graph, refused rather than wrong."""

from __future__ import annotations

import contextlib
import copy
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.errors import FastganError
from fastgan.graphs.backends import CudaGraph, Graph
from fastgan.graphs.host_reads import HostRead, NoHostReads
from fastgan.ops.adam.optimizer import FlatAdam


class State:
    """Everything a step changes: parameters, buffers, optimiser state, schedulers' lr, loss scales,
    random generators; taken and put back in place.
    """

    def __init__(self, holders: Iterable[Any]) -> None:
        self.modules: list[nn.Module] = []
        self.optimizers: list[torch.optim.Optimizer] = []
        self.others: list[Tensor] = []
        self.scalers: list[torch.amp.GradScaler] = []
        for holder in holders:
            if isinstance(holder, nn.Module):
                self.modules.append(holder)
            elif isinstance(holder, torch.optim.Optimizer):
                self.optimizers.append(holder)
            elif isinstance(holder, Tensor):
                self.others.append(holder)
            elif isinstance(holder, torch.amp.GradScaler):
                holder.scale(
                    torch.ones((), device=holder._device)
                )  # its tensors are born at the first use
                self.scalers.append(holder)
            else:
                raise FastganError(
                    "state= takes modules, optimizers, GradScalers and tensors, not a "
                    f"{type(holder).__name__}"
                )

    def tensors(self) -> list[Tensor]:
        """The tensors that live now, each once, in a fixed order."""
        found: dict[int, Tensor] = {}
        for module in self.modules:
            for value in [*module.parameters(), *module.buffers()]:
                found[id(value)] = value
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for value in [*group["params"], *group.values()]:
                    if isinstance(value, Tensor):
                        found[id(value)] = value
            for entries in optimizer.state.values():
                for value in entries.values():
                    if isinstance(value, Tensor):
                        found[id(value)] = value
            if isinstance(optimizer, FlatAdam):
                found |= {
                    id(value): value
                    for value in (optimizer.ema, optimizer.low)
                    if value is not None
                }
        for value in [
            *self.others,
            *(t for s in self.scalers for t in (s._scale, s._growth_tracker) if t is not None),
        ]:
            found[id(value)] = value
        return list(found.values())

    def take(self) -> dict[str, Any]:
        """A copy of the state."""
        return {
            "tensors": [(t, t.detach().clone()) for t in self.tensors()],
            "rng": torch.random.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    @torch.no_grad()
    def restore(self, taken: Mapping[str, Any]) -> None:
        """Put a taken state back into the same tensors; optimiser state born since is set to zero,
        which is how optimisers begin (`require_capturable` refuses those that do not).
        """
        old = {id(t) for t, _ in taken["tensors"]}
        for value, kept in taken["tensors"]:
            value.copy_(kept)
        for value in self.tensors():
            if id(value) not in old:
                value.zero_()
        for optimizer in self.optimizers:
            if isinstance(optimizer, FlatAdam):
                optimizer.sync_hyper()
        torch.random.set_rng_state(taken["rng"])
        if taken["cuda_rng"]:
            torch.cuda.set_rng_state_all(taken["cuda_rng"])


def baked(optimizers: Sequence[torch.optim.Optimizer]) -> list[tuple[str, Any]]:
    """The Python scalars in param_groups, which a graph holds as they were when it was captured.

    FlatAdam's are on the device (`sync_hyper`); only whether it decays weights is decided on the
    host.
    """
    found = []
    for i, optimizer in enumerate(optimizers):
        for j, group in enumerate(optimizer.param_groups):
            for name, value in group.items():
                if isinstance(optimizer, FlatAdam) and name in ("lr", "betas", "eps"):
                    continue
                if isinstance(optimizer, FlatAdam) and name == "weight_decay":
                    name, value = "weight_decay != 0", value != 0
                if name != "params" and not isinstance(value, Tensor):
                    found.append((f"optimizer {i}, group {j}, {name}", copy.copy(value)))
    return found


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
            difference = compare(captured, examples)
            if difference:
                captured._graph = None
                raise FastganError(difference)
        captured.captured = True
    finally:
        state.restore(before)


@contextmanager
def capturable(optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[None]:
    """Sets `capturable` in the groups of torch's fused optimisers, and puts it back.

    torch refuses to capture a step while it is False, even a fused one, whose step count lies on
    the device already.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    changed = [group for group in groups if group.get("fused") and group.get("capturable") is False]
    for group in changed:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in changed:
            group["capturable"] = False


def require_capturable(optimizer: torch.optim.Optimizer, index: int) -> None:
    """Raises FastganError for an optimiser that keeps its step count on the host, or whose state,
    not yet born, does not begin at zero.
    """
    group, name = optimizer.param_groups[0], f"optimizer {index} ({type(optimizer).__name__})"
    cuda = any(p.is_cuda for p in group["params"])
    on_host = (
        not isinstance(optimizer, FlatAdam)
        and "capturable" in group
        and not (group["capturable"] or group.get("fused"))
    )
    if cuda and on_host:
        remedy = "fused=True or capturable=True" if "fused" in group else "capturable=True"
        raise FastganError(f"{name} keeps its step on the host: make it with {remedy}")
    if unborn(optimizer):
        raise FastganError(
            f"the state of {name} does not begin at zero: take one step before capture"
        )


def unborn(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimiser's state is still to be made, and does not begin at zero, to which a
    warm-up is undone."""
    elsewhere = isinstance(optimizer, (torch.optim.NAdam, torch.optim.ASGD, torch.optim.Rprop))
    return not optimizer.state and (
        elsewhere or any(group.get("dampening") for group in optimizer.param_groups)
    )


def clear_gradients(state: State) -> None:
    """Gradients must be born inside the capture, so that they live in the graph's memory."""
    for module in state.modules:
        for p in module.parameters():
            p.grad = None


ROUNDING = 1e-3
"""Mean difference of eager runs, relative to the mean value, that sums in another order may make:
little, but Adam makes whole steps of the roundings that are a bias's gradient before a batch norm.
"""

SLACK = 8.0
"""How many times further than eager runs from each other a replay may be from the nearest of them:
four draws show their spread roughly.
"""


def compare(captured: Captured, examples: Sequence[Tensor]) -> str | None:
    """What differs between eager steps and replays from one state by more than eager steps from
    themselves, or None.

    Two steps each, the second with other inputs and lr. Where eager runs are equal bit for bit, the
    replay must be. Where they are not, as with sums by atomics, they must be under deterministic
    algorithms, or differ by roundings alone: else something changes that is not in the state.
    """
    state = captured.state
    start = state.take()
    rates = [
        g["lr"] for o in state.optimizers for g in o.param_groups if isinstance(g.get("lr"), Tensor)
    ]

    def run(step: Callable[..., Any]) -> list[list[Tensor]]:
        state.restore(start)
        for turn in range(2):
            given = [value.roll(turn, 0) if value.dim() else value for value in examples]
            if turn:
                for rate in rates:
                    rate.mul_(0.5)
            output = step(*given)
        return [
            [t.detach().clone() for t in state.tensors()],
            [t.detach().clone() for t in _leaves(output)],
        ]

    runs = [run(captured.step), run(captured.step)]
    steady = _same(*runs)
    if not steady:
        with deterministic():
            named = _same(run(captured.step), run(captured.step))
        if (
            not named
            and (found := max(_relative(a, b) for a, b in zip(*runs, strict=True))) > ROUNDING
        ):
            state.restore(start)
            return (
                "a replay differs from the eager step as eager steps from each other, by "
                f"{found:.2g} of what they compute: "
                "state= does not name all its state"
            )
        runs += [run(captured.step), run(captured.step)]
    replay = run(captured)
    state.restore(start)
    names = _names(state)
    for i, (found, *eager) in enumerate(
        zip(*([*r[0], *r[1]] for r in (replay, *runs)), strict=True)
    ):
        off = min(_distance(found, value) for value in eager)
        spread = max(_distance(a, b) for a, b in itertools.combinations(eager, 2))
        if not steady and found.is_floating_point():
            spread = max(spread, torch.finfo(found.dtype).eps * _mean(found.abs()))
        if off > SLACK * spread:
            inside = i < len(replay[0])
            where = names.get(i, f"state tensor {i}") if inside else f"output {i - len(replay[0])}"
            cause = (
                "state= does not name all its state"
                if inside
                else "it depends on something that is not an input or in state="
            )
            than = "" if steady else f", eager steps from each other by {spread:.3g}"
            return (
                f"a replay differs from the eager step in {where} (by {off:.3g} on "
                f"average{than}): {cause}"
            )
    return None


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """PyTorch's deterministic algorithms, as far as it has them, and nothing said where it has
    none."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _same(a: list[list[Tensor]], b: list[list[Tensor]]) -> bool:
    return all(
        _distance(x, y) == 0
        for some, others in zip(a, b, strict=True)
        for x, y in zip(some, others, strict=True)
    )


def _relative(a: list[Tensor], b: list[Tensor]) -> float:
    """Sum of |a - b| over all elements of all tensors, over that of |a|."""
    size = sum(_mean(x.nan_to_num(0, 0, 0).abs()) * x.numel() for x in a)
    return sum(_distance(x, y) * x.numel() for x, y in zip(a, b, strict=True)) / (size or 1.0)


def _mean(value: Tensor) -> float:
    return float(value.detach().double().mean()) if value.numel() else 0.0


def _distance(a: Tensor, b: Tensor) -> float:
    """mean |a - b|, which Adam's few parameters with a gradient near zero do not rule; NaN equals
    NaN, inf for a NaN alone."""
    difference = (a.double() - b.double()).abs()
    same = (a == b) | (a.isnan() & b.isnan())  # infinities that agree, too
    return _mean(torch.where(same, 0.0, torch.where(difference.isnan(), torch.inf, difference)))


def kind(value: Tensor) -> str:
    return f"{tuple(value.shape)} {value.dtype}"


def _names(state: State) -> dict[int, str]:
    by_id = {
        id(value): name
        for module in state.modules
        for name, value in [*module.named_parameters(), *module.named_buffers()]
    }
    return {i: by_id[id(value)] for i, value in enumerate(state.tensors()) if id(value) in by_id}


def _leaves(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in _leaves(v)]
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in _leaves(v)]
    return []
