"""Norm -> activation pairs that a forward calls apart: accelerate(rewrite=True) joins them while
the forward stays its author's.

A norm that an activation is known to follow returns a :class:`Pending`: a stand-in for its output
that has not been computed. The activation that takes it runs both in one kernel; a scale and a
shift on the way (conditional batch norm, AdaIN) are taken along; whatever else takes it first gets
the norm's plain output, and the place is left apart from then on, with one line. So control flow,
shared modules and functions called by any name need no rewriting, and what happens checks every
assumption.

What follows a norm is known from torch.fx where it can trace, else from the first forward, in which
the norm runs as ever and its output is watched. Without a kernel (a CPU, a transform,
torch.compile) nothing ever waits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import module as _module

from fastgan.acceleration.patterns import FUNCTIONS
from fastgan.errors import FastganError
from fastgan.kernels.activations import row
from fastgan.ops.dispatch import transformed
from fastgan.ops.norm.modules import composed, kernels_take

# Activations as calls on a tensor arrive: functions, and methods by name.
CALLS: dict[Any, str] = {
    f if callable(f) else getattr(Tensor, f): name for f, name in FUNCTIONS.items()
}
MULTIPLIES = {"mul", "multiply", "__mul__", "__rmul__"}
ADDS = {"add", "__add__", "__radd__"}
METADATA = {
    *(
        getattr(Tensor, name).__get__
        for name in ("shape", "dtype", "device", "is_cuda", "is_cpu", "ndim", "layout", "is_sparse")
    ),
    *(
        Tensor.size,
        Tensor.dim,
        Tensor.ndimension,
        Tensor.numel,
        Tensor.nelement,
        Tensor.get_device,
        Tensor.__len__,
    ),
    *(
        Tensor.is_floating_point,
        torch.is_floating_point,
        Tensor.is_complex,
        torch.is_complex,
        torch.numel,
    ),
}
"""What the norm's input answers for its output: a norm changes neither shape nor type."""


class Site:
    """One place in a network where a normalisation is called. `state`: "new", "joined" or "apart";
    plain strings, so that it survives deepcopy and saving.
    """

    def __init__(self, path: str, kind: str) -> None:
        self.path, self.kind = path, kind
        self.state, self.follows, self.why = (
            "new",
            "",
            "not called yet: the first forward tells what follows",
        )

    def saw(self, activation: str) -> None:
        if self.state == "new":
            if torch._C._autograd._top_saved_tensors_default_hooks(False) is None:
                self.state, self.follows, self.why = "joined", activation, ""
            else:
                self.part(
                    f"{activation} follows inside activation checkpointing, whose repetition must "
                    "save what was saved"
                )

    def expect(self, activation: str) -> None:
        """The activation that the code itself shows behind this place."""
        if self.state == "new":
            self.state, self.follows, self.why = "joined", activation, ""

    def saw_other(self, taker: str, waited: bool) -> None:
        if self.state == "joined" and waited:
            warnings.warn(
                f"{self.path} ({self.kind}): {taker} takes its output, not only {self.follows}: "
                "they run apart from now on",
                stacklevel=5,
            )
        if self.state != "apart":
            self.part(f"{taker} takes its output")

    def part(self, why: str) -> None:
        self.state, self.why = "apart", why

    def of_module(self, norm: Any, x: Tensor) -> Tensor:
        """The output of a norm of fastgan.ops.norm.modules, or what stands for it."""
        x = settled(x)
        if norm._forward_hooks or norm._backward_hooks or norm._backward_pre_hooks:
            return norm.run(x)
        return self.output(x, norm.run, norm.run)

    def output(
        self, x: Tensor, plain: Callable[[Tensor], Tensor], joined: Callable[..., Tensor]
    ) -> Tensor:
        if (
            self.state == "apart"
            or torch.compiler.is_compiling()
            or transformed()
            or _module._has_any_global_hook()
        ):
            return plain(x)
        if self.state == "joined":
            return Pending.of(Call(self, x, joined)) if kernels_take(x) else plain(x)
        call = Call(self, x, joined)
        call.value, call.waits = plain(x), False
        return Pending.of(call)


