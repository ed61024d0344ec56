"""Checks values read from JSON against a pattern, and names the first field that does not fit."""

from __future__ import annotations

from typing import Any

DEEPEST = 300
"""Levels of nesting of a file of ours; Python's own recursion ends at about 1000."""

MADE = ({"spec": object}, {"why_not": str})
"""How a network or objective is made again, or why it can't be. The trees under "spec" are
serialize.rebuild's to check."""

_STAGE = {
    "nets": {str: dict},
    "objective": dict,
    "ema": [str],
    "steps": (None, range(2**63)),
    "size": (None, range(1, 2**16), [range(1, 2**16)]),
}
FACTS = {
    "stages": [_STAGE],
    "classes": (None, [str]),
    "empty?": [range(2**16)],
    "seed": range(2**32),
    "identity": {"stages": [{"schedules": {str: {str: object}}}]},
    "modules?": {str: str},
    "demo?": range(2**63),
    "init_from?": {"taken": str, "warm_up": bool},
    "changes?": [dict],
    "cuts?": [dict],
    "rescue?": {"options": {str: (int, float, str)}, "before": {str: (None, int, float, str)}},
    "cpu?": dict,
    "job?": {"id": str, "began": (int, float)},
}
"""What of run.json is used."""

CHECKSUM = "checksum"
"""In state.json: of all else there, and so, by the sums there, of the whole checkpoint. Checkpoints
of before version 0.2 have none."""

CHECKPOINT = {
    "format": range(1, 2**31),
    "step": range(10**18),
    "sha256": {str: str},
    "trees": {str: object},
    f"{CHECKSUM}?": str,
}
"""What of state.json every checkpoint has."""

_BEST = {"step": range(10**18), "score": (int, float), "judge": str, "key": str}
STATE = {
    "stage": int,
    "identity": dict,
    "watch": (None, dict),
    "forms?": {str: {str: [str]}},
    "evaluation?": {"best": (None, _BEST), "row": {str: (int, float)}},
}
"""What of state.json a trainer has added."""


def check(value: Any, pattern: Any, where: str) -> None:
    """Raises ValueError naming the first field below `where` that does not fit.

    pattern: a type (bool is no int), None, a range, a tuple of alternatives, [pattern] of a list's
    items, {str: pattern} of a mapping's values, or {"name": pattern} of a record's fields, "name?"
    where one may be absent.
    """
    if isinstance(pattern, tuple):
        for one in pattern:
            if _fits(value, one):
                return check(value, one, where)
        raise ValueError(f"{where} can't be {_short(value)}")
    if not _fits(value, pattern):
        raise ValueError(f"{where} can't be {_short(value)}")
    if isinstance(pattern, list):
        for i, item in enumerate(value):
            check(item, pattern[0], f"{where}[{i}]")
    elif isinstance(pattern, dict):
        fields = dict.fromkeys(value, pattern[str]) if str in pattern else pattern
        for key, inner in fields.items():
            name = key.removesuffix("?")
            if name in value:
                check(value[name], inner, f"{where}.{name}")
            elif name == key:
                raise ValueError(f"{where} has no {name!r}")
    return None


def _fits(value: Any, pattern: Any) -> bool:
    """Whether a value fits a pattern, its contents aside."""
    if pattern is None:
        return value is None
    if isinstance(pattern, range):
        return type(value) is int and value in pattern
    if isinstance(pattern, type):
        return isinstance(value, pattern) and (
            pattern is object or type(value) is not bool or pattern is bool
        )
    return isinstance(value, type(pattern))


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, (list, dict)) else type(value).__name__
    return text if len(text) <= 40 else f"{text[:37]}..."


def depth(value: Any) -> int:
    """How deeply lists and dicts lie in each other."""
    level, found = [value], 0
    while level := [
        v
        for c in level
        if isinstance(c, (dict, list))
        for v in (c.values() if isinstance(c, dict) else c)
    ]:
        found += 1
    return found
