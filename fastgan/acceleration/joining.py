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

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as _module
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode

from fastgan.acceleration.patterns import FUNCTIONS
from fastgan.errors import FastganError
from fastgan.kernels.activations import row
from fastgan.ops.dispatch import transformed
from fastgan.ops.norm.functional import batch_norm, instance_norm
from fastgan.ops.norm.modules import composed, current_groups, kernels_take

SITES = "_fastgan_sites"

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


# Norms that a class of one's own calls as functions.


class FunctionalNorms(TorchFunctionMode):
    """Within it F.batch_norm and F.instance_norm, called by `owner`'s own code, are sites of
    `owner`."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self.owner = owner

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm or func is F.instance_norm:
            frame = _caller()
            code, host = frame.f_code, frame.f_locals.get("self")
            # a norm of PyTorch's called by this forward is another module's affair, unless this
            # module is one itself
            if host is self.owner or not frame.f_globals.get("__name__", "").startswith("torch."):
                site = self.owner.__dict__[SITES].at(func.__name__, code.co_name, frame.f_lineno)
                return _functional(site, func, args, kwargs)
        return func(*args, **kwargs)


def _caller() -> Any:
    """The frame that called a function of torch.nn.functional which came here."""
    frame: Any = sys._getframe(2)
    while frame.f_globals.get("__name__") in (
        "torch.overrides",
        "torch.nn.functional",
        "torch.utils._device",
        __name__,
    ):
        frame = frame.f_back
    return frame


def _functional(site: Site, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    batch = func is F.batch_norm
    last = ("training",) if batch else ("use_input_stats",)
    names = ("input", "running_mean", "running_var", "weight", "bias", *last, "momentum", "eps")
    given: dict[str, Any] = {
        "running_mean": None,
        "running_var": None,
        "weight": None,
        "bias": None,
        last[0]: not batch,
    }
    given |= {"momentum": 0.1, "eps": 1e-5} | dict(zip(names, args)) | dict(kwargs)
    x = settled(given.pop("input"))
    given = {name: settled(value) for name, value in given.items()}
    weight, bias = given.pop("weight"), given.pop("bias")

    def run(
        x: Tensor,
        activation: str | None = None,
        slope: float = 0.01,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        move: bool = True,
    ) -> Tensor:
        w, b = composed(weight, bias, scale, shift)
        how = (
            given
            if move or not given[last[0]]
            else given | {"running_mean": None, "running_var": None}
        )
        if not kernels_take(x) and scale is None and shift is None and activation is None:
            with torch._C.DisableTorchFunction():
                return func(x, weight=w, bias=b, **how)
        return (batch_norm if batch else instance_norm)(
            x, weight=w, bias=b, activation=activation, slope=slope, **how
        )

    if current_groups() != 1 or given["momentum"] is None:
        return func(x, weight=weight, bias=bias, **given)
    return site.output(x, run, run)


class Sites(dict[tuple[str, str, int], Site]):
    """The sites of a module of one's own, by the function, and the code and line that calls it."""

    def __init__(self, path: str = "") -> None:
        super().__init__()
        self.path = path

    def at(self, function: str, code: str, line: int) -> Site:
        key = (function, code, line)
        if key not in self:
            self[key] = Site(self.path or "the module itself", f"F.{function}")
        return self[key]

    def __reduce__(self) -> Any:
        return Sites, (self.path,), None, None, iter(self.items())


class Joining(nn.Module):
    """What accelerate(rewrite=True) puts before the class of a module that calls norms as
    functions: the same forward, seen."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        sites = self.__dict__[SITES]
        known = bool(sites) and all(site.state != "new" for site in sites.values())
        tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
        idle = known and not any(kernels_take(v) for v in tensors if v.dim() > 1)
        idle = idle or bool(self._forward_hooks or self._backward_hooks or self._backward_pre_hooks)
        if not tensors or idle or torch.compiler.is_compiling() or transformed():
            return super().forward(*args, **kwargs)
        with FunctionalNorms(self):
            return super().forward(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild, (self.__dict__["_fastgan_original"],), *super().__reduce_ex__(protocol)[2:]


_JOINING: dict[type, type[nn.Module]] = {}


def joining_class(original: type[nn.Module]) -> type[nn.Module]:
    """A subclass of Joining and `original` under the original's name."""
    if original not in _JOINING:
        names = {"__module__": original.__module__, "__qualname__": original.__qualname__}
        _JOINING[original] = type(original.__name__, (Joining, original), names)
    return _JOINING[original]


def _rebuild(original: type[nn.Module]) -> nn.Module:
    made = joining_class(original)
    return made.__new__(made)


def calls_norms(module: nn.Module) -> bool:
    """Whether a module's own code names F.batch_norm or F.instance_norm, or it is a norm with a
    forward of its own."""
    kind = type(module)
    if (
        kind.__module__.startswith(("torch.", "fastgan."))
        or kind.__call__ is not nn.Module.__call__
    ):
        return False
    if "forward" in module.__dict__ or not hasattr(kind.forward, "__code__"):
        return False
    if isinstance(module, _NormBase):
        return kind.forward.__module__ == kind.__module__
    return _names_norms(kind.forward, kind, 3)


def _names_norms(function: Any, kind: type, depth: int) -> bool:
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    if {"batch_norm", "instance_norm"} & set(code.co_names):
        return True
    if depth == 0:
        return False
    helpers = [
        getattr(kind, name, None) or function.__globals__.get(name) for name in code.co_names
    ]
    own = [h for h in helpers if hasattr(h, "__code__") and not h.__module__.startswith("torch")]
    return any(_names_norms(helper, kind, depth - 1) for helper in own)
