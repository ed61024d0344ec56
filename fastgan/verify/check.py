"""One check: an engine of an op on one case, in one type, in every direction, against float64."""

from __future__ import annotations

import contextlib
import inspect
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastgan.kernels.common import TORCH_DTYPES
from fastgan.verify import bounds, interpreter
from fastgan.verify.memory_guards import Guards, poisoned
from fastgan.verify.registry import Case, Kwargs, Op, Outputs

interpreter.install()


@dataclass
class CheckRow:
    """One output of one direction of one check. ``verdict`` is pass, FAIL or skip; ``worst`` the
    largest error/limit of the three bounds.
    """

    op: str
    case: str
    type: str
    engine: str
    direction: str
    output: str
    verdict: str
    error: float = 0.0
    limit: float = 0.0
    own: float = 0.0
    own_limit: float = 0.0
    peak: float = 0.0
    peak_limit: float = 0.0
    worst: float = 0.0
    note: str = ""


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
        first = torch.autograd.grad(
            outs, list(inputs.values()), cotangents, create_graph=double, allow_unused=True
        )
        grads: dict[str, Outputs] = {}
        if "backward" in self.directions:
            grads["backward"] = {f"d{n}": _dense(g, t) for (n, t), g in zip(inputs.items(), first)}
        if double:
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
            grads["double"] = {n: _dense(g, t) for (n, t), g in zip(targets.items(), second)}
        return grads


def _dense(grad: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like.detach()) if grad is None else grad.detach()


def one_line(e: BaseException) -> str:
    """An exception as one line; of a compiler's long message the end, where it says what is
    wrong."""
    text = " ".join(str(e).split())
    return f"{type(e).__name__}: {text if len(text) <= 200 else '... ' + text[-200:]}"


MOST = 1 << 28  # elements compared on a GPU: some float64 copies of more than this fill it


def _doubles(value: Tensor, gold: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64 where gold lies, or on the CPU where they are huge."""
    where = gold.device if gold.numel() <= MOST else torch.device("cpu")
    return value.detach().to(where, torch.float64), gold.detach().to(where, torch.float64)


def relative_l2(value: Tensor, gold: Tensor) -> float:
    """||value - gold|| / ||gold|| in float64 on gold's device (the numerator alone where gold is
    0); inf for a NaN where gold has none, or another shape.
    """
    if value.shape != gold.shape:
        return float("inf")
    a, b = _doubles(value, gold)
    same = (a == b) | (a.isnan() & b.isnan())  # infinities that agree are no error
    difference = torch.where(same, 0.0, a - b)
    error = (difference.norm() / (torch.where(b.isfinite(), b, 0.0).norm() or 1.0)).item()
    return error if error == error else float("inf")


def relative_peak(value: Tensor, gold: Tensor) -> float:
    """max |value - gold| / max |gold|, with the same conventions."""
    if value.shape != gold.shape or not gold.numel():
        return 0.0 if value.shape == gold.shape else float("inf")
    a, b = _doubles(value, gold)
    difference = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, a - b).abs().max().item()
    error = difference / (torch.where(b.isfinite(), b, 0.0).abs().max().item() or 1.0)
    return error if error == error else float("inf")


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


def judge_mask(
    op: Op, case: Case, kwargs: Kwargs, outputs: Outputs, where: torch.device
) -> tuple[Tensor | None, str, bool]:
    """(the kernel's activation mask on `where`, a note, whether every difference from gold's is
    excused by rounding)."""
    if op.mask is None:
        return None, "", True
    observed = op.mask.observed(kwargs, outputs)
    if observed is None:
        return None, "", True
    observed = observed.to(where)
    p, scale = (
        t.to(where) for t in op.mask.preactivation(converted(case, kwargs, where, torch.float64))
    )
    differs = observed != (p > 0)
    count = int(differs.sum())
    eps = bounds.MASK_EPS * torch.finfo(torch.float32).eps
    excused = bool((p.abs() < eps * scale)[differs].all())
    return observed, f"{count} mask differences" if count else "", excused


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


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal bit for bit, NaN included."""
    raw = lambda t: t.contiguous().reshape(-1).view(torch.uint8)
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(raw(a), raw(b))


