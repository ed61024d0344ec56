"""The one list of operators. An op registered here brings its proof (``fastgan verify``), its
compile report (``--aot``), its benchmark and its test.

A family's cases (``fastgan/verify/cases/norm.py``) ends with ``register(Op(...))`` calls;
:func:`load` imports every family. Nothing here needs a GPU or Triton. How to add an op, with a
worked example: docs/verification.md.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fastgan.errors import FastganError

Kwargs = dict[str, Any]
Outputs = dict[str, Tensor]

FAMILIES: tuple[str, ...] = (
    "norm",
    "spectral",
    "loss",
    "adam",
    "average",
    "random",
    "images",
    "augment",
    "resample",
    "bias",
    "conv",
    "conv_forms",
)
"""Modules under fastgan.verify.cases that register ops. A missing one is an error: an op that
silently vanished would pass every check."""

TAGS = frozenset({"quick", "full", "layer", "huge", "gradcheck"})
DIRECTIONS = ("forward", "backward", "double")
DTYPES = ("fp32", "tf32", "fp16", "bf16")
ENGINES = ("reference", "cudnn", "gemm", "triton", "cpu")


@dataclass(frozen=True)
class Case:
    """One sample call.

    ``make(dtype, device, generator)`` returns the keyword arguments of both ``Op.fn`` and
    ``Op.reference``. ``generator`` lives on the CPU: draw there, then ``.to(device)``, so that a
    case has the same numbers everywhere. ``dtype`` is the activation type; statistics, weights'
    masters and the like stay fp32 as in real use. Tensors of any other type (indices, uint8 images,
    device scalars), and
    Python values, pass to gold unchanged.

    Tags: ``quick`` (a few hundred elements, adversarial shape: interpreter, every commit),
    ``full``, ``layer`` (a real network's layer; GPU only), ``huge`` (addresses beyond 2^31; GPU
    only, forward only unless ``directions`` says more), ``gradcheck`` (tiny: the float64 reference
    goes through gradcheck and gradgradcheck).
    """

    name: str
    make: Callable[[torch.dtype, torch.device, torch.Generator], Kwargs]
    tags: frozenset[str] | set[str] = frozenset({"full"})
    dtypes: tuple[str, ...] | None = None  # narrower than the op's
    directions: tuple[str, ...] | None = None
    engines: tuple[str, ...] | None = None
    shared: tuple[
        str, ...
    ] = ()  # inputs too large to copy, guard or convert: passed as they are, never written

    def __post_init__(self) -> None:
        if unknown := set(self.tags) - TAGS:
            raise ValueError(f"case {self.name}: unknown tags {sorted(unknown)}")


@dataclass(frozen=True)
class Mask:
    """How a piecewise-linear activation is judged by the kernel's own mask: near zero, rounding
    decides the sign, and a gradient there is 0 or g.

    ``observed(kwargs, outputs)`` recovers from a forward run (named outputs) the boolean mask the
    kernel used, True where p > 0. ``preactivation(kwargs64)`` returns float64 (p, |x*s| + |t|). A
    mask may differ from p > 0 only where |p| < 8 eps (|x*s| +
    |t|); such places are counted in the report. ``Op.reference`` takes the mask as keyword
    ``argument`` (None: use its own).
    """

    observed: Callable[[Kwargs, Outputs], Tensor]
    preactivation: Callable[[Kwargs], tuple[Tensor, Tensor]]
    argument: str = "mask"


@dataclass(frozen=True)
class Bound:
    """An exception to fastgan/verify/bounds.py for one output; every one is printed in the summary
    with its reason. None keeps the general bound.
    """

    reason: str
    l2: float | None = None  # relative L2 error
    ratio: float | None = None  # times max(PyTorch's own error in that type, eps/4)
    peak: float | None = None  # max |error| / max |reference|


@dataclass(frozen=True)
class Variant:
    """One compiled form of a kernel, for ahead-of-time compilation without a GPU.

    ``signature``: runtime arguments in order, Triton's spelling (``"*bf16"``, ``"i32"``,
    ``"fp32"``; a tuple of those for a tuple argument). ``constexprs``: those fixed in this form.
    ``configs``: what the launcher may choose, e.g. ``{"BLOCK": 1024, "num_warps": 4, "num_stages":
    2}``; num_warps and num_stages are launch options, the rest constexprs (or the launcher's own,
    where the kernel has no such argument).
    ``aligned``: arguments specialised as divisible by 16; None means every pointer, as from
        PyTorch's allocator.
    ``tuned``: the name under which the launcher asks :mod:`fastgan.kernels.tuning`; committed
        entries are then compiled too.
    ``least``: the lowest compute capability that it is for, such as 90.
    """

    name: str
    kernel: Any
    signature: Mapping[str, Any]
    constexprs: Mapping[str, Any] = field(default_factory=dict)
    configs: Sequence[Mapping[str, Any]] = ({"num_warps": 4, "num_stages": 2},)
    aligned: Sequence[str] | None = None
    needs_tensor_cores: bool = False
    tuned: str | None = None
    least: int = 0


@dataclass(frozen=True)
class Op:
    """One registered operator.

    ``fn(**kwargs, impl=engine)`` and ``reference(**kwargs)`` return a tensor, a tuple, a NamedTuple
    or a dict of tensors, in the same structure. The reference is plain PyTorch, runs in float64,
    and is differentiable as often as the op is; it must share no code with the kernel.

    Attributes:
        grad_inputs: Names of kwargs differentiated against.
        mutates: Names of kwargs that the call updates in place (running statistics, u and v,
            optimiser buffers). Both sides get clones, and the values afterwards are compared as
            outputs named ``name'``.
        outputs: Names for a bare tuple.
        rounds: The kernel rounds intermediates that gold must round too. The reference then takes
            ``round_to`` (a dtype or None) and applies :func:`rounded` at those places.
        uses_dot: Has tl.dot, so bf16 cannot be shown in the interpreter.
        derived: Outputs that the contract defines by others as stored (the moments of y), as
            ``f(kwargs, outputs)`` of float64 outputs. Gold for them is made of the engine's own
            outputs, and PyTorch's error of PyTorch's, so that neither shows how a convolution
            library rounds.
        bounds: Exceptions, keyed ``"output"`` or ``"direction:output"`` (gradients are named
            ``d<input>``).
        bytes, flops: Functions of (kwargs, direction): the least traffic and work that an ideal
            kernel needs, for the roofline.
        kernels: A function that gives the AOT variants, lazily, so that import needs no Triton.
        candidates: Tuning name -> configurations that ``fastgan tune`` tries.
        eager: What users would write in PyTorch, if the reference is not it.
    """

    name: str
    fn: Callable[..., Any]
    reference: Callable[..., Any]
    cases: Sequence[Case]
    engines: tuple[str, ...] = ("triton", "reference")
    grad_inputs: tuple[str, ...] = ()
    mutates: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    directions: tuple[str, ...] = ("forward",)
    dtypes: tuple[str, ...] = ("fp32", "fp16", "bf16")
    rounds: bool = False
    uses_dot: bool = False
    mask: Mask | None = None
    derived: Mapping[str, Callable[[Kwargs, Outputs], Tensor]] = field(default_factory=dict)
    bounds: Mapping[str, Bound] = field(default_factory=dict)
    bytes: Callable[[Kwargs, str], int] | None = None
    flops: Callable[[Kwargs, str], int] | None = None
    kernels: Callable[[], Sequence[Variant]] | None = None
    candidates: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    eager: Callable[..., Any] | None = None

    @property
    def family(self) -> str:
        """norm, conv, ...: the file or folder of fastgan.ops that its function lies in, or ""."""
        return self.fn.__module__.partition("fastgan.ops.")[2].partition(".")[0]

    def __post_init__(self) -> None:
        mine = (self.engines, self.directions, self.dtypes)
        for what, given, known in zip(
            ("engines", "directions", "dtypes"), mine, (ENGINES, DIRECTIONS, DTYPES)
        ):
            if unknown := set(given) - set(known):
                raise ValueError(f"op {self.name}: unknown {what} {sorted(unknown)}")
        names = [case.name for case in self.cases]
        if len(set(names)) != len(names):
            raise ValueError(f"op {self.name}: case names repeat")
        if set(self.directions) - {"forward"} and not self.grad_inputs:
            raise ValueError(f"op {self.name}: backward needs grad_inputs")


_OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Adds ``op``; raises ValueError on a second op of the same name."""
    if op.name in _OPS:
        raise ValueError(f"op {op.name!r} is registered twice")
    _OPS[op.name] = op
    return op


