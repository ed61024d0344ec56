"""One check: an engine of an op on one case, in one type, in every direction, against float64."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastgan.kernels.common import TORCH_DTYPES
from fastgan.verify import bounds, interpreter
from fastgan.verify.calls import (
    Directions,
    Run,
    call_reference,
    converted,
    leaves,
    precision,
    repeatable,
    seed,
)
from fastgan.verify.differences import relative_l2, relative_peak, same_bits
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


def one_line(e: BaseException) -> str:
    """An exception as one line; of a compiler's long message the end, where it says what is
    wrong."""
    text = " ".join(str(e).split())
    return f"{type(e).__name__}: {text if len(text) <= 200 else '... ' + text[-200:]}"


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
        plain = lambda at, mask: _plain(
            ways, op, mask, converted(case, made, at, None), gold.differentiable
        )
        theirs = plain(where, mask)
        # PyTorch's code on a GPU adds in another order than on a CPU
        here = None
        if engine in bounds.PYTORCH:
            same = where == device
            here = theirs if same else plain(device, None if mask is None else mask.to(device))
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

    golds_of = lambda run: (
        {"forward": gold.outputs | _derived(op, made, run.outputs, where)} | (gold.grads)
    )
    values_of = lambda run: {"forward": run.outputs} | run.grads

    def errors(run: Run | None) -> dict[tuple[str, str], tuple[float, float]]:
        """(L2, peak) of every output of a run of PyTorch's, by direction and name."""
        if run is None:
            return {}
        golds = golds_of(run)
        return {
            (d, n): (relative_l2(t, golds[d][n]), relative_peak(t, golds[d][n]))
            for d, some in values_of(run).items()
            for n, t in some.items()
            if d in golds and n in golds[d]
        }

    own_errors, errors_here = errors(theirs), errors(here)
    for direction, golds in golds_of(mine).items():
        values = values_of(mine).get(direction, {})
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
            rows.append(
                _compare(
                    op,
                    type_name,
                    direction,
                    name,
                    values[name],
                    golds[name],
                    own_errors.get((direction, name), (0.0, 0.0))[0],
                    errors_here.get((direction, name)),
                    row,
                    mask_note,
                )
            )
    return rows


def _plain(
    ways: Directions, op: Op, mask: Tensor | None, kwargs: Kwargs, only: tuple[str, ...]
) -> Run | None:
    """PyTorch's own run, where these arguments lie; None where it lacks the op in this type
    there."""
    try:
        return ways.run(call_reference(op, None, mask), kwargs, only=only)
    except (RuntimeError, NotImplementedError):
        return None


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
    yardstick: tuple[float, float] | None,
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
    same = f"backward:{name}" if direction == "double" else name  # first order, with a graph
    exception = op.bounds.get(f"{direction}:{name}") or op.bounds.get(same) or op.bounds.get(name)
    error, peak = relative_l2(value, gold), relative_peak(value, gold)
    limit = bounds.limits(type_name, value.dtype, gold.numel(), own_error, exception, yardstick)
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
        own=max(own_error, yardstick[0] if yardstick else 0.0),
        own_limit=limit.own,
        peak=peak,
        peak_limit=limit.peak,
        worst=worst,
        note=text,
    )
