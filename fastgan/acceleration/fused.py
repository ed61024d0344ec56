"""Runs of [upsample] -> layer -> [average pool] -> norm -> activation inside an nn.Sequential, as
one call each.

The container keeps its children: their classes, parameters, buffers and keys. It keeps a plan
beside them, made of positions and types alone (so that it survives deepcopy and holds nothing
alive), and on each call asks whether the children are still those it was made for; a run with a
hook, or anything unforeseen, goes child by child as nn.Sequential does. Where a kernel may be had,
runs that open with a plain 2-D convolution go by swap.edges, which may hand a normalisation on to
the next one.

An activation joins a run only behind the layer that made its input. Nobody else can hold that
tensor, so writing over it is invisible; an in-place activation at the start of a container alters
somebody's tensor (pix2pix's skip) and stays what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as _module

from fastgan.acceleration.edges import Edge, Handed, Run, advance, chains, foldable
from fastgan.acceleration.joining import settled
from fastgan.acceleration.patterns import ACTIVATIONS, activation_of
from fastgan.ops.class_before import Before
from fastgan.ops.dispatch import transformed
from fastgan.ops.norm.modules import INSTANCE_NORMS, kernels_take
from fastgan.ops.resample import doubles, halves


class FusionPlan(NamedTuple):
    """What a container does with children of these types, in order."""

    types: tuple[type[nn.Module], ...]
    runs: tuple[Run, ...]

    @property
    def joined(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.joins)


def make_plan(
    children: Sequence[nn.Module],
    free: Sequence[bool],
    layers: Sequence[bool],
    norms: Sequence[bool],
) -> FusionPlan:
    """The longest runs from left to right.

    `free`: whether a child may take part in a run at all. `layers`: whether it is a convolution or
    linear layer that may open one; `norms`: whether it is one of our normalisations.
    """
    count = len(children)
    runs: list[Run] = []
    at = 0
    while at < count:
        layer, norm, act, fold, end = -1, -1, -1, "", at
        if (
            at + 1 < count
            and free[at]
            and layers[at + 1]
            and doubles(children[at])
            and foldable(children[at + 1])
        ):
            layer, end, fold = at + 1, at + 2, "upsample"
        elif layers[at]:
            layer, end = at, at + 1
            if end < count and free[end] and halves(children[end]) and foldable(children[at]):
                end, fold = end + 1, "average"
        if end < count and norms[end]:
            norm, end = end, end + 1
        if at < end < count and free[end] and type(children[end]) in ACTIVATIONS:
            act, end = end, end + 1
        if layer >= 0 or act >= 0:
            runs.append(Run(at, end, layer, norm, act, fold))
        else:
            end = at + 1
            before = runs.pop() if runs and runs[-1].layer < 0 and runs[-1].act < 0 else Run(at, at)
            runs.append(Run(before.start, end))
        at = end
    return FusionPlan(tuple(type(child) for child in children), tuple(runs))


def why_all_apart(plan: FusionPlan, children: Sequence[nn.Module]) -> str | None:
    """Why a container runs all its children one by one at this moment, or None."""
    if tuple([type(child) for child in children]) != plan.types:
        return "the container's children were changed: call accelerate again"
    return "a global module hook is registered" if _module._has_any_global_hook() else None


def why_apart(run: Run, children: Sequence[nn.Module]) -> tuple[int, str] | None:
    """(the child, why its run goes one by one at this moment), or None. A layer keeps its
    pre-hooks: the older spectral norm is one.
    """
    for at in range(run.start, run.stop):
        child = children[at]
        hooks = child._forward_hooks or child._backward_hooks or child._backward_pre_hooks
        if hooks or (child._forward_pre_hooks and at != run.layer):
            return at, "a hook on child {}"
        if "forward" in child.__dict__:
            return at, "the forward of child {} was replaced"
    return None


def activate_fresh(x: Tensor, activation: nn.Module) -> Tensor:
    """The activation of a tensor that nobody else holds: written over it where its derivative needs
    the result alone."""
    kind = type(activation)
    if (
        x.dim() == 3
        # may be a view (a linear layer over sequences, an unbatched image), whose in-place backward
        # copies
    ):
        return activation.forward(x)
    if kind is nn.ReLU:
        return torch.relu_(x)
    if kind is nn.LeakyReLU and activation.negative_slope >= 0:  # type: ignore[operator]
        return F.leaky_relu_(x, activation.negative_slope)  # type: ignore[arg-type]
    if kind is nn.Tanh:
        return torch.tanh_(x)
    return activation.forward(x)


def norm_act(x: Tensor, norm: nn.Module, activation: nn.Module) -> Tensor:
    if norm.activation is not None:  # its own, whose backward may need the result
        return activation.forward(norm.forward(x))
    if kernels_take(x):
        return norm.forward(x, *activation_of(activation))
    x = norm.run(x)  # type: ignore[operator]
    if isinstance(norm, INSTANCE_NORMS):  # returns a view: see activate_fresh
        return activation.forward(x)
    return activate_fresh(x, activation)


def open_run(x: Tensor, run: Run, children: Sequence[nn.Module]) -> Tensor:
    """x through what stands before the norm and the activation of an undisturbed run."""
    for at in range(
        run.start, run.norm if run.norm >= 0 else run.act if run.act >= 0 else run.stop
    ):
        child = children[at]
        x = child(x) if child._forward_pre_hooks else child.forward(x)
    return x


def close_run(x: Tensor, run: Run, children: Sequence[nn.Module]) -> Tensor:
    """The norm and the activation of an undisturbed run."""
    if run.norm < 0:
        return x if run.act < 0 else activate_fresh(x, children[run.act])
    return (
        children[run.norm].forward(x)
        if run.act < 0
        else norm_act(x, children[run.norm], children[run.act])
    )


class FusedSequential(Before, nn.Sequential):
    """nn.Sequential that takes its runs of layer -> norm -> activation in one call each. Made by
    accelerate, never by hand.

    edge: one of swap.edges.EDGES for every edge of a chain of convolutions, on any device, or None
        for the tuning table's choice
    where kernels can be had. impl: engine of those convolutions.
    """

    edge: str | None = None
    impl: str = "auto"
    _fastgan_plan: Any = (
        None  # kept in the instance's __dict__ once made; slices and sums of containers have none
    )

    def report(self) -> list[Edge]:
        """The edges of the last forward call, in order; empty before one, and where no chain was
        taken."""
        return list(self.__dict__.get("_edges", ()))

    def forward(self, input: Any) -> Any:
        plan = self._fastgan_plan
        children = tuple(self._modules.values())
        if plan is None or why_all_apart(plan, children):
            self.__dict__.pop("_edges", None)
            return super().forward(input)
        # an activation that comes first takes a waiting norm along; nothing else here knows what to
        # do with one
        x: Any = input if children and type(children[0]) in ACTIVATIONS else settled(input)
        chained = (
            isinstance(x, Tensor) and x.dim() == 4 and (self.edge is not None or kernels_take(x))
        )
        chained = chained and (torch.compiler.is_compiling() or not transformed())
        handed: Handed | None = None
        edges: list[Edge] = []
        for i, run in enumerate(plan.runs):
            if (
                not isinstance(x, Tensor)
                or (run.layer < 0 and run.act < 0)
                or why_apart(run, children)
            ):
                for child in children[run.start : run.stop]:
                    x = child(x)
            elif chained and x.dim() == 4 and chains(children, run):
                after = plan.runs[i + 1] if i + 1 < len(plan.runs) else None
                takes = (
                    after is not None
                    and why_apart(after, children) is None
                    and chains(children, after)
                )
                x, handed, told = advance(x, children, run, handed, takes, self.edge, self.impl)
                if told is not None:
                    names = list(self._modules)
                    consumer = names[after.layer] if takes and after is not None else "the end"
                    edges.append(Edge(names[run.layer], consumer, *told))
            else:
                x = open_run(
                    x, run, children
                )  # the layer's input may go before the norm needs memory
                x = close_run(x, run, children)
            if (
                run.norm >= 0
                and run.act < 0
                and run.stop < len(children)
                and type(children[run.stop]) not in ACTIVATIONS
            ):
                x = settled(x, type(children[run.stop]).__name__)
        if chained and not torch.compiler.is_compiling():
            self.__dict__["_edges"] = edges
        return x
