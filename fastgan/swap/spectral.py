"""Both spectral norms of PyTorch, with every sigma of a network found together at the start of its forward: 2 n + 1 launches.

The layers keep their forward, their parameters and their buffers; only the object that divides the weight by sigma changes
class. It takes
the sigma that waits for it, once; a layer called a second time, or outside the network's forward, finds its own, as PyTorch
iterates once
per use. A layer that was not called in a forward is left out of the next (it has iterated once too often, which only sharpens
u and v).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm as _Hook

from fastgan.errors import FastganError
from fastgan.kernels._common import INTERPRET
from fastgan.nn.norm import current_groups
from fastgan.ops.spectral import spectral_sigma

WAITING = "_fastgan_sigma"
IDLE = "_fastgan_idle"


def kernels_take(weight: Tensor) -> bool:
    if current_groups() != 1:
        raise FastganError(
            "a spectral norm has one sigma a forward: call the accelerated network once per batch, not under grouped()"
        )
    return (
        (weight.is_cuda or INTERPRET) and weight.dim() > 1 and weight.dtype == torch.float32 and not torch.compiler.is_compiling()
    )


def _normalised(holder: Any, weight: Tensor, u: Tensor, v: Tensor, iterations: int, v_first: bool) -> Tensor:
    """weight / sigma, by the sigma that waits in `holder` or by one found now."""
    sigma = holder.__dict__.pop(WAITING, None)
    if sigma is None:
        holder.__dict__.pop(IDLE, None)
    elif sigma.requires_grad or not (weight.requires_grad and torch.is_grad_enabled()):
        return weight / sigma
    else:  # found under no_grad, wanted with a gradient: u and v have moved already
        iterations = 0
    dim = holder.dim % weight.dim()
    return (
        weight / spectral_sigma([weight], [u], [v], [dim], n_power_iterations=iterations, eps=holder.eps, v_first=v_first)[0, 0]
    )


class SpectralNorm(_SpectralNorm):
    """The parametrization of torch.nn.utils.parametrizations.spectral_norm."""

    def forward(self, weight: Tensor) -> Tensor:
        if not kernels_take(weight):
            return super().forward(weight)
        return _normalised(self, weight, self._u, self._v, self.n_power_iterations if self.training else 0, False)


class SpectralNormHook(_Hook):
    """The forward pre-hook of torch.nn.utils.spectral_norm."""

    def compute_weight(self, module: nn.Module, do_power_iteration: bool) -> Tensor:
        weight: Any = getattr(module, self.name + "_orig")
        if not kernels_take(weight):
            return super().compute_weight(module, do_power_iteration)
        u, v = getattr(module, self.name + "_u"), getattr(module, self.name + "_v")
        return _normalised(self, weight, u, v, self.n_power_iterations if do_power_iteration else 0, True)


class Sigmas:
    """The swapped spectral norms of one network, refreshed together by hooks on it. Holds no closures: a deepcopy has its own."""

    def __init__(self, network: nn.Module, holders: list[tuple[nn.Module, Any]]) -> None:
        self.holders = holders  # (layer, its SpectralNorm or SpectralNormHook)
        network.register_forward_pre_hook(self.before)
        network.register_forward_hook(self.after, always_call=True)

    def before(self, network: nn.Module, inputs: Any) -> None:
        if torch.compiler.is_compiling() or getattr(network, "_is_replica", False):
            return
        batches: dict[tuple[int, float, bool], list[Any]] = {}
        layer: Any
        for layer, holder in self.holders:
            if WAITING in holder.__dict__ or IDLE in holder.__dict__:
                continue
            if isinstance(holder, SpectralNorm):
                weight, u, v = layer.parametrizations.weight.original, holder._u, holder._v
                training, hook = holder.training, False
            else:
                weight, u, v = (getattr(layer, holder.name + end) for end in ("_orig", "_u", "_v"))
                training, hook = layer.training, True
            if not kernels_take(weight):
                return
            key = (holder.n_power_iterations if training else 0, holder.eps, hook)
            batches.setdefault(key, []).append((holder, weight, u, v, holder.dim % weight.dim()))
        for (iterations, eps, hook), some in batches.items():
            takers, weights, us, vs, dims = zip(*some)
            sigma = spectral_sigma(weights, us, vs, dims, n_power_iterations=iterations, eps=eps, v_first=hook)
            for holder, one in zip(takers, sigma[0].unbind()):
                holder.__dict__[WAITING] = one

    def after(self, network: nn.Module, inputs: Any, output: Any) -> None:
        if not torch.compiler.is_compiling():
            for _, holder in self.holders:
                if holder.__dict__.pop(WAITING, None) is not None:
                    holder.__dict__[IDLE] = True


HOLDERS = (SpectralNorm, SpectralNormHook)


def attach(network: nn.Module, holders: list[tuple[nn.Module, Any]]) -> None:
    """One Sigmas on `network` for these holders; a single one gains nothing by it.

    The present one stays where it has the same.
    """
    present = next((hook.__self__ for hook in network._forward_pre_hooks.values() if is_ours(hook)), None)  # type: ignore[attr-defined]
    if present is None or [id(h) for _, h in present.holders] != [id(h) for _, h in holders]:
        detach(network)
        if len(holders) > 1:
            Sigmas(network, holders)


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
    """The object that holds a layer's spectral norm of its weight: a parametrization, a hook, or None."""
    if parametrize.is_parametrized(module, "weight"):
        first = module.parametrizations.weight[0]  # type: ignore[union-attr, index]
        return first if isinstance(first, _SpectralNorm) else None
    return next((hook for hook in module._forward_pre_hooks.values() if isinstance(hook, _Hook) and hook.name == "weight"), None)
