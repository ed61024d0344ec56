"""Spectral norms that somebody wrote in a module of their own: a wrapper around a layer, or a
subclass of one, whose forward runs the power iteration.

The module's own forward runs wherever the kernels don't; what it was seen to do is its HomeMade.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from fastgan.ops.class_before import Before
from fastgan.ops.spectral.modules import HOME_MADE, State, kernels_take, normalised


@dataclass
class HomeMade:
    """What a home-made norm was seen to do in accelerate's probe, its tensors by their paths from
    its module; the holder of its sigma."""

    weight: str
    u: str
    v: str | None
    layer: str
    """Path of the layer that takes the weight: "" where the module is that layer."""
    name: str
    """The attribute of that layer which holds the divided weight."""
    dim: int
    iterations: int
    v_first: bool
    eval: str
    """In eval: "moves" u and v as in training, iterates on "copies", or "keeps" both."""
    settings: tuple[Any, ...] = ()
    """Numbers and flags that the module kept as it was probed; with others it may do otherwise."""
    eps: float = 1e-12

    def original(self, module: nn.Module) -> Tensor:
        """The parameter whose sigma this finds."""
        weight: Tensor = at(module, self.weight)
        return weight

    def state(self, module: nn.Module) -> State:
        """What the sigma of `module`'s weight is found from in the coming forward."""
        weight = self.original(module)
        u = at(module, self.u).detach().view(-1)
        columns = weight.numel() // weight.shape[self.dim]
        v = u.new_empty(columns) if self.v is None else at(module, self.v).detach().view(-1)
        iterations = self.iterations if module.training or self.eval != "keeps" else 0
        if not module.training and self.eval == "copies":
            u, v = u.clone(), v.clone()
        layer = module.get_submodule(self.layer)
        return State(layer, weight, u, v, iterations, self.eps, self.v_first, self.dim)

    def fits(self, module: nn.Module) -> bool:
        """Whether `module` still is what was probed: a norm may be removed or set otherwise at any
        time."""
        try:
            layer = module.get_submodule(self.layer)
            for path in (self.weight, self.u, self.v):
                if path is not None:
                    at(module, path)
        except AttributeError:
            return False
        free = not self.layer or self.name not in layer._parameters
        return free and settings(module) == self.settings


def settings(module: nn.Module) -> tuple[Any, ...]:
    """The plain numbers, flags and words among the attributes of `module` and its parts."""
    return tuple(
        (key, value)
        for part in module.modules()
        for key, value in part.__dict__.items()
        if isinstance(value, (bool, int, float, str)) and key != "training"
    )


class Swapped(Before):
    """What accelerate puts before the class of a module whose own forward is a spectral norm and a
    layer. Named apart from whatever that class names."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        holder: HomeMade = self.__dict__[HOME_MADE]
        plain = bool(holder.layer) or (len(args) == 1 and not kwargs)
        if not plain or not holder.fits(self) or not kernels_take(holder.original(self)):
            return super().forward(*args, **kwargs)
        layer, weight, u, v, iterations, _, v_first, _ = holder.state(self)
        ready = normalised(holder, weight, u, v, iterations, v_first)
        if not holder.layer:
            return layer_with(layer, ready, args[0])
        setattr(layer, holder.name, ready)
        return layer(*args, **kwargs)


def at(module: nn.Module, path: str) -> Any:
    """The tensor or module at `path`; AttributeError where there is none."""
    inside, _, name = path.rpartition(".")
    return getattr(module.get_submodule(inside), name)


def layer_with(layer: Any, weight: Tensor, x: Tensor) -> Tensor:
    """PyTorch's forward of a convolution (transposed without `output_size`), linear layer or
    embedding, with this weight."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, layer.bias)
    if isinstance(layer, _ConvTransposeNd):
        function = getattr(F, f"conv_transpose{len(layer.kernel_size)}d")
        spread = (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
        out: Tensor = function(x, weight, layer.bias, *spread)
    else:
        out = layer._conv_forward(x, weight, layer.bias)
    return out
