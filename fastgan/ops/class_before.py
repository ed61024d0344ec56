"""Classes of ours put before somebody's own: how a module gets another forward and keeps its code,
its name and what it is an instance of."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from torch import nn


class Before(nn.Module):
    """Base of the classes that `class_before` puts first. Copies and saves go by the two classes:
    the one made of them has no importable name."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        kind = type(self)
        if _MADE.get(kind.__bases__) is not kind:
            return super().__reduce_ex__(protocol)
        return _rebuild, kind.__bases__, *super().__reduce_ex__(protocol)[2:]


_Before = TypeVar("_Before", bound=Before)
_MADE: dict[tuple[type, ...], type[Before]] = {}


def class_before(first: type[_Before], original: type[nn.Module]) -> type[_Before]:
    """A subclass of both under the original's name, always the same one; `first` itself where that
    is a subclass of the original already."""
    if issubclass(first, original):
        return first
    bases = (first, original)
    if bases not in _MADE:
        names = {"__module__": original.__module__, "__qualname__": original.__qualname__}
        _MADE[bases] = type(original.__name__, bases, names)
    return cast("type[_Before]", _MADE[bases])


def _rebuild(first: type[Before], original: type[nn.Module]) -> nn.Module:
    made = class_before(first, original)
    return made.__new__(made)