def check(
    op: Op, case: Case, type_name: str, engine: str, device: torch.device, repeat: bool
) -> tuple[list[CheckRow], float]:
    """Every output of every direction of one case, in one type, by one engine; and the seconds it
    took. Never raises for a failing op.
    """
    start = time.perf_counter()
    row = lambda direction, output, verdict, **more: CheckRow(
        op.name, case.name, type_name, engine, direction, output, verdict, **more
    )
    directions = tuple(d for d in op.directions if case.directions is None or d in case.directions)
    try:
        with precision(type_name):
            rows = _check(op, case, type_name, engine, device, repeat, directions, row)
    except Exception as e:  # a raising op is a failing op, and the others must still be judged
        rows = [row("forward", "-", "FAIL", worst=float("inf"), note=one_line(e))]
    return rows, time.perf_counter() - start


def _check(
    op: Op,
    case: Case,
    type_name: str,
    engine: str,
    device: torch.device,
    repeat: bool,
    directions: tuple[str, ...],
    row: Callable[..., CheckRow],
) -> list[CheckRow]:
    dtype = TORCH_DTYPES[type_name]
    made = case.make(dtype, device, seed(op.name, case.name))
    takes_impl = "impl" not in made and "impl" in inspect.signature(op.fn).parameters
    ways = Directions(op, case, directions)
    call = lambda kwargs: op.fn(**kwargs, impl=engine) if takes_impl else op.fn(**kwargs)

    def guarded() -> tuple[Run, Guards, Kwargs]:
        guards = Guards()
        kwargs = guards.copy({n: v for n, v in made.items() if n not in case.shared}) | {
            n: made[n] for n in case.shared
        }
        with poisoned(guards):
            return ways.run(call, kwargs), guards, kwargs

    # what is PyTorch's in an op (higher derivatives of convolutions) must not differ by itself
    # where runs are compared
    with repeatable() if repeat else contextlib.nullcontext():
        mine, guards, kwargs = guarded()
        again = guarded()[0] if repeat else None
    rows = []
    if guards.broken():
        rows.append(
            row("forward", "-", "FAIL", worst=float("inf"), note="wrote outside its tensors")
        )
    own = lambda values: (
        (n, t) for k, v in values.items() if k not in case.shared for n, t in leaves(v, k)
    )
    for (name, before), (_, after) in zip(own(made), own({n: kwargs[n] for n in made})):
        if name.split(".")[0].split("[")[0] not in op.mutates and not same_bits(
            before, after.detach()
        ):
            rows.append(row("forward", name, "FAIL", worst=float("inf"), note="input changed"))
    if again is not None:
        pairs = [("forward", n, t, again.outputs[n]) for n, t in mine.outputs.items()]
        pairs += [
            (d, n, t, again.grads[d][n]) for d, some in mine.grads.items() for n, t in some.items()
        ]
        rows += [
            row(d, n, "FAIL", worst=float("inf"), note="two runs differ")
            for d, n, a, b in pairs
            if not same_bits(a, b)
        ]

    # gold of real layers and huge tensors is made on the device: in float64 a CPU takes minutes for
    # them. A huge one's mask is not, since beside it no room is left.
    cpu, tags = torch.device("cpu"), set(case.tags)
    where = device if {"huge", "layer"} & tags or case.shared else cpu  # what is shared lies there
    mask, mask_note, excused = judge_mask(
        op, case, made, mine.outputs, cpu if "huge" in tags else where
    )
    if not excused:
        rows.append(
            row(
                "forward",
                "mask",
                "FAIL",
                worst=float("inf"),
                note=f"{mask_note}, some where |p| is not small",
            )
        )
    round_to = dtype if dtype != torch.float32 else None
    with repeatable():
        gold = ways.run(
            call_reference(op, round_to, mask), converted(case, made, where, torch.float64)
        )
        try:
            theirs = ways.run(
                call_reference(op, None, mask),
                converted(case, made, where, None),
                only=gold.differentiable,
            )
        except (
            RuntimeError,
            NotImplementedError,
        ):  # PyTorch lacks the op in this type on this device
            theirs = None
    if lost := [n for n in gold.differentiable if n not in mine.differentiable]:
        rows.append(
            row(
                "backward",
                lost[0],
                "FAIL",
                worst=float("inf"),
                note="carries no gradient, the reference does",
            )
        )

    errors = lambda values, golds: {
        n: relative_l2(t, golds[n]) for n, t in values.items() if n in golds
    }
    own_errors = (
        errors(theirs.outputs, gold.outputs | _derived(op, made, theirs.outputs, where))
        if theirs
        else {}
    )
    compared = [
        (
            "forward",
            mine.outputs,
            gold.outputs | _derived(op, made, mine.outputs, where),
            own_errors,
        )
    ]
    for d, some in gold.grads.items():
        compared.append(
            (
                d,
                mine.grads.get(d, {}),
                some,
                errors(theirs.grads.get(d, {}), some) if theirs else {},
            )
        )
    for direction, values, golds, own_errors in compared:
        if direction == "forward" and "forward" not in directions:
            continue
        for name in golds.keys() | values.keys():
            if name not in values or name not in golds:
                if not lost:
                    rows.append(
                        row(
                            direction,
                            name,
                            "FAIL",
                            worst=float("inf"),
                            note="only one side has this output",
                        )
                    )
                continue
            own_error = own_errors.get(name, 0.0)
            rows.append(
                _compare(
                    op,
                    type_name,
                    direction,
                    name,
                    values[name],
                    golds[name],
                    own_error,
                    row,
                    mask_note,
                )
            )
    return rows


