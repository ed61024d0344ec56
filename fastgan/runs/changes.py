"""What may change where a run goes on: one table for `--resume`, for the comparison with the start
of the run, and for docs/runs.md. Imports nothing, so that help is fast."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Change:
    """Options that may be given with --resume.

    Args:
        options: Their names. A recipe need not have them all.
        what: What the change does, for people.
        fields: Patterns of the facts a run is known by (`fingerprint`) that follow from them,
            without numbers of stages: these changes are said and recorded. None where no number
            that is trained depends on the options.
    """

    options: tuple[str, ...]
    what: str
    fields: tuple[str, ...] = ()


CHANGES = (
    Change(
        ("steps",),
        "the length of the whole run; a learning rate that falls over it is stretched",
        ("stages.schedules*",),
    ),
    Change(
        ("lr", "lr_g", "lr_d", "lr_decay", "lr_min", "beta1", "beta2"),
        "learning rates and Adam's decays",
        ("stages.schedules*", "optimizers.*.options.lr", "optimizers.*.options.betas"),
    ),
    Change(
        ("momentum", "momentum_end", "momentum_steps"), "SGD's momentum", ("stages.schedules*",)
    ),
    Change(
        ("r1", "lazy_r1", "gp"),
        "weights of D's penalties, and how often R1 is computed",
        *[tuple(f"stages.objective.args.{n}" for n in ("r1", "r2", "gp", "lazy_r1"))],
    ),
    Change(
        ("augment", "augment_p"),
        "what changes reals and fakes before D sees them",
        ("stages.objective.args.augment", "stages.objective.args.augment_p"),
    ),
    Change(("flip",), "whether images are mirrored", ("flip",)),
    Change(("clip",), "the largest norm of a phase's gradients", ("clip",)),
    Change(("accumulate",), "in how many parts a batch is worked off", ("accumulate",)),
    Change(("ema_decay",), "how slowly the averaged generator follows", ("ema_decay",)),
    Change(("precision",), "such as fp32 for a run that overflowed", ("precision",)),
    Change(("rescue",), "whether a collapse or a divergence is [rescued](watching.md#rescue) once"),
    Change(("data",), "where the same images lie now"),
    Change(("model",), "where the code that builds the same networks lies now"),
    Change(
        ("out", "device", "resident_bytes", "graph", "impl"),
        "where and how the same formulas are computed",
    ),
    Change(
        (
            "sample_every",
            "checkpoint_every",
            "checkpoint_minutes",
            "keep",
            "evaluate_every",
            "log",
            "watch",
            "progress",
        ),
        "what is written and shown, and when",
    ),
)

CONSEQUENCES = ("stages.lazy*", "stages.networks.augment")
"""Facts that follow from accepted ones, and are not worth a line of their own."""


def options() -> tuple[str, ...]:
    """Names of all options that may be given with --resume."""
    return tuple(name for change in CHANGES for name in change.options)


def accepted(field: str, *, consequences: bool = True) -> bool:
    """Whether a fact, such as "stages[0].objective.args.r1", may differ where a run goes on."""
    patterns = [p for change in CHANGES for p in change.fields]
    field = re.sub(r"\[\d+\]", "", field)
    return any(fnmatchcase(field, p) for p in (*patterns, *(CONSEQUENCES if consequences else ())))


def take_over(then: Any, now: Any, field: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Give the JSON tree `then` what differs in `now` and is accepted, in place; yields
    (field, before, after), with None for what is absent."""
    if isinstance(then, list) and isinstance(now, list):
        for i, (a, b) in enumerate(zip(then, now, strict=False)):
            yield from take_over(a, b, f"{field}[{i}]")
        return
    if not (isinstance(then, dict) and isinstance(now, dict)):
        return
    for key in list(dict.fromkeys([*then, *now])):
        inner = f"{field}.{key}" if field else key
        before, after = then.get(key), now.get(key)
        if accepted(inner) and (key not in then or key not in now or _alike(before, after)):
            if before != after or (key in then) != (key in now):
                then.pop(key, None)
                then |= {key: after} if key in now else {}
                if accepted(inner, consequences=False):
                    yield inner, before, after
        else:
            yield from take_over(before, after, inner)


def _alike(before: Any, after: Any) -> bool:
    """Whether a value from a file may have been one of this kind."""
    if isinstance(after, list):
        return (
            isinstance(before, list)
            and len(before) == len(after)
            and all(map(_alike, before, after))
        )
    if isinstance(after, float):
        return type(before) in (int, float) and abs(before) < 1e300
    return type(before) is type(after) and len(str(before)) < 1000


def table() -> str:
    """The table in docs/runs.md."""
    lines = ["| with `--resume` | what it changes | said and recorded |", "|---|---|---|"]
    for change in CHANGES:
        names = ", ".join(f"`--{name.replace('_', '-')}`" for name in change.options)
        lines.append(f"| {names} | {change.what} | {'yes' if change.fields else ''} |")
    return "\n".join(lines)
