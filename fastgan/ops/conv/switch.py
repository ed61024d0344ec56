"""The switch with which R1 and gradient penalties leave weight gradients out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_wanted = True


@contextlib.contextmanager
def no_weight_gradients() -> Iterator[None]:
    """Backward passes run inside skip the weight gradients of our convolutions: for R1 and gradient
    penalties, whose inner gradient is taken against images alone.

    `autograd.grad(inputs=images)` tells PyTorch's own nodes as much, but not operators registered
    from Python. On the ATen engine the switch reaches calls made with `switchable=True`; the others
    follow `inputs=`.
    """
    global _wanted
    before, _wanted = _wanted, False
    try:
        yield
    finally:
        _wanted = before


def weight_gradients() -> bool:
    """False inside no_weight_gradients()."""
    return _wanted
