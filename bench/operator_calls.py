"""Single operators as they are called to be timed: the cases, who can be asked for each (our
engines, eager PyTorch, torch.compile), inputs of their own, and the calls.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastgan.bench.baselines import rival
from fastgan.graphs.backends import CudaGraph
from fastgan.kernels.common import TORCH_DTYPES
from fastgan.ops import dispatch
from fastgan.verify import registry
from fastgan.verify.calls import leaves, named, precision, seed, to
from fastgan.verify.registry import Case, Kwargs, Op
from fastgan.verify.timing import rotations

PYTORCH = ("eager", "compile")
ENGINES = registry.ENGINES
DIRECTIONS = ("forward", "both")


@dataclass(frozen=True)
class Sample:
    """One op on one case, in one type and direction: "forward" without autograd, or forward and
    backward, "both"."""

    op: Op
    case: Case
    type_name: str
    direction: str

    @property
    def name(self) -> str:
        return f"{self.op.name} | {self.case.name} | {self.type_name} | {self.direction}"

    def make(self, device: torch.device) -> Kwargs:
        """The arguments, the same numbers each time."""
        given = self.case.make(
            TORCH_DTYPES[self.type_name], device, seed(self.op.name, self.case.name)
        )
        return rival(self.op).given(given)


def samples(
    device: torch.device,
    names: Sequence[str] = (),
    types: Sequence[str] = (),
    layers: bool | None = None,
    first: bool = False,
) -> Iterator[Sample]:
    """Every registered op (or those named) at the shapes the registry names: its layers on a GPU,
    in bf16 where it has that; on a CPU, and without `layers`, its first small case in fp32, whose
    time is what our Python costs.

    types: instead of those. first: of an op's layers the first alone.
    """
    layers = device.type == "cuda" if layers is None else layers
    registry.load()
    for op in registry.ops(*names):
        for type_name in types or (
            next(t for t in ("bf16" if layers else "fp32", *op.dtypes) if t in op.dtypes),
        ):
            if type_name not in op.dtypes:
                continue
            fit = [c for c in op.cases if type_name in (c.dtypes or op.dtypes) and not c.shared]
            tagged = [c for c in fit if ("layer" if layers else "quick") in c.tags] or [
                c for c in fit if "full" in c.tags
            ]
            for case in tagged if layers and not first else tagged[:1]:
                yield Sample(op, case, type_name, "forward")
                if "backward" in (case.directions or op.directions):
                    yield Sample(op, case, type_name, "both")


def engines(sample: Sample, device: torch.device) -> tuple[list[str], dict[str, str]]:
    """(engines of the op that run here, why each of the others does not)."""
    missing = {}
    for engine in sample.case.engines or sample.op.engines:
        why = dispatch.missing(engine, device)
        if device.type != "cuda" and engine != "reference":
            why = "needs a GPU"  # the interpreter's time would say nothing
        if why:
            missing[engine] = why
    return [e for e in sample.case.engines or sample.op.engines if e not in missing], missing


def _impl(op: Op) -> Any:
    """The default of its engine argument, inspect.Parameter.empty where it has none; None where it
    takes no engine."""
    found = inspect.signature(op.fn).parameters.get("impl")
    return None if found is None else found.default


def automatic(sample: Sample, device: torch.device, made: Kwargs) -> str:
    """The engine that impl="auto" takes for this call; "" where the op is called by engine alone,
    or takes the interpreter."""
    if _impl(sample.op) is inspect.Parameter.empty:
        return ""
    known = dispatch.DISPATCHERS
    before = {name: d.last for name, d in known.items()}
    for d in known.values():
        d.last = None
    try:
        with torch.no_grad():
            sample.op.fn(**to(made, None, None))
        taken = {name: d.last for name, d in known.items() if d.last is not None}
    finally:
        for name, last in before.items():
            known[name].last = known[name].last or last
    decision = taken.get(sample.op.name) or (
        next(iter(taken.values())) if len(taken) == 1 else None
    )
    here = engines(sample, device)[0]
    engine = decision.engine if decision is not None else here[0]
    return engine if engine in here else ""


def function(sample: Sample, provider: str, auto: str = "") -> Callable[..., Any]:
    """What a provider calls: an engine of ours, "auto", "eager" or "compile". The engine that
    `auto` names is called as users call it.
    """
    op = sample.op
    if provider == "eager":
        return rival(op).eager
    if provider == "compile":
        # on a CPU the search is over C++ tiles, and takes minutes an op
        mode = "max-autotune-no-cudagraphs" if torch.cuda.is_available() else None
        return torch.compile(rival(op).source, mode=mode, dynamic=False)
    if (provider in ("auto", auto) and _impl(op) is not inspect.Parameter.empty) or _impl(
        op
    ) is None:
        return op.fn
    return lambda **kwargs: op.fn(**kwargs, impl=provider)


def inputs(sample: Sample, provider: str, made: Kwargs, copies: int) -> list[Kwargs]:
    """Input sets of their own with the values of `made`; gradients wanted where the direction has
    them."""
    if provider in PYTORCH:
        made = rival(sample.op).own(made)
    sets = [to(made, None, None) for _ in range(copies)]
    if sample.direction == "both":
        for kwargs in sets:
            for t in _wanted(sample.op, kwargs):
                t.requires_grad_()
    return sets


def _wanted(op: Op, kwargs: Kwargs) -> list[Tensor]:
    return [
        t
        for name in op.grad_inputs
        for _, t in leaves(kwargs.get(name), name)
        if t.is_floating_point()
    ]


def calls(
    sample: Sample, fn: Callable[..., Any], sets: Sequence[Kwargs]
) -> list[Callable[[], Any]]:
    """One call an input set, which returns its results."""
    kept: dict[Any, Tensor] = {}

    def cotangent(t: Tensor) -> Tensor:
        key = (t.shape, t.stride(), t.dtype)
        if (
            key not in kept
        ):  # drawn once, as large as the output: ones would let a compiler skip work
            kept[key] = torch.randn_like(t, requires_grad=False)
        return kept[key]

    def forward(kwargs: Kwargs) -> Any:
        with torch.no_grad():
            return fn(**kwargs)

    def both(kwargs: Kwargs, wanted: list[Tensor]) -> Any:
        outputs = [t for t in named(sample.op, fn(**kwargs)).values() if t.requires_grad]
        return torch.autograd.grad(
            outputs, wanted, [cotangent(t) for t in outputs], allow_unused=True
        )

    if sample.direction == "forward":
        return [functools.partial(forward, kwargs) for kwargs in sets]
    return [functools.partial(both, kwargs, _wanted(sample.op, kwargs)) for kwargs in sets]


class Caller:
    """A provider, built, as `measure.interleave` takes it: a step calls it once on every input set;
    on a GPU the calls are one replayed graph, whose outputs stay alive so that none reuses a warm
    address.
    """

    def __init__(
        self, sample: Sample, provider: str, auto: str, device: torch.device, made: Kwargs
    ) -> None:
        self.type_name = sample.type_name
        size = sum(t.nbytes for _, t in leaves(made, ""))
        sets = inputs(sample, provider, made, rotations(size))
        self._calls = calls(sample, function(sample, provider, auto), sets)
        self.count = len(self._calls)
        self.how = "calls"
        self._kept: list[Any] = []
        self._graph: CudaGraph | None = None
        with self.flags():
            for _ in range(2):  # compiles and tunes
                self.eager_step()
            if device.type == "cuda":
                self._capture()

    def _capture(self) -> None:
        graph = CudaGraph()
        graph.warm_up(self.eager_step, 2)
        try:
            graph.capture(lambda: self._kept.extend([call() for call in self._calls]))
        except RuntimeError:
            # it reads the device or allocates outside: its launches are in its time, and `how` says
            # so
            torch.cuda.synchronize()
            return
        self._graph, self.how = graph, "graph"

    @contextlib.contextmanager
    def flags(self) -> Iterator[None]:
        """TF32 as the type wants it, cuDNN's search for everybody."""
        cudnn = torch.backends.cudnn
        before, cudnn.benchmark = cudnn.benchmark, True
        try:
            with precision(self.type_name):
                yield
        finally:
            cudnn.benchmark = before

    def eager_step(self) -> None:
        for call in self._calls:
            call()

    def step(self) -> None:
        if self._graph is None:
            self.eager_step()
        else:
            self._graph.replay()
