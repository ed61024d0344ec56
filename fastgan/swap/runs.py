"""Runs of layer -> norm -> activation inside an nn.Sequential, as one call each.

The container keeps its children: their classes, parameters, buffers and keys. It keeps a plan beside them, made of positions and
types alone (so that it survives deepcopy and holds nothing alive), and on each call asks whether the children are still those it
was made for; a run with a hook, or anything unforeseen, goes child by child as nn.Sequential does.

An activation joins a run only behind the layer that made its input. Nobody else can hold that tensor, so writing over it is
invisible; an in-place activation at the start of a container alters somebody's tensor (pix2pix's skip) and stays what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as _module

from fastgan.nn.fused import Edge, FusedConvSequential, Segment, segments
from fastgan.nn.norm import INSTANCE_NORMS, kernels_take
from fastgan.ops.dispatch import transformed

ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "silu",
}
"""Activation modules that may end a run, and their names in the ops' table."""


def activate_fresh(x: Tensor, activation: nn.Module) -> Tensor:
    """The activation of a tensor that nobody else holds: written over it where its derivative needs the result alone."""
    kind = type(activation)
    if x.dim() == 3:  # may be a view (a linear layer over sequences, an unbatched image), whose in-place backward copies
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
        return norm.forward(x, ACTIVATIONS[type(activation)], getattr(activation, "negative_slope", 0.0))
    x = norm.forward(x)
    if isinstance(norm, INSTANCE_NORMS):  # returns a view: see activate_fresh
        return activation.forward(x)
    return activate_fresh(x, activation)


def norm_alone(x: Tensor, norm: nn.Module) -> Tensor:
    return norm.forward(x)


class Step(NamedTuple):
    """Children start..stop-1 of a container: a layer or none, then `finish(x, *rest)`; one by one where `finish` is None."""

    finish: Any
    start: int
    stop: int
    layer: bool = False


class Plan(NamedTuple):
    """What a container does with children of these types. `with_kernels`: the same where a kernel may be had, chains of plain
    convolutions being segments of fastgan.nn.fused, whose tuning table decides who applies a normalisation.
    """

    types: tuple[type[nn.Module], ...]
    steps: tuple[Step, ...]
    with_kernels: tuple[Step | Segment, ...] = ()

    @property
    def runs(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.finish is not None)


def make_steps(types: tuple[type[nn.Module], ...], is_layer: tuple[bool, ...], is_norm: tuple[bool, ...]) -> tuple[Step, ...]:
    """The longest runs from left to right. `is_layer`: a convolution or linear layer, whose output nobody else holds;
    `is_norm`: one of our normalisations.
    """
    count = len(types)
    steps: list[Step] = []
    at = 0
    while at < count:
        layer = is_layer[at]
        norm_at = at + layer
        norm = norm_at < count and is_norm[norm_at]
        act_at = norm_at + norm
        act = act_at < count and act_at > at and types[act_at] in ACTIVATIONS
        finish = (norm_act if act else norm_alone if layer else None) if norm else (activate_fresh if act else None)
        stop = at + 1 if finish is None else act_at + act
        if finish is None and steps and steps[-1].finish is None:
            steps[-1] = Step(None, steps[-1].start, stop)
        else:
            steps.append(Step(finish, at, stop, finish is not None and layer))
        at = stop
    return tuple(steps)


def make_plan(
    children: Sequence[nn.Module], kinds: Sequence[type[nn.Module] | None], layers: Sequence[bool], norms: Sequence[bool]
) -> Plan:
    """The plan of `children`.

    `kinds`: their classes, None where one may not take part in a run; `layers`, `norms` as in make_steps.
    """
    types = tuple(nn.Module if kind is None else kind for kind in kinds)
    # fastgan.nn.fused goes by exact classes: stand-ins show it our norms, and hide what may not take part.
    shown = [
        _NORM
        if norm and issubclass(kind, nn.BatchNorm2d) and child.activation is None
        else child
        if layer or kind in ACTIVATIONS or _resamples(kind)
        else _OTHER
        for child, kind, layer, norm in zip(children, types, layers, norms)
    ]
    mixed: list[Step | Segment] = []
    items = segments(shown)
    at = 0
    while at < len(items):
        item = items[at]
        if isinstance(item, Segment):
            mixed.append(item)
            at += 1
            continue
        end = at
        while end < len(items) and not isinstance(items[end], Segment):
            end += 1
        stop = item + end - at
        steps = make_steps(types[item:stop], tuple(layers[item:stop]), tuple(norms[item:stop]))
        mixed += [step._replace(start=step.start + item, stop=step.stop + item) for step in steps]
        at = end
    return Plan(tuple(type(child) for child in children), make_steps(types, tuple(layers), tuple(norms)), tuple(mixed))


