"""One call of an op, whoever computes it: arguments on a device in a type, outputs and gradients by
name in every direction, PyTorch's switches meanwhile.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastgan.verify.registry import Case, Kwargs, Op, Outputs


def leaves(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) for every tensor in a nest of tuples, NamedTuples, lists and dicts; None and
    Python values are passed over.
    """
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for key, item in zip(value._fields, value):
            yield from leaves(item, f"{name}.{key}" if name else key)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from leaves(item, f"{name}[{i}]" if name else f"out{i}")


def named(op: Op, result: Any) -> Outputs:
    """A call's result as named outputs: by field or key, by ``Op.outputs`` for a bare tuple, else
    ``out``."""
    if isinstance(result, Tensor):
        return {op.outputs[0] if op.outputs else "out": result}
    if isinstance(result, (tuple, list)) and not hasattr(result, "_fields") and op.outputs:
        if len(result) != len(op.outputs):
            raise ValueError(f"{len(result)} outputs, but {len(op.outputs)} names")
        result = dict(zip(op.outputs, result))
    return dict(leaves(result, ""))


def to(value: Any, device: torch.device | None, dtype: torch.dtype | None) -> Any:
    """The same nest with tensors on ``device`` and floating ones in ``dtype``."""
    if isinstance(value, Tensor):
        return value.detach().to(
            device=device or value.device,
            dtype=dtype if dtype and value.is_floating_point() else value.dtype,
            copy=True,
        )
    if isinstance(value, dict):
        return {k: to(v, device, dtype) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to(v, device, dtype) for v in value))
    if isinstance(value, (list, tuple)):
        return type(value)(to(v, device, dtype) for v in value)
    return value


def converted(
    case: Case, made: Kwargs, device: torch.device | None, dtype: torch.dtype | None
) -> Kwargs:
    """:func:`to` for a case's arguments; the shared ones stay as they are."""
    return {
        name: value if name in case.shared else to(value, device, dtype)
        for name, value in made.items()
    }


def seed(*names: str) -> torch.Generator:
    """A CPU generator that depends on the names alone, so that a case has the same numbers in every
    run and whatever runs before it.
    """
    return torch.Generator().manual_seed(zlib.crc32("/".join(names).encode()))


@dataclass
class Run:
    """What one implementation gives: outputs (state after the call included), and per direction the
    gradients."""

    outputs: Outputs
    grads: dict[str, Outputs]
    differentiable: tuple[str, ...]


class Directions:
    """The cotangents of one case: the same numbers for the kernel, gold and PyTorch's own run."""

    def __init__(self, op: Op, case: Case, directions: tuple[str, ...]) -> None:
        self.op, self.case, self.directions = op, case, directions
        self.kept: dict[str, Tensor] = {}

    def cotangent(self, key: str, like: Tensor) -> Tensor:
        """Standard normal, drawn once in ``like``'s type (the kernel runs first) and converted for
        the others."""
        if key not in self.kept:
            drawn = torch.randn(like.shape, generator=seed(self.op.name, self.case.name, key))
            self.kept[key] = drawn.to(like.dtype)
        value = self.kept[key].to(device=like.device, dtype=like.dtype)
        # a layout like the output's own, as autograd usually delivers
        return torch.empty_like(like).copy_(value)

    def run(
        self, call: Callable[[Kwargs], Any], kwargs: Kwargs, only: tuple[str, ...] | None = None
    ) -> Run:
        """Forward, then the directions asked for; ``only`` names the outputs to differentiate (the
        reference decides)."""
        inputs = {
            n: t
            for name in self.op.grad_inputs
            for n, t in leaves(kwargs.get(name), name)
            if t.is_floating_point()
        }
        wants_grad = bool(set(self.directions) - {"forward"})
        if wants_grad:
            for t in inputs.values():
                t.requires_grad_()
        with contextlib.nullcontext() if wants_grad else torch.no_grad():
            outputs = named(self.op, call(kwargs))
        for name in self.op.mutates:
            for n, t in leaves(kwargs.get(name), name):
                outputs[n + "'"] = t
        differentiable = tuple(
            n
            for n, t in outputs.items()
            if t.requires_grad and (only is None or n in only) and not n.endswith("'")
        )
        grads: dict[str, Outputs] = {}
        if wants_grad and differentiable:
            grads = self._differentiate(outputs, differentiable, inputs)
        return Run({n: t.detach() for n, t in outputs.items()}, grads, differentiable)

    def _differentiate(
        self, outputs: Outputs, names: tuple[str, ...], inputs: Outputs
    ) -> dict[str, Outputs]:
        outs = [outputs[n] for n in names]
        double = "double" in self.directions
        cotangents = [
            self.cotangent(n, t.detach()).requires_grad_(double) for n, t in zip(names, outs)
        ]
        grads: dict[str, Outputs] = {}

        def first_order(**graph: bool) -> tuple[tuple[Tensor | None, ...], Outputs]:
            found = torch.autograd.grad(
                outs, list(inputs.values()), cotangents, allow_unused=True, **graph
            )
            return found, {f"d{n}": _dense(g, t) for (n, t), g in zip(inputs.items(), found)}

        if "backward" in self.directions:
            _, grads["backward"] = first_order(retain_graph=double)
        if double:
            # With a graph to differentiate again an op may take a formula where it has a kernel.
            first, with_graph = first_order(create_graph=True)
            live = [(n, g) for n, g in zip(inputs, first) if g is not None and g.requires_grad]
            targets = {
                **{f"d2{n}": t for n, t in inputs.items()},
                **{f"d2(d{n})": c for n, c in zip(names, cotangents)},
            }
            second: tuple[Tensor | None, ...] = (None,) * len(targets)
            if live:
                directions = [self.cotangent(f"second {n}", g.detach()) for n, g in live]
                second = torch.autograd.grad(
                    [g for _, g in live], list(targets.values()), directions, allow_unused=True
                )
            grads["double"] = with_graph | {
                n: _dense(g, t) for (n, t), g in zip(targets.items(), second)
            }
        return grads


def _dense(grad: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like.detach()) if grad is None else grad.detach()


def call_reference(
    op: Op, round_to: torch.dtype | None, mask: Tensor | None
) -> Callable[[Kwargs], Any]:
    """The reference as gold wants it: rounding where the kernel rounds, judged by the kernel's own
    mask."""
    extra: Kwargs = {}
    if op.rounds:
        extra["round_to"] = round_to
    if mask is not None and op.mask is not None:
        extra[op.mask.argument] = mask
    return lambda kwargs: op.reference(**kwargs, **extra)


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """cuDNN's deterministic algorithms without a search: gold that runs on the GPU is the same in
    every run."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


@contextlib.contextmanager
def precision(type_name: str) -> Iterator[None]:
    """TF32 on for the type of that name and off otherwise, for cuDNN and for matmul; also what the
    ops read."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = type_name == "tf32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