def extend(name: str, *cases: Case) -> None:
    """Gives a registered op more cases; ValueError if one's name is taken, KeyError for an unknown
    op."""
    _OPS[name] = replace(_OPS[name], cases=[*_OPS[name].cases, *cases])


def load(families: Sequence[str] | None = None) -> dict[str, Op]:
    """Imports the families (default: all of :data:`FAMILIES`; a dotted name is a module of your
    own) and returns every registered op by name. ImportError if a family is missing.
    """
    for family in FAMILIES if families is None else families:
        importlib.import_module(family if "." in family else f"fastgan.verify.cases.{family}")
    return dict(_OPS)


def ops(*names: str) -> list[Op]:
    """The registered ops in order of registration, or those named, a family's name standing for its
    ops; FastganError names an unknown one. Call :func:`load` first."""
    families = dict.fromkeys(op.family for op in _OPS.values() if op.family not in ("", *_OPS))
    if unknown := [name for name in names if name not in _OPS and name not in families]:
        raise FastganError(
            f"no op named {unknown[0]!r}: choose from "
            f"{', '.join(_OPS) or 'none (nothing registered)'}"
            f"{'; all of a family: ' if families else ''}{', '.join(families)}"
        )
    wanted = {name for name in names if name in _OPS}
    wanted |= {op.name for op in _OPS.values() if op.family in families and op.family in names}
    return [op for op in _OPS.values() if not names or op.name in wanted]


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, forward_to: torch.dtype | None, grad_to: torch.dtype | None
    ) -> Tensor:
        ctx.dtypes = (forward_to, grad_to)
        return x.clone() if forward_to is None else x.to(forward_to).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        forward_to, grad_to = ctx.dtypes
        return (g if grad_to is None else _Rounded.apply(g, grad_to, forward_to)), None, None


def rounded(x: Tensor, dtype: torch.dtype | None, grad: torch.dtype | None = None) -> Tensor:
    """x rounded through ``dtype`` where a kernel stores or feeds it in that type, kept in x's own
    type; the gradient passes, rounded through ``grad``.

    For references of ops with ``rounds=True``: ``z = rounded(activation(x * s + t), round_to)``.
    None leaves that way alone. Differentiable to any order.
    """
    if dtype is None and grad is None:
        return x
    return _Rounded.apply(x, dtype, grad)