class Call:
    """One call of a normalisation: its input until somebody needs its output, then the output."""

    def __init__(
        self,
        site: Site,
        x: Tensor,
        run: Callable[..., Tensor],
        scale: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> None:
        self.site, self.x, self.run, self.scale, self.shift = site, x, run, scale, shift
        self.version, self.graph = x._version, torch.is_grad_enabled()
        self.value: Tensor | None = None
        self.waits = True  # the norm has not run yet, or had not when it was called
        self.origin = self  # the call before any scale and shift
        self.taken = self.ran = self.written = (
            False  # written: by an in-place activation, which everybody then sees
        )

    def compute(self, activation: str | None = None, slope: float = 0.01) -> Tensor:
        if self.x._version != self.version:
            raise FastganError(
                f"{self.site.path} ({self.site.kind}): its input was written over before its "
                "output was used: accelerate this "
                "network without rewrite=True"
            )
        move, self.origin.ran = not self.origin.ran, True  # running statistics move once a call
        with torch.set_grad_enabled(self.graph):
            return self.run(self.x, activation, slope, self.scale, self.shift, move)

    def get(self, taker: str) -> Tensor:
        """The output for anything but an activation."""
        if not self.written:
            self.site.saw_other(taker, self.waits)
        if self.value is None:
            self.value = self.compute()
        return self.value

    def activate(
        self, name: str, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor:
        if self.taken and not self.written:
            self.site.saw_other(f"{name}, a second time,", self.waits)
        elif not self.taken:
            self.site.saw(name)
        parameter = row(name).parameter or ""
        given = dict(zip((parameter, "inplace") if parameter else ("inplace",), args)) | dict(
            kwargs
        )
        in_place = bool(given.get("inplace")) or function.__name__.endswith("_")
        if self.value is None and torch.is_grad_enabled() != self.graph:
            self.value = self.compute()
        if self.value is not None:
            y = function(self.value, *args, **kwargs)
        else:
            y = self.compute(name, float(given.get(parameter, 0.01)))
        if in_place:
            self.value, self.written = y, True
        self.taken = True
        return y

    def scaled(
        self, function: Any, factor: Tensor, multiply: bool, swapped: bool
    ) -> Pending | None:
        """The call with one more factor or summand, where that is one number a channel, or a
        channel and sample."""
        if self.taken or (self.value is None and torch.is_grad_enabled() != self.graph):
            return None
        vector = self.vector(factor)
        if vector is None:
            return None
        scale, shift = composed(
            self.scale, self.shift, vector if multiply else None, None if multiply else vector
        )
        more = Call(self.site, self.x, self.run, scale, shift)
        more.version, more.graph, more.origin, more.waits = (
            self.version,
            self.graph,
            self.origin,
            self.waits,
        )
        if self.value is not None:
            more.value = function(factor, self.value) if swapped else function(self.value, factor)
        self.taken = True
        return Pending.of(more)

    def vector(self, v: Tensor) -> Tensor | None:
        """v as (C,) or (N, C), or None where the product would have another shape or type than the
        norm's output."""
        n, c = self.x.shape[:2]
        if (
            self.x.dim() < 3
            or torch.result_type(self.x, v) != self.x.dtype
            or v.device != self.x.device
        ):
            return None
        if v.dim() == self.x.dim() - 1:
            v = v[None]
        if (
            v.dim() != self.x.dim()
            or v.shape[1] != c
            or v.shape[0] not in (1, n)
            or v[0, 0].numel() != 1
        ):
            return None
        return v.reshape(v.shape[0], c) if v.shape[0] > 1 else v.reshape(c)


# Of no shape that could be mistaken for an output: what gets past __torch_function__ (an
# autograd.Function) fails at once.
_NOTHING = torch.empty(0, requires_grad=True)


class Pending(Tensor):
    """The output of a :class:`Call`, for as long as nobody looks at it."""

    call: Call

    @staticmethod
    def of(call: Call) -> Pending:
        made = (_NOTHING if call.value is None else call.value).as_subclass(Pending)
        made.call = call
        return made

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else None
        if isinstance(first, Pending):
            if func in METADATA:
                call = first.call
                return func(call.x if call.value is None else call.value, *args[1:], **kwargs)
            name = CALLS.get(func)
            if name is not None:
                return first.call.activate(name, func, tuple(args[1:]), kwargs)
        name = getattr(func, "__name__", "")
        if len(args) == 2 and not kwargs and (name in MULTIPLIES or name in ADDS):
            a, b = args
            one, other = (a, b) if isinstance(a, Pending) else (b, a)
            if isinstance(other, Tensor) and not isinstance(other, Pending):
                more = one.call.scaled(func, other, name in MULTIPLIES, one is b)
                if more is not None:
                    return more
        taker = name if name != "__get__" else "an attribute"
        return func(*_settle(args, taker), **_settle(kwargs, taker))


def _settle(value: Any, taker: str) -> Any:
    if isinstance(value, Pending):
        return value.call.get(taker)
    if isinstance(value, (list, tuple)):
        made = [_settle(v, taker) for v in value]
        return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
    return {k: _settle(v, taker) for k, v in value.items()} if isinstance(value, dict) else value


def settled(x: Any, taker: str = "a layer") -> Any:
    """x, or the plain tensor a Pending stands for."""
    return x.call.get(taker) if isinstance(x, Pending) else x
