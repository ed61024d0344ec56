"""Spectral norm of a whole network: one refresh of every sigma per forward, and layers that scale their output instead of
their weight.

Works on networks built with torch.nn.utils.parametrizations.spectral_norm or the older torch.nn.utils.spectral_norm, on their
own parameters
and buffers: state_dict, its keys and what other code reads from it stay PyTorch's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from fastgan.nn.norm import current_groups
from fastgan.ops.norm import affine_act
from fastgan.ops.spectral import spectral_sigma

__all__ = ["SpectralGroup", "attach_spectral_norm"]


def _convolution(module: Any, weight: Tensor, x: Tensor) -> Tensor:
    return module._conv_forward(x, weight, None)


def _transposed(module: Any, weight: Tensor, x: Tensor, output_size: list[int] | None = None) -> Tensor:
    spatial = len(module.kernel_size)
    padding = module._output_padding(x, output_size, module.stride, module.padding, module.kernel_size, spatial, module.dilation)
    run = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[spatial - 1]
    return run(x, weight, None, module.stride, module.padding, padding, module.groups, module.dilation)


def _linear(module: Any, weight: Tensor, x: Tensor) -> Tensor:
    return F.linear(x, weight)


def _embedding(module: Any, weight: Tensor, x: Tensor) -> Tensor:
    return F.embedding(x, weight, module.padding_idx, None, 2.0, module.scale_grad_by_freq, module.sparse)


BARE: dict[type, Callable[..., Tensor]] = {
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.ConvTranspose1d: _transposed,
    nn.ConvTranspose2d: _transposed,
    nn.ConvTranspose3d: _transposed,
    nn.Linear: _linear,
    nn.Embedding: _embedding,
}
"""Layer types whose output is linear in the weight, without their bias."""


@dataclass
class _Layer:
    """One spectral-normed layer, and its 1/sigma (groups,) while a forward is under way. Holds no closures, so that a deep
    copy of the network
    has its own.
    """

    module: Any
    kind: type
    hook: tuple[int, SpectralNorm] | None = None  # the older form, and its place among the layer's hooks
    fresh: list[Tensor] = field(default_factory=list)

    @property
    def norm(self) -> Any:
        """PyTorch's object that holds n_power_iterations, dim and eps."""
        return self.module.parametrizations.weight[0] if self.hook is None else self.hook[1]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """(weight, u, v), PyTorch's own."""
        if self.hook is None:
            return self.module.parametrizations.weight.original, self.norm._u, self.norm._v
        return self.module.weight_orig, self.module.weight_u, self.module.weight_v

    @property
    def iterations(self) -> int:
        """Power iterations of a forward now: none in eval."""
        training = self.norm.training if self.hook is None else self.module.training
        return self.norm.n_power_iterations if training else 0


def _find(module: Any) -> _Layer | str | None:
    """The layer's description, the reason why it stays PyTorch's, or None where it has no spectral norm."""
    lists = module.parametrizations if parametrize.is_parametrized(module) else {}
    mine = [p for name in lists for p in lists[name] if isinstance(p, _SpectralNorm)]
    hooks = [(key, h) for key, h in module._forward_pre_hooks.items() if isinstance(h, SpectralNorm)]
    if not mine and not hooks:
        return None
    if mine and hooks:
        return "it is spectral-normed twice"
    if mine and (list(lists) != ["weight"] or len(lists["weight"]) != 1):
        return "it has other parametrizations too"
    if hooks and (len(hooks) != 1 or hooks[0][1].name != "weight"):
        return "the norm is not of its weight alone"
    kind = parametrize.type_before_parametrizations(module)
    if kind not in BARE:
        return f"{kind.__name__} is not a convolution, linear layer or embedding"
    if kind is nn.Embedding and module.max_norm is not None:
        return "an embedding with max_norm rewrites its weight"
    if "forward" in vars(module):
        return "its forward was replaced by other code"
    return _Layer(module, kind, hooks[0] if hooks else None)


