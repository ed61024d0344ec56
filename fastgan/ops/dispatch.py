"""Which engine runs a call: ``impl = "auto" | "reference" | "cudnn" | "gemm" | "triton"``.

``auto`` never fails: it takes the tuning table's engine where that covers the call, otherwise the
next in the op's order of preference, and remembers why (:func:`why`). A named engine that cannot
run the call raises one line. A decision is made once per (op, impl, device, dtype, facts) and is a
dictionary lookup afterwards: no device query, no table search.

    _choose = Dispatcher("batch_norm", ("triton", "cudnn", "reference"), unsupported)

    # a reason, or None where the engine covers the call
    def unsupported(engine: str, dtype: torch.dtype, *facts) -> str | None:
        channels_last, = facts
        return None if engine != "triton" or channels_last else "needs channels_last"

    engine = _choose(impl, x, x.is_contiguous(memory_format=torch.channels_last))
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import forward_ad

from fastgan.errors import FastganError
from fastgan.kernels import toolchain, tuning
from fastgan.kernels.common import DTYPE_NAMES, INTERPRET, has_triton

IMPLS = ("auto", "reference", "cudnn", "gemm", "triton")

_override: str | None = os.environ.get("FASTGAN_IMPL") or None
if _override not in (None, *IMPLS):
    raise FastganError(f"FASTGAN_IMPL={_override}: choose one of {', '.join(IMPLS)}")


def pytorch_at_once(impl: str, x: torch.Tensor) -> bool:
    """Whether a call takes PyTorch before any engine is asked: ``auto`` on a CPU tensor outside the
    interpreter, or under a torch.func transform or a forward-mode derivative, which no kernel
    knows.
    """
    if impl != "auto" or _override not in (None, "auto"):
        return False
    if x.is_cpu and not INTERPRET:
        return True
    return not torch.compiler.is_compiling() and transformed()


def transformed() -> bool:
    """Whether torch.func transforms or forward-mode derivatives are under way."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def batched(gradient: torch.Tensor | None) -> bool:
    """Whether a backward is asked for many gradients at once, by torch.func or by
    `is_grads_batched=True`: no kernel takes those.
    """
    if torch.compiler.is_compiling() or gradient is None:
        return False
    return transformed() or torch._C._functorch.is_legacy_batchedtensor(gradient)


def plain(*tensors: torch.Tensor | None) -> bool:
    """Whether the cheap eager path may run: no tracing, no dispatch mode, no torch.func transform,
    no tensor subclass."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() or transformed():
        return False
    return all(
        t is None or type(t) is torch.Tensor or type(t) is torch.nn.Parameter for t in tensors
    )


def eager(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """``function.apply`` for `plain` arguments: without the look for torch.func, which is half of
    its host time."""
    return super(torch.autograd.Function, function).apply  # type: ignore[misc]


@dataclass(frozen=True)
class Decision:
    """The engine a call got, and what each engine tried before it lacked."""

    op: str
    engine: str
    skipped: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        reasons = "; ".join(f"{engine}: {reason}" for engine, reason in self.skipped)
        return f"{self.op}: {self.engine}" + (f" ({reasons})" if reasons else "")


def constant(function: Callable[..., Any]) -> Callable[..., Any]:
    """What torch.compiler.assume_constant_result does, without importing all of torch.compile, for
    three seconds: torch's own mark, which a test compares."""
    vars(function)["_dynamo_marked_constant"] = True
    return function


@functools.cache
@constant  # a tracer would follow the look for a C compiler down to the file system
def missing(engine: str, device: torch.device) -> str | None:
    """Why ``engine`` cannot run anything on ``device``, or None. Asked of the driver once per
    device."""
    if engine in ("reference", "gemm"):
        return None
    if engine == "cpu":
        return None if device.type == "cpu" else f"forms for a CPU, not for a {device.type} tensor"
    if engine == "cudnn":
        return (
            None
            if device.type == "cuda" and torch.backends.cudnn.is_available()
            else f"no cuDNN for a {device.type} tensor"
        )
    if not has_triton:
        return "Triton is not installed"
    if INTERPRET and device.type != "cpu":
        return "the interpreter (TRITON_INTERPRET=1) takes CPU tensors"
    if not INTERPRET and (device.type != "cuda" or torch.version.hip):
        return (
            f"no Triton kernels for a {device.type} tensor: they need an NVIDIA GPU, or "
            "TRITON_INTERPRET=1 for CPU tensors"
        )
    if reason := toolchain.lacking():
        return reason
    return None if INTERPRET else toolchain.too_old(*torch.cuda.get_device_capability(device))