def _derived(op: Op, made: Kwargs, outputs: Outputs, where: torch.device) -> Outputs:
    """Gold for the outputs that are defined by others, of these outputs."""
    if not op.derived:
        return {}
    doubles = {
        n: t.to(where, torch.float64) if t.is_floating_point() else t for n, t in outputs.items()
    }
    return {n: make(made, doubles) for n, make in op.derived.items()}


def _compare(
    op: Op,
    type_name: str,
    direction: str,
    name: str,
    value: Tensor,
    gold: Tensor,
    own_error: float,
    row: Callable[..., CheckRow],
    note: str,
) -> CheckRow:
    if not value.is_floating_point():
        equal = value.shape == gold.shape and torch.equal(value.cpu(), gold.cpu())
        worst = 0.0 if equal else float("inf")
        return row(
            direction,
            name,
            "pass" if equal else "FAIL",
            worst=worst,
            error=worst,
            note="" if equal else "integers differ",
        )
    exception = op.bounds.get(f"{direction}:{name}") or op.bounds.get(name)
    error, peak = relative_l2(value, gold), relative_peak(value, gold)
    limit = bounds.limits(type_name, value.dtype, gold.numel(), own_error, exception)
    worst = max(error / limit.l2, error / limit.own, peak / limit.peak)
    missed = [
        n
        for n, ratio in (
            ("L2", error / limit.l2),
            ("PyTorch's own", error / limit.own),
            ("peak", peak / limit.peak),
        )
        if ratio > 1
    ]
    if (
        bool((value.isnan().to(gold.device) & ~gold.isnan()).any())
        if value.shape == gold.shape
        else False
    ):
        missed = ["NaN: not written, or read outside"]
    text = f"over {' and '.join(missed)}" if missed else note
    return row(
        direction,
        name,
        "FAIL" if missed else "pass",
        error=error,
        limit=limit.l2,
        own=own_error,
        own_limit=limit.own,
        peak=peak,
        peak_limit=limit.peak,
        worst=worst,
        note=text,
    )
