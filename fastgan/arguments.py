"""Arguments checked before they are used: one line that names the argument and what it may be."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastgan.errors import FastganError, empty, no_path

MOST = 2**53
"""No count is larger: beyond, floating-point numbers skip whole ones."""
LARGEST = 2**63 - 1
"""What fits 64 bits."""


def shown(value: Any) -> str:
    """A value as messages show it: short, on one line."""
    try:
        text = value.__name__ if isinstance(value, type) else repr(value)
    except Exception:  # more digits than Python prints, or somebody's own class
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _must_be(name: str, what: str, given: str) -> FastganError:
    return FastganError(f"{name} must be {what}, not {given}")


def whole(value: Any, name: str, least: int = 0, most: int = MOST) -> int:
    """A whole number in [least, most]; numpy's are taken, True and 4.0 are not."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise FastganError(f"{name} must be a whole number, not {shown(value)}")
    count = int(value)
    if not least <= count <= most:
        bounds = f"at least {least}" if count < least else f"at most {most}"
        raise _must_be(name, bounds, shown(value))
    return count


def number(value: Any, name: str, least: float = 0.0, most: float = math.inf) -> float:
    """A finite number in [least, most]."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise FastganError(f"{name} must be a number, not {shown(value)}")
    try:
        real = float(value)
    except OverflowError:
        raise FastganError(f"{name} is too large: {shown(value)}") from None
    if not math.isfinite(real):
        raise FastganError(f"{name} must be a finite number, not {value}")
    if not least <= real <= most:
        bounds = f"at least {least:g}" if real < least else f"at most {most:g}"
        raise _must_be(name, bounds, f"{value}")
    return real


def flag(value: Any, name: str) -> bool:
    """True or False, nothing that merely counts as one."""
    if not isinstance(value, bool):
        raise FastganError(f"{name} must be True or False, not {shown(value)}")
    return value


def text(value: Any, name: str, choices: Iterable[str] = (), written: bool = False) -> str:
    """A text, one of `choices` if there are any. written: an empty one is refused, and one with a
    null byte."""
    known = list(choices)
    if not isinstance(value, str) or (known and value not in known):
        what = f"one of {', '.join(known)}" if known else "a text"
        raise _must_be(name, what, shown(value))
    if written and not value:
        raise empty(name)
    if written and "\0" in value:
        raise FastganError(f"{name} holds a null byte: {value}")
    return value


def shape(value: Any, name: str) -> tuple[int, ...]:
    """A tuple of whole numbers from 1 on; 16 is (16,)."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        value = (value,)
    if not isinstance(value, (tuple, list)):
        raise FastganError(f"{name} must be a shape such as (16,) or 16, not {shown(value)}")
    return tuple(whole(side, f"a side of {name}", 1, 2**31) for side in value)


def path(value: Any, name: str) -> str | os.PathLike[str]:
    if not isinstance(value, (str, os.PathLike)):
        raise no_path(name, shown(value))
    return value


def one_of(value: Any, name: str, kind: type, what: str) -> Any:
    """An object of a class; a class instead of an object is named."""
    if isinstance(value, type) and issubclass(value, kind):
        raise FastganError(f"{name} is the class {value.__name__}: make an object, with ()")
    if not isinstance(value, kind):
        raise _must_be(name, what, shown(value))
    return value


def mapping(value: Any, name: str, what: str) -> Mapping[Any, Any]:
    """A dict whose keys are texts."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _must_be(name, what, shown(value))
    return value


def function(value: Any, name: str, what: str) -> Callable[..., Any]:
    if not callable(value):
        raise _must_be(name, what, shown(value))
    return value


def one_or_each(count: int, what: str, n: int) -> None:
    """Refuses a count of labels or masks that is neither one nor one for each of `n` images."""
    if count not in (1, n):
        raise FastganError(f"{count} {what} for {n} images: give one, or one for each")


def samples(n: Any) -> int:
    """How many images to sample, from 1 on."""
    if whole(n, "n", -(2**63)) < 1:
        raise FastganError(f"can't sample {n} images: ask for at least one")
    return int(n)


def network(name: str, nets: Iterable[str], said: str) -> None:
    """Refuses the name of a network that is not there. said: where it stands."""
    if name not in nets:
        raise FastganError(f"{said} {name!r}, which is not among the networks: {', '.join(nets)}")