class Dispatcher:
    """The choice for one op. ``engines`` in order of preference, ``reference`` last;
    ``unsupported`` sees only hashable facts, so decisions can be kept.
    """

    def __init__(
        self,
        op: str,
        engines: tuple[str, ...],
        unsupported: Callable[..., str | None] | None = None,
    ) -> None:
        self.op = op
        self.engines = engines
        self.unsupported = unsupported
        self.last: Decision | None = None
        self.last_shape: tuple[tuple[str, int], ...] | None = None
        self._kept: dict[Hashable, Decision] = {}
        DISPATCHERS[op] = self

    def forget(self) -> None:
        """Decide anew, where what engines can do has changed."""
        self._kept.clear()

    def __call__(
        self,
        impl: str,
        x: torch.Tensor,
        *facts: Hashable,
        shape: tuple[tuple[str, int], ...] | None = None,
    ) -> str:
        """The engine for a call on ``x``. ``shape`` (named sizes, e.g. ``(("c", 64), ("rows",
        4096))``) lets the tuning table choose the engine.
        """
        if _override is not None and impl == "auto":
            impl = _override if _override in self.engines else "auto"
        device = x.device
        away = x.is_cuda and device.index != torch.cuda.current_device()
        key = (impl, device, x.dtype, facts, shape, away)
        decision = self._kept.get(key)
        if decision is None:
            decision = self._kept[key] = self._decide(impl, device, x.dtype, facts, shape, away)
        self.last = decision
        self.last_shape = shape
        return decision.engine

    def _decide(
        self,
        impl: str,
        device: torch.device,
        dtype: torch.dtype,
        facts: tuple[Hashable, ...],
        shape: tuple[tuple[str, int], ...] | None,
        away: bool,
    ) -> Decision:
        if impl not in IMPLS:
            raise FastganError(f'impl="{impl}" for {self.op}: choose one of {", ".join(IMPLS)}')
        if impl != "auto":
            if impl not in self.engines:
                raise FastganError(
                    f'{self.op} has no engine "{impl}": choose one of auto, '
                    f"{', '.join(self.engines)}"
                )
            if reason := self._reason(impl, device, dtype, facts, away):
                raise FastganError(
                    f'{self.op} cannot run with impl="{impl}": {reason}; use impl="auto"'
                )
            return Decision(self.op, impl)
        order = list(self.engines)
        chosen = (
            tuning.engine(self.op, DTYPE_NAMES.get(dtype, str(dtype)), dict(shape), device)
            if shape is not None
            else None
        )
        if chosen in order:
            order.remove(chosen)
            order.insert(0, chosen)
        skipped: list[tuple[str, str]] = []
        for engine in order:
            reason = self._reason(engine, device, dtype, facts, away)
            if reason is None:
                return Decision(self.op, engine, tuple(skipped))
            skipped.append((engine, reason))
        return Decision(self.op, "reference", tuple(skipped))

    def _reason(
        self,
        engine: str,
        device: torch.device,
        dtype: torch.dtype,
        facts: tuple[Hashable, ...],
        away: bool,
    ) -> str | None:
        if reason := missing(engine, device):
            return reason
        if away and engine == "triton":  # it launches on the current device, whatever the tensors
            return (
                f"the tensor is on {device}, another GPU is current: "
                f"torch.cuda.set_device({device.index})"
            )
        return self.unsupported(engine, dtype, *facts) if self.unsupported else None


DISPATCHERS: dict[str, Dispatcher] = {}
"""Every op's, by name, as their modules are imported."""


def why(op: str | None = None) -> str:
    """One line for the last decision of ``op``, or of every op called so far: the engine, and what
    the ones before it lacked."""
    if op is not None and op not in DISPATCHERS:
        raise FastganError(
            f"no op named {op!r}: choose from "
            f"{', '.join(sorted(DISPATCHERS)) or 'none (no ops imported)'}"
        )
    chosen = [DISPATCHERS[op]] if op else list(DISPATCHERS.values())
    return "\n".join(str(d.last) for d in chosen if d.last) or "not called yet"


@contextlib.contextmanager
def prefer(impl: str) -> Iterator[None]:
    """Within the block, ops called with impl="auto" use ``impl`` where they have it (and raise if
    it cannot run the call); "auto" changes nothing. FASTGAN_IMPL does so for a process.
    """
    global _override
    if impl not in IMPLS:
        raise FastganError(f'impl="{impl}": choose one of {", ".join(IMPLS)}')
    before = _override
    if impl != "auto":
        _override = impl
    try:
        yield
    finally:
        _override = before
