"""Spectral norms of somebody's own making, told by what they do: a module with a weight and a
vector u, whose forward moves u by the power iteration and hands weight / sigma to one layer.

A copy in float64 with weights and vectors of the probe's own runs in training, without gradients
and in eval; what it does to all its tensors must be what one reading of the formula says.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm as _Hook
from torch.overrides import TorchFunctionMode

from fastgan.acceleration.patterns import LAYERS
from fastgan.ops.spectral.home_made import HomeMade, at, layer_with, settings
from fastgan.ops.spectral.reference import spectral_sigma_reference

U = re.compile(r"(^|_)u\d*$")
V = re.compile(r"(^|_)v\d*$")
CALLS = (
    F.conv1d,
    F.conv2d,
    F.conv3d,
    F.conv_transpose1d,
    F.conv_transpose2d,
    F.conv_transpose3d,
    F.linear,
)
REMEDY = (
    "write `from torch.nn.utils.parametrizations import spectral_norm` and "
    "`spectral_norm(nn.{layer}(...))` instead, and it is swapped"
)
BOUND = 1e-9
"""Relative, of the float64 probe: one more or less iteration moves sigma by 1e-3 and more."""


def look(module: nn.Module) -> HomeMade | str | None:
    """What a home-made spectral norm does, why it is left (one line), or None where `module` is no
    such thing."""
    found = _suspect(module)
    if found is None or isinstance(found, str):
        return found
    kind = _layer_class(module.get_submodule(found.layer)).__name__
    try:
        # the probe draws from a generator of its own, a forward that draws is put back
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            why: HomeMade | str = _Probe(module, found).settle()
    except Exception as error:
        # somebody else's forward, on a copy: whatever it raises, the module is left as it was
        why = f"a probe of it failed ({type(error).__name__})"
    if isinstance(why, HomeMade):
        return why
    return f"a spectral norm of its own class: {why}; {REMEDY.format(layer=kind)}"


def _layer_class(layer: nn.Module) -> type:
    return next(kind for kind in LAYERS if isinstance(layer, kind))


def _suspect(module: nn.Module) -> HomeMade | str | None:
    """Where weight, u, v and layer of a norm seem to be, by their names and sizes."""
    if isinstance(module, LAYERS) and (hook := _foreign_hook(module)) is not None:
        kind = _layer_class(module).__name__
        return f"a spectral norm by the hook {hook}, which is not PyTorch's; " + REMEDY.format(
            layer=kind
        )
    own = type(module).__module__.startswith(("torch.", "fastgan.ops", "fastgan.acceleration"))
    if own or type(module).__call__ is not nn.Module.__call__:
        return None
    layers = [(n, m) for n, m in module.named_children() if type(m) in LAYERS]
    if isinstance(module, LAYERS):
        path, layer = "", module
    elif len(layers) == 1 and len(list(module.children())) == 1:
        path, layer = layers[0]
    else:
        return None
    name = "weight"
    if path and name in layer._parameters:
        return None
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    weights = [k for k, p in tensors.items() if p.dim() > 1 and p.requires_grad]
    if len(weights) != 1:
        return None
    weight = tensors[weights[0]]
    sides = {weight.shape[d]: weight.numel() // weight.shape[d] for d in (0, 1)}
    held = {k: t for k, t in tensors.items() if not t.requires_grad and t.is_floating_point()}
    us = [k for k, t in held.items() if U.search(k.rpartition(".")[2]) and t.numel() in sides]
    if len(us) != 1:
        return None
    vs = [k for k in held if V.search(k.rpartition(".")[2]) and not k.endswith("sv")]
    return HomeMade(weights[0], us[0], vs[0] if len(vs) == 1 else None, path, name, 0, 1, True, "")


def _foreign_hook(module: nn.Module) -> str | None:
    """The class of a pre-hook that makes `weight` of a `weight_orig` and a `weight_u`, unless it is
    PyTorch's."""
    held = {*module._parameters, *module._buffers}
    if not {"weight_orig", "weight_u"} <= held:
        return None
    hooks = [h for h in module._forward_pre_hooks.values() if not isinstance(h, _Hook)]
    names = [getattr(h, "__name__", type(h).__name__) for h in hooks]
    return names[0] if names else None


@dataclass
class _Seen:
    """What one forward did."""

    given: Tensor  # the weight that the layer took
    out: Tensor
    plain: bool  # whether the forward returned what the layer made of it
    before: dict[str, Tensor] = field(repr=False)
    after: dict[str, Tensor] = field(repr=False)


