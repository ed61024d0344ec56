"""Eager steps against replays of a graph, from one state."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan.graphs.state import State

ROUNDING = 1e-3
"""Mean difference of eager runs, relative to the mean value, that sums in another order may make:
little, but Adam makes whole steps of the roundings that are a bias's gradient before a batch norm.
"""

SLACK = 8.0
"""How many times further than eager runs from each other a replay may be from the nearest of them:
four draws show their spread roughly.
"""


def compare(
    step: Callable[..., Any], replay: Callable[..., Any], state: State, examples: Sequence[Tensor]
) -> str | None:
    """What differs between eager steps and replays from one state by more than eager steps from
    themselves, or None.

    Two steps each, the second with other inputs and lr. Where eager runs are equal bit for bit, the
    replay must be. Where they are not, as with sums by atomics, they must be under deterministic
    algorithms, or differ by roundings alone: else something changes that is not in the state.
    """
    start = state.take()
    rates = [
        g["lr"] for o in state.optimizers for g in o.param_groups if isinstance(g.get("lr"), Tensor)
    ]

    def run(turned: Callable[..., Any]) -> list[list[Tensor]]:
        state.restore(start)
        for turn in range(2):
            given = [value.roll(turn, 0) if value.dim() else value for value in examples]
            if turn:
                for rate in rates:
                    rate.mul_(0.5)
            output = turned(*given)
        return [
            [t.detach().clone() for t in state.tensors()],
            [t.detach().clone() for t in _leaves(output)],
        ]

    runs = [run(step), run(step)]
    steady = _same(*runs)
    if not steady:
        with deterministic():
            named = _same(run(step), run(step))
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
        runs += [run(step), run(step)]
    replayed = run(replay)
    state.restore(start)
    names = _names(state)
    for i, (found, *eager) in enumerate(
        zip(*([*r[0], *r[1]] for r in (replayed, *runs)), strict=True)
    ):
        off = min(_distance(found, value) for value in eager)
        spread = max(_distance(a, b) for a, b in itertools.combinations(eager, 2))
        if not steady and found.is_floating_point():
            spread = max(spread, torch.finfo(found.dtype).eps * _mean(found.abs()))
        if off > SLACK * spread:
            inside = i < len(replayed[0])
            where = (
                names.get(i, f"state tensor {i}") if inside else f"output {i - len(replayed[0])}"
            )
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
