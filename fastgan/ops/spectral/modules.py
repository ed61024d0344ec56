"""Both spectral norms of PyTorch, with every weight of a network divided by its sigma together at
the start of its forward: 2 n + 2 launches, and under autocast in the type that its layer takes it.

The layers keep their forward, their parameters and their buffers; only the object that divides the
weight by sigma changes class. It takes the weight that waits for it, once; a layer called a second
time, or outside such a forward, divides its own, as PyTorch iterates once per use. Which layers a
forward calls is taken from the one before: a layer that was called in it and isn't any more has
iterated once too often, which only sharpens u and v.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm as _Hook

from fastgan.errors import FastganError
from fastgan.kernels.common import INTERPRET
from fastgan.ops.dispatch import transformed
from fastgan.ops.norm.modules import current_groups
from fastgan.ops.spectral.weights import spectral_weights

WAITING = "_fastgan_weight"
USES = "_fastgan_uses"
LAST = "_fastgan_last"
HOME_MADE = "_fastgan_home_made"
CASTING = (_ConvNd, nn.Linear)
"""Layers whose weight autocast casts."""


def kernels_take(weight: Tensor) -> bool:
    """Whether the kernels may find this weight's sigma; PyTorch's own formula does under
    torch.func, which refuses to see u and v written. Raises FastganError under grouped().
    """
    if current_groups() != 1:
        raise FastganError(
            "a spectral norm has one sigma a forward: call the accelerated network once per batch, "
            "not under grouped()"
        )
    fits = (weight.is_cuda or INTERPRET) and weight.dim() > 1 and weight.dtype == torch.float32
    return fits and not torch.compiler.is_compiling() and not transformed()


class Last:
    """The weight a layer was handed last, which activation checkpointing needs again in backward; a
    copy has none."""

    def __init__(self, weight: Tensor | None = None) -> None:
        self.weight = weight

    def __reduce__(self) -> Any:
        return Last, ()


def recomputing() -> bool:
    """Whether a forward runs inside a backward, as activation checkpointing has it: it must save
    what the first one saved."""
    return torch._C._current_graph_task_id() != -1


def layers_type(layer: nn.Module, weight: Tensor) -> torch.dtype:
    """The type in which this layer's forward takes its weight: autocast's where PyTorch's
    convolutions and linear layers run under it, else the weight's own."""
    kind = weight.device.type
    if not torch.is_autocast_enabled(kind) or not isinstance(layer, CASTING):
        return weight.dtype
    owner = type(layer).forward.__module__.partition(".")[0]
    return torch.get_autocast_dtype(kind) if owner in ("torch", "fastgan") else weight.dtype


def normalised(
    holder: Any, weight: Tensor, u: Tensor, v: Tensor, iterations: int, v_first: bool
) -> Tensor:
    """weight / sigma: what waits in `holder`, or found now."""
    holder.__dict__[USES] = holder.__dict__.get(USES, 0) + 1
    ready = holder.__dict__.pop(WAITING, None)
    if ready is None and recomputing() and LAST in holder.__dict__:
        ready = holder.__dict__[LAST].weight
    else:
        holder.__dict__.pop(LAST, None)
    if ready is not None:
        kind = weight.device.type
        low = ready.dtype != weight.dtype
        fits = not low or (
            torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == ready.dtype
        )
        wanted = weight.requires_grad and torch.is_grad_enabled()
        if fits and (ready.requires_grad or not wanted):
            if torch.is_grad_enabled():
                holder.__dict__[LAST] = Last(ready)
            return ready
        iterations = 0  # not as it is wanted here: u and v have moved already
    return spectral_weights(
        [weight],
        [u],
        [v],
        [holder.dim % weight.dim()],
        n_power_iterations=iterations,
        eps=holder.eps,
        v_first=v_first,
    )[0]


