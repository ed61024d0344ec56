"""Convolutions and linear layers read the low-precision copy that FlatAdam wrote, where autocast
would cast the parameter.

The copy is the parameter rounded once to nearest even, which is what autocast's cast gives: the
same bits without a launch. Its gradient reaches the parameter's .grad in the type it was computed
in: one rounding, autocast's, and no cast back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fastgan.ops.adam.optimizer import FlatAdam
from fastgan.ops.dispatch import transformed

# What autocast runs in low precision of the layers that have weights; none of them writes to an
# argument.
LAYERS = {
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
    torch.nn.functional.linear,
}
_DATA = torch.Tensor.data.__get__  # type: ignore[attr-defined]


class _Copy(torch.autograd.Function):
    """(parameter, its copy) -> the copy; the gradient goes to the parameter as it is."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, copy: Tensor) -> Tensor:
        return copy.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad, None


class LowWeights(TorchFunctionMode):
    """Inside, `LAYERS` and `cast` take the low-precision copies of these optimisers' parameters,
    under autocast to their type.

    A parameter that anybody writes to is copied anew (its version tells); one whose `.data` is
    read, through which writes leave no trace, is cast by autocast from then on. So is one with
    hooks of its own, and all of them under torch.func.
    """

    def __init__(self, adams: Iterable[FlatAdam]) -> None:
        super().__init__()
        self._where = {
            id(p): (adam, i)
            for adam in adams
            if adam.low is not None
            for i, p in enumerate(adam.flat.parameters)
        }

        self._nodes: dict[int, Tensor] = {}

    def __bool__(self) -> bool:
        return bool(self._where)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in LAYERS:
            args = tuple(self._low(a) for a in args)
            kwargs = {key: self._low(value) for key, value in (kwargs or {}).items()}
        elif func == _DATA:
            self._where.pop(id(args[0]), None)
        return func(*args, **(kwargs or {}))

    def __enter__(self) -> LowWeights:
        global _active
        _active = self
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        global _active
        _active = None
        self._nodes.clear()
        super().__exit__(*error)

    def place(self, value: Any) -> tuple[FlatAdam, int] | None:
        """The optimiser that holds a parameter, and where."""
        return self._where.get(id(value))

    def _low(self, value: Any) -> Any:
        found = self.place(value)
        if found is None:
            return value
        adam, index = found
        kind = value.device.type
        if (
            not torch.is_autocast_enabled(kind)
            or torch.get_autocast_dtype(kind) != adam.copies[index].dtype
        ):
            return value
        if transformed() or value._backward_hooks or value._post_accumulate_grad_hooks:
            return value
        copy = adam.copy_of(index)
        if not (value.requires_grad and torch.is_grad_enabled()):
            return copy
        # one node a parameter, as autocast's cache has: where its uses' gradients are added, and in
        # which order
        if id(value) not in self._nodes:
            value.grad_dtype = (
                None  # not for others: what autograd casts before it adds stays as it was
            )
            self._nodes[id(value)] = _Copy.apply(value, copy)
        return self._nodes[id(value)]


_active: LowWeights | None = None


def read(w: Tensor) -> Tensor:
    """A parameter's copy where it is at hand, for a layer that works on a view of its weight; else
    w itself."""
    return w if _active is None else _active._low(w)


def values(w: Tensor, dtype: torch.dtype) -> Tensor:
    """What a kernel reads of `w`, within an operator whose gradients are w's own: a parameter's
    copy where it is at hand in this type, else w itself."""
    found = None if _active is None else _active.place(w)
    if found is None or found[0].copies[found[1]].dtype != dtype:
        return w
    return found[0].copy_of(found[1])


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x.to(dtype), for what is only read: without a launch where x is a parameter whose copy is at
    hand."""
    return (x if x.dtype == dtype else read(x)).to(dtype)
