"""A convolution whose three operations each have a form of their own (forms.py), differentiable to
any order: the derivatives of each operation are the other two.

    down(big, w)       d/dbig: up(u, w)        d/dw: weight(big, u)
    up(small, w)       d/dsmall: down(u, w)    d/dw: weight(u, small)
    weight(big, small) d/dbig: up(small, u)    d/dsmall: down(big, u)
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastgan.kernels.conv.plan import channels_last
from fastgan.kernels.conv.spec import ConvSpec, Pair
from fastgan.ops import low_weights
from fastgan.ops.conv import forms
from fastgan.ops.conv.forms import Geometry
from fastgan.ops.conv.switch import weight_gradients


@dataclass(frozen=True)
class Forms:
    """The form of each operation of one layer."""

    down: str = "onednn"
    up: str = "onednn"
    weight: str = "onednn"


PYTORCH = Forms()
_dropped: set[tuple[str, str, Geometry, Pair]] = set()


def _form(chosen: str, operation: str, geometry: Geometry, big: Pair, dtype: torch.dtype) -> str:
    usable = geometry.runs(chosen, operation, big, dtype)
    dropped = (chosen, operation, geometry, big) in _dropped
    return chosen if usable and not dropped else "onednn"


def _run(operation: str, chosen: str, big: Pair, geometry: Geometry, *given: Any) -> Tensor:
    """One operation by its form, or where that raises, from then on by PyTorch's."""
    form = _form(chosen, operation, geometry, big, given[0].dtype)
    function = getattr(forms, operation)
    if form == "onednn":
        return channels_last(function(*given, geometry, form))
    try:
        return function(*given, geometry, form)
    except (RuntimeError, NotImplementedError) as error:
        if "memory" in str(error).lower():  # the batch is too large, whatever the form
            raise
        _dropped.add((form, operation, geometry, big))
        line = (str(error).splitlines() or [""])[0]
        warnings.warn(f"convolutions: form {form} of {operation} is dropped: {line}", stacklevel=2)
        return function(*given, geometry, "onednn")


def _size(x: Tensor) -> Pair:
    return x.shape[2], x.shape[3]


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, big: Tensor, w: Tensor, geometry: Geometry, chosen: Forms) -> Tensor:
        ctx.save_for_backward(big, w)
        ctx.rest = geometry, chosen
        return _run("down", chosen.down, _size(big), geometry, big, w)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        big, w = ctx.saved_tensors
        need = ctx.needs_input_grad
        dbig = _Up.apply(g, w, _size(big), *ctx.rest) if need[0] else None
        dw = _Weight.apply(big, g, *ctx.rest) if need[1] and weight_gradients() else None
        return dbig, dw, None, None


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, small: Tensor, w: Tensor, size: Pair, geometry: Geometry, chosen: Forms
    ) -> Tensor:
        ctx.save_for_backward(small, w)
        ctx.rest = geometry, chosen
        return _run("up", chosen.up, size, geometry, small, w, size)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        small, w = ctx.saved_tensors
        need = ctx.needs_input_grad
        dsmall = _Down.apply(g, w, *ctx.rest) if need[0] else None
        dw = _Weight.apply(g, small, *ctx.rest) if need[1] and weight_gradients() else None
        return dsmall, dw, None, None, None


class _Weight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, big: Tensor, small: Tensor, geometry: Geometry, chosen: Forms) -> Tensor:
        ctx.save_for_backward(big, small)
        ctx.rest = geometry, chosen
        return _run("weight", chosen.weight, _size(big), geometry, big, small)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        big, small = ctx.saved_tensors
        need = ctx.needs_input_grad
        dbig = _Up.apply(small, u, _size(big), *ctx.rest) if need[0] else None
        dsmall = _Down.apply(big, u, *ctx.rest) if need[1] else None
        return dbig, dsmall, None, None


def convolution(x: Tensor, w: Tensor, bias: Tensor | None, spec: ConvSpec, chosen: Forms) -> Tensor:
    """conv2d or conv_transpose2d of x (N, Ci, H, W) by the chosen forms; under autocast in its
    type.

    Result (N, Co, H', W') in x's type or autocast's, channels innermost. Differentiable to any
    order.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    x, w = low_weights.cast(x, dtype), low_weights.cast(w, dtype)
    geometry = Geometry(spec.kernel, spec.stride, spec.padding)
    with torch.autocast("cpu", enabled=False):
        if spec.transposed:
            y = _Up.apply(x, w, spec.output_size(*_size(x)), geometry, chosen)
        else:
            y = _Down.apply(x, w, geometry, chosen)
        return y if bias is None else y + bias.to(dtype)[:, None, None]