class _Watch(TorchFunctionMode):
    """Keeps the weight of every call of a layer's function, and what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Any]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if func in CALLS:
            self.calls.append((kwargs["weight"] if "weight" in kwargs else args[1], made))
        return made


class _Probe:
    """A copy of a suspect, run and compared."""

    def __init__(self, module: nn.Module, shape: HomeMade) -> None:
        # the weight that the last forward left on its layer may have a graph, which no copy takes
        memo = {
            id(value): value.detach().clone()
            for part in module.modules()
            for value in part.__dict__.values()
            if isinstance(value, Tensor) and not value.is_leaf
        }
        self.twin = copy.deepcopy(module, memo).to("cpu", torch.float64)
        self.weight = at(self.twin, shape.weight).requires_grad_()
        self.random = torch.Generator().manual_seed(0)
        self.shape = replace(shape, settings=settings(self.twin))

    def _draw(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.random, dtype=torch.float64)

    def _tensors(self) -> dict[str, Tensor]:
        found = dict(self.twin.named_parameters()) | dict(self.twin.named_buffers())
        return {key: value.detach().clone() for key, value in found.items()}

    def _input(self) -> Tensor:
        layer: Any = self.twin.get_submodule(self.shape.layer)
        if isinstance(layer, nn.Linear):
            shape = [2, layer.in_features]
        else:
            sides = [k * d + 1 for k, d in zip(layer.kernel_size, layer.dilation)]
            shape = [2, layer.in_channels, *sides]
        return torch.randn(shape, generator=self.random, dtype=torch.float64)

    def run(self, training: bool, grad: bool = True, scale: float = 1.0) -> _Seen:
        """One forward from random weight (of this size), u and v."""
        self.twin.train(training)
        with torch.no_grad():
            for path in filter(None, (self.shape.weight, self.shape.u, self.shape.v)):
                tensor = at(self.twin, path)
                drawn = self._draw(tensor)
                weight = path == self.shape.weight
                tensor.copy_(scale * drawn if weight else drawn / drawn.norm())
        before, x = self._tensors(), self._input()
        with _Watch() as watch, torch.set_grad_enabled(grad):
            out = self.twin(x)
        if len(watch.calls) != 1 or watch.calls[0][0].shape != self.weight.shape:
            raise ValueError("not one layer of this weight")
        given, made = watch.calls[0]
        with torch.no_grad():
            layer = self.twin.get_submodule(self.shape.layer)
            plain = out is made and torch.equal(layer_with(layer, given, x), made)
        return _Seen(given, out, plain, before, self._tensors())

    def predicted(self, seen: _Seen, shape: HomeMade, moves: bool = True) -> bool:
        """Whether this reading of the formula says what was seen, all other tensors unchanged."""
        w = self.weight
        expected = dict(seen.before)
        u = seen.before[shape.u].flatten().clone()
        v = w.new_zeros(w.numel() // w.shape[shape.dim])
        if shape.v is not None:
            v = seen.before[shape.v].flatten().clone()
        if u.numel() != w.shape[shape.dim] or v.numel() * u.numel() != w.numel():
            return False
        sigma = spectral_sigma_reference(
            [w], [u], [v], [shape.dim], shape.iterations, shape.eps, shape.v_first
        )[0, 0]
        if moves:
            for path, vector in ((shape.u, u), (shape.v, v)):
                if path is not None:
                    expected[path] = vector.view(seen.before[path].shape)
        same = all(_close(seen.after[key], value) for key, value in expected.items())
        return (
            same and _close(seen.given.detach(), (w / sigma).detach()) and self._slope(seen, sigma)
        )

    def _slope(self, seen: _Seen, sigma: Tensor) -> bool:
        """Whether the gradient takes sigma along, with u and v constants."""
        if not seen.given.requires_grad:
            return not torch.is_grad_enabled()
        along = self._draw(self.weight)
        (theirs,) = torch.autograd.grad(seen.given, self.weight, along, retain_graph=True)
        (ours,) = torch.autograd.grad(self.weight / sigma, self.weight, along)
        return _close(theirs, ours)

    def settle(self) -> HomeMade | str:
        """A reading that fits all forwards, or why none does."""
        first = self.run(training=True)
        if not first.plain:
            return "its forward does more than its layer"
        # of one row alone every number of iterations is the same: the first that fits will do
        shape = next((s for s in _readings(self.shape) if self.predicted(first, s)), None)
        if shape is None:
            return "its forward in training is not PyTorch's power iteration and weight / sigma"
        small = self.run(training=True, scale=0.01)
        if not (small.plain and self.predicted(small, shape)):
            return "it does something else where sigma is below 1"
        with torch.no_grad():
            if not self.predicted(self.run(training=True, grad=False), shape):
                return "it does something else without gradients"
        rests = self.run(training=False, scale=0.01)
        still = replace(shape, iterations=0)
        for kind, reading, moves in (
            ("moves", shape, True),
            ("copies", shape, False),
            ("keeps", still, False),
        ):
            if (kind != "keeps" or shape.v is not None) and self.predicted(rests, reading, moves):
                shape = replace(shape, eval=kind)
        if not shape.eval:
            return "its forward in eval is not PyTorch's"
        if settings(self.twin) != shape.settings:
            return "its forward changes attributes"
        return shape


def _readings(shape: HomeMade) -> Iterator[HomeMade]:
    for dim in (0, 1):
        for iterations in (1, 2, 3):
            yield replace(shape, dim=dim, iterations=iterations, v_first=True)
            if shape.v is not None:
                yield replace(shape, dim=dim, iterations=iterations, v_first=False)


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).norm() <= BOUND * b.norm())
