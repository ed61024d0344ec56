"""Norms that a class of one's own calls as functions: F.batch_norm and F.instance_norm as sites."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode

from fastgan.acceleration.joining import Site, settled
from fastgan.ops.class_before import Before
from fastgan.ops.dispatch import transformed
from fastgan.ops.norm.functional import batch_norm, instance_norm
from fastgan.ops.norm.modules import composed, current_groups, kernels_take

SITES = "_fastgan_sites"


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
        "fastgan.acceleration.joining",
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


class Joining(Before):
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