_NORM, _OTHER = nn.BatchNorm2d(1), nn.Identity()


def _resamples(kind: type[nn.Module]) -> bool:
    return kind in (nn.Upsample, nn.UpsamplingNearest2d, nn.AvgPool2d)


def why_no_run(container: nn.Sequential, plan: Plan, step: Step) -> str | None:
    """What makes the container take this run's children one by one at this moment, or None.

    The reasons of FusedSequential.forward, in words.
    """
    names, children = list(container._modules), list(container._modules.values())
    if tuple(type(child) for child in children) != plan.types:
        return "the container's children were changed: call accelerate again"
    if _module._has_any_global_hook():
        return "a global module hook is registered"
    for at in range(step.start, step.stop):
        child = children[at]
        hooks = child._forward_hooks or child._backward_hooks or child._backward_pre_hooks
        if hooks or (child._forward_pre_hooks and (at > step.start or not step.layer)):
            return f"a hook on child {names[at]}"
        if "forward" in child.__dict__:
            return f"the forward of child {names[at]} was replaced"
    return None


def _take(x: Any, steps: Sequence[Step], children: tuple[nn.Module, ...]) -> Any:
    for finish, start, stop, layer in steps:
        part = children[start:stop]
        if finish is not None and isinstance(x, Tensor):
            first = layer
            for child in part:
                if child._forward_hooks or child._backward_hooks or child._backward_pre_hooks or "forward" in child.__dict__:
                    break
                if child._forward_pre_hooks and not first:
                    break
                first = False
            else:
                if layer:  # here and not in `finish`, so that the layer's input may go before the norm needs memory
                    opens = part[0]
                    # a layer keeps its pre-hooks (the older spectral norm is one): only with one is Module.__call__ paid for
                    x = opens(x) if opens._forward_pre_hooks else opens.forward(x)
                    x = finish(x, *part[1:])
                else:
                    x = finish(x, *part)
                continue
        for child in part:
            x = child(x)
    return x


def _all_plain(children: tuple[nn.Module, ...], item: Segment) -> bool:
    return all(FusedConvSequential._is_plain(child) for child in children[item.start : item.stop])


class FusedSequential(FusedConvSequential):
    """nn.Sequential that takes its runs of layer -> norm -> activation in one call each. Made by accelerate, never by hand."""

    _fastgan_plan: Any = None  # kept in the instance's __dict__ once made; slices and sums of containers have none

    def forward(self, input: Any) -> Any:
        plan = self._fastgan_plan
        children = tuple(self._modules.values())
        if plan is None or tuple([type(child) for child in children]) != plan.types or _module._has_any_global_hook():
            return nn.Sequential.forward(self, input)
        with_kernels = isinstance(input, Tensor) and input.dim() == 4 and kernels_take(input)
        if with_kernels and (torch.compiler.is_compiling() or not transformed()):
            return self._with_kernels(input, children, plan.with_kernels)
        return _take(input, plan.steps, children)

    def _with_kernels(self, x: Any, children: tuple[nn.Module, ...], items: tuple[Step | Segment, ...]) -> Any:
        pending: Any = None
        edges: list[Edge] = []
        for i, item in enumerate(items):
            if isinstance(item, Step):
                x = _take(x, (item,), children)
            elif not isinstance(x, Tensor) or x.dim() != 4 or not _all_plain(children, item):
                x = _take(x, (Step(None, item.start, item.stop),), children)
            else:
                after = items[i + 1] if i + 1 < len(items) else None
                takes = after is not None and not isinstance(after, Step) and _all_plain(children, after)
                x, pending = self._segment(x, list(children), item, after.conv if takes else -1, pending, edges)  # type: ignore[union-attr]
        if not torch.compiler.is_compiling():
            self.__dict__["_edges"] = edges
        return x

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Classes made for subclasses of nn.Sequential have no importable name: copy and save by the original's.
        original = self.__dict__.get("_fastgan_original")
        if original is None or original is nn.Sequential:
            return super().__reduce_ex__(protocol)
        return _rebuild, (original,), *super().__reduce_ex__(protocol)[2:]


_FUSED: dict[type, type[FusedSequential]] = {nn.Sequential: FusedSequential}


def fused_class(original: type[nn.Sequential]) -> type[FusedSequential]:
    """FusedSequential, or for a subclass of nn.Sequential that keeps its forward, a subclass of both under its name."""
    if original not in _FUSED:
        names = {"__module__": original.__module__, "__qualname__": original.__qualname__}
        _FUSED[original] = type(original.__name__, (FusedSequential, original), names)
    return _FUSED[original]


def _rebuild(original: type[nn.Sequential]) -> nn.Sequential:
    made = fused_class(original)
    return made.__new__(made)