class State(NamedTuple):
    """What one norm's sigma is found from; u and v move in place where `iterations` > 0."""

    layer: nn.Module  # that takes the divided weight
    weight: Tensor
    u: Tensor
    v: Tensor
    iterations: int
    eps: float
    v_first: bool
    dim: int


class SpectralNorm(_SpectralNorm):
    """The parametrization of torch.nn.utils.parametrizations.spectral_norm."""

    def state(self, layer: Any) -> State:
        """What the sigma of `layer`'s weight is found from in the coming forward."""
        weight = self.original(layer)
        iterations = self.n_power_iterations if self.training else 0
        dim = self.dim % weight.dim()
        return State(layer, weight, self._u, self._v, iterations, self.eps, False, dim)

    def original(self, layer: Any) -> Tensor:
        """The parameter whose sigma this finds."""
        weight: Tensor = layer.parametrizations.weight.original
        return weight

    def forward(self, weight: Tensor) -> Tensor:
        if not kernels_take(weight):
            return super().forward(weight)
        return normalised(
            self, weight, self._u, self._v, self.n_power_iterations if self.training else 0, False
        )


class SpectralNormHook(_Hook):
    """The forward pre-hook of torch.nn.utils.spectral_norm."""

    def state(self, layer: Any) -> State:
        """What the sigma of `layer`'s weight is found from in the coming forward."""
        weight = self.original(layer)
        u, v = getattr(layer, self.name + "_u"), getattr(layer, self.name + "_v")
        iterations = self.n_power_iterations if layer.training else 0
        return State(layer, weight, u, v, iterations, self.eps, True, self.dim % weight.dim())

    def original(self, layer: Any) -> Tensor:
        """The parameter whose sigma this finds."""
        weight: Tensor = getattr(layer, self.name + "_orig")
        return weight

    def compute_weight(self, module: nn.Module, do_power_iteration: bool) -> Tensor:
        weight: Any = getattr(module, self.name + "_orig")
        if not kernels_take(weight):
            return super().compute_weight(module, do_power_iteration)
        u, v = getattr(module, self.name + "_u"), getattr(module, self.name + "_v")
        return normalised(
            self, weight, u, v, self.n_power_iterations if do_power_iteration else 0, True
        )


class Sigmas:
    """Spectral norms that one forward uses, refreshed together by hooks on its module.

    Which of `holders` (each a layer and its SpectralNorm or SpectralNormHook) that forward calls,
    it learns from the forward before: in the first each finds its own. Holds no closures: a
    deepcopy has its own.
    """

    def __init__(self, network: nn.Module, holders: list[tuple[nn.Module, Any]]) -> None:
        self.holders = holders
        self.called = [False] * len(holders)
        self.given: list[bool] = []  # of which of them this one found sigma for the last forward
        self.uses: list[int] | None = None  # how often each was used before the forward under way
        network.register_forward_pre_hook(self.before)
        network.register_forward_hook(self.after, always_call=True)

    def before(self, network: nn.Module, inputs: Any) -> None:
        self.uses = None
        if torch.compiler.is_compiling() or getattr(network, "_is_replica", False):
            return
        if not all(
            holder_of(layer) is holder for layer, holder in self.holders
        ):  # a norm was removed meanwhile
            kept = [
                i for i, (layer, holder) in enumerate(self.holders) if holder_of(layer) is holder
            ]
            self.holders, self.called = (
                [self.holders[i] for i in kept],
                [self.called[i] for i in kept],
            )
            self.given = []
        weights = [holder.original(layer) for layer, holder in self.holders]
        if not all(kernels_take(weight) for weight in weights):
            return
        if not recomputing():
            self.uses = [holder.__dict__.get(USES, 0) for _, holder in self.holders]
            self.given = [
                called and WAITING not in h.__dict__
                for called, (_, h) in zip(self.called, self.holders)
            ]
        batches: dict[tuple[int, float, bool, torch.dtype], list[Any]] = {}
        for (layer, holder), mine in zip(self.holders, self.given):
            if not mine:
                continue
            state = holder.state(layer)
            dtype = layers_type(state.layer, state.weight)
            key = (state.iterations, state.eps, state.v_first, dtype)
            batches.setdefault(key, []).append((holder, state.weight, state.u, state.v, state.dim))
        for (iterations, eps, v_first, dtype), some in batches.items():
            takers, matrices, us, vs, dims = zip(*some)
            options: Any = {"n_power_iterations": iterations, "eps": eps, "v_first": v_first}
            ready = spectral_weights(matrices, us, vs, dims, **options, dtype=dtype)
            for holder, one in zip(takers, ready):
                holder.__dict__[WAITING] = one

    def after(self, network: nn.Module, inputs: Any, output: Any) -> None:
        if self.uses is None or torch.compiler.is_compiling():
            return
        self.called = [
            holder.__dict__.get(USES, 0) > uses
            for (_, holder), uses in zip(self.holders, self.uses)
        ]
        self.uses = None
        for _, holder in self.holders:
            holder.__dict__.pop(WAITING, None)