class SpectralGroup:
    """The spectral-normed layers of one network. Every forward of the network refreshes all sigmas together (2 n + 1
    launches); a layer used
    twice in it, or outside it, refreshes its own, as PyTorch iterates once per use. :meth:`detach` gives the network back as
    it was.
    """

    def __init__(self, network: nn.Module, impl: str = "auto") -> None:
        self.impl = impl
        self.left: dict[str, str] = {}
        """Layers that stay PyTorch's, and why."""
        self.layers: dict[str, _Layer] = {}
        for name, module in network.named_modules():
            found = _find(module)
            if isinstance(found, str):
                self.left[name] = found
            elif found is not None:
                self.layers[name] = found
        for layer in self.layers.values():
            if layer.hook is not None:
                del layer.module._forward_pre_hooks[layer.hook[0]]
            layer.module.forward = functools.partial(self._forward, layer)
        self._hooks = [
            network.register_forward_pre_hook(self._before),
            network.register_forward_hook(self._after, always_call=True),
        ]

    def detach(self) -> None:
        """Gives every layer back to PyTorch, with its buffers as they stand."""
        for hook in self._hooks:
            hook.remove()
        for layer in self.layers.values():
            del layer.module.forward
            if layer.hook is not None:
                hooks = layer.module._forward_pre_hooks
                key, norm = layer.hook
                restored = sorted(
                    [*hooks.items(), (key, norm)], key=lambda item: item[0]
                )  # ids grow in the order of registration
                hooks.clear()
                hooks.update(restored)
        self.layers = {}

    def refresh(self, layers: list[_Layer]) -> None:
        """1/sigma of `layers`, all that share settings in one go; iterates where a layer is in training."""
        batches: dict[tuple[Any, ...], list[_Layer]] = {}
        for layer in layers:
            batches.setdefault((layer.iterations, layer.norm.eps, layer.hook is not None), []).append(layer)
        for (iterations, eps, v_first), some in batches.items():
            weights, us, vs = zip(*(layer.tensors() for layer in some))
            dims = [layer.norm.dim % w.dim() for layer, w in zip(some, weights)]
            sigma = spectral_sigma(
                weights,
                us,
                vs,
                dims,
                n_power_iterations=iterations,
                eps=eps,
                v_first=v_first,
                groups=current_groups(),
                impl=self.impl,
            )
            for layer, scale in zip(some, sigma.reciprocal().unbind(1)):
                layer.fresh = [scale]

    def _before(self, *_: Any) -> None:
        self.refresh(list(self.layers.values()))

    def _after(self, *_: Any) -> None:
        for layer in self.layers.values():
            layer.fresh = []

    def _forward(self, layer: _Layer, x: Tensor, *args: Any) -> Tensor:
        if not layer.fresh:
            self.refresh([layer])
        scale = layer.fresh.pop()
        y = BARE[layer.kind](layer.module, layer.tensors()[0], x, *args)
        bias = None if layer.kind is nn.Embedding else layer.module.bias
        return scaled(y, scale, bias, layer.kind in (nn.Linear, nn.Embedding), self.impl)


def scaled(y: Tensor, scale: Tensor, bias: Tensor | None, channels_innermost: bool, impl: str = "auto") -> Tensor:
    """y scale + bias with scale (groups,) over equal parts of the batch and bias (C,); channels are dimension 1, or the last."""
    channels = y.shape[-1] if channels_innermost else y.shape[1]
    flat = y.reshape(-1, channels) if channels_innermost else y
    shift = None if bias is None else bias.expand(scale.shape[0], channels) if scale.shape[0] > 1 else bias
    vector = scale.expand(channels) if scale.shape[0] == 1 else scale[:, None].expand(-1, channels)
    return affine_act(flat, vector, shift, impl=impl).view(y.shape)


def attach_spectral_norm(network: nn.Module, impl: str = "auto") -> SpectralGroup:
    """Takes over the spectral norms of `network` (values, buffers, eval and state_dict as PyTorch's); `.left` says which stay,
    and why."""
    return SpectralGroup(network, impl)