def attach(network: nn.Module, holders: list[tuple[nn.Module, Any]]) -> None:
    """A Sigmas for these holders on every module whose forward may be the one that uses several of
    them.

    That is `network`, and where it only holds others (a generator beside a discriminator) those as
    well: the smallest part of it with all holders, and the smallest with those of each of its
        children. What has the right one already keeps it.
    """
    for module in places(network, holders):
        inside = {id(m) for m in module.modules()}
        mine = [(layer, holder) for layer, holder in holders if id(layer) in inside]
        hooks: Any = module._forward_pre_hooks.values()
        present = next((hook.__self__ for hook in hooks if is_ours(hook)), None)
        if present is None or [id(h) for _, h in present.holders] != [id(h) for _, h in mine]:
            detach(module)
            Sigmas(module, mine)


def places(network: nn.Module, holders: list[tuple[nn.Module, Any]]) -> list[nn.Module]:
    """The modules of :func:`attach`, each with two holders or more inside."""
    layers = {id(layer) for layer, _ in holders}

    def count(module: nn.Module) -> int:
        return len(layers & {id(m) for m in module.modules()})

    def parts(module: nn.Module) -> list[nn.Module]:
        """Its children with holders; those of a list in the list's place, which no one calls."""
        found = []
        for child in module.children():
            found += parts(child) if isinstance(child, (nn.ModuleList, nn.ModuleDict)) else [child]
        return [part for part in found if count(part)]

    def smallest(module: nn.Module) -> nn.Module:
        while len(inner := parts(module)) == 1 and count(inner[0]) > 1:
            module = inner[0]
        return module

    top = smallest(network)
    candidates = [network, top, *(smallest(part) for part in parts(top))]
    return [m for m in dict.fromkeys(candidates) if count(m) > 1]


def is_ours(hook: Any) -> bool:
    """Whether a module's hook belongs to a Sigmas."""
    return isinstance(getattr(hook, "__self__", None), Sigmas)


def detach(network: nn.Module) -> None:
    """Takes the hooks of a Sigmas off `network`."""
    for hooks in (network._forward_pre_hooks, network._forward_hooks):
        for key in [key for key, hook in hooks.items() if is_ours(hook)]:
            del hooks[key]
            network._forward_hooks_always_called.pop(key, None)


def holder_of(module: nn.Module) -> Any:
    """The object that holds a layer's spectral norm of its weight: a parametrization, a hook, what
    accelerate saw of a home-made one, or None."""
    if (own := module.__dict__.get(HOME_MADE)) is not None:
        return own if own.fits(module) else None
    if parametrize.is_parametrized(module, "weight"):
        first = module.parametrizations.weight[0]  # type: ignore[union-attr, index]
        return first if isinstance(first, _SpectralNorm) else None
    return next(
        (
            hook
            for hook in module._forward_pre_hooks.values()
            if isinstance(hook, _Hook) and hook.name == "weight"
        ),
        None,
    )
