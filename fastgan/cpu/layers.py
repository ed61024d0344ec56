"""The convolutions of networks: found while they run, and given their forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any

from torch import Tensor, nn

from fastgan.kernels.conv.spec import ConvSpec, Pair
from fastgan.ops.conv.formed import PYTORCH, Forms, convolution
from fastgan.ops.conv.forms import Geometry

FORMS = "_fastgan_forms"


@dataclass(frozen=True)
class Operation:
    """One of the three operations of a convolution at one size: name, images, channels of the small
    and of the large side, the large side's pixels."""

    name: str
    images: int
    small: int
    large: int
    size: Pair
    geometry: Geometry

    def key(self, type_name: str) -> str:
        """The name under which a table keeps its times."""
        g = self.geometry
        pairs = (self.size, g.kernel, g.stride, g.padding)
        sizes = " ".join(f"{a}x{b}" for a, b in pairs)
        return f"{self.name} {type_name} {self.images} {self.small}x{self.large} {sizes}"

    @property
    def flops(self) -> int:
        height, width = self.geometry.small(*self.size)
        taps = self.geometry.kernel[0] * self.geometry.kernel[1]
        return 2 * self.images * height * width * taps * self.small * self.large


@dataclass(frozen=True)
class Layer:
    """A convolution of a network as it was called: its operations, the forward first."""

    net: str
    path: str
    operations: tuple[Operation, ...]

    def forms(self, chosen: Callable[[Operation], str]) -> Forms:
        return Forms(**{operation.name: chosen(operation) for operation in self.operations})


def spec_of(module: nn.Module) -> ConvSpec | None:
    """What a convolution is, where it can be given forms: PyTorch's own forward, dense, padded with
    zeros."""
    kind = type(module)
    transposed = kind.forward is nn.ConvTranspose2d.forward
    if kind.forward is not nn.Conv2d.forward and not transposed:
        return None
    own = module.__dict__.get("forward")
    if own is not None and getattr(own, "__func__", None) is not _forward:
        return None
    c: Any = module
    if c.groups != 1 or set(c.dilation) != {1} or c.padding_mode != "zeros":
        return None
    if isinstance(c.padding, str):
        return None
    extra = tuple(c.output_padding) if transposed else (0, 0)
    return ConvSpec(transposed, tuple(c.kernel_size), tuple(c.stride), tuple(c.padding), extra)


def convolutions(nets: Mapping[str, nn.Module]) -> Iterator[tuple[str, str, nn.Module, ConvSpec]]:
    for name, net in nets.items():
        for path, module in net.named_modules():
            if (spec := spec_of(module)) is not None:
                yield name, path, module, spec


class Look:
    """Inside, the convolutions of these networks, and of copies made of them, are seen as they are
    called.

        with Look(nets) as look:
            objective's losses on a batch of 4
        look.layers(64 / 4)
    """

    def __init__(self, nets: Mapping[str, nn.Module]) -> None:
        self._nets = nets
        self._seen: dict[tuple[str, str], tuple[ConvSpec, tuple[int, ...], tuple[int, ...], bool]]
        self._seen = {}

    def __enter__(self) -> Look:
        # hooks are copied with a network, and the function of a hook stays the same
        self._hooks = [
            module.register_forward_hook(self._note(name, path, spec))
            for name, path, module, spec in convolutions(self._nets)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _note(self, name: str, path: str, spec: ConvSpec) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...], result: object) -> None:
            x = given[0] if given else None
            if isinstance(x, Tensor) and isinstance(result, Tensor) and x.dim() == 4:
                before = self._seen.get((name, path))
                differentiated = x.requires_grad or (before is not None and before[3])
                shapes = tuple(x.shape), tuple(result.shape)
                self._seen[name, path] = (spec, *shapes, differentiated)

        return hook

    def layers(self, times: float = 1.0) -> list[Layer]:
        """What was seen, of `times` as many images."""
        found = []
        for (name, path), (spec, x, y, differentiated) in self._seen.items():
            big, small = (y, x) if spec.transposed else (x, y)
            geometry = Geometry(spec.kernel, spec.stride, spec.padding)
            images = max(1, round(x[0] * times))
            names = ["up", "down"] if spec.transposed else ["down", "up"]
            names = [names[0], *(names[1:] if differentiated else ()), "weight"]
            found.append(
                Layer(
                    name,
                    path,
                    tuple(
                        Operation(n, images, small[1], big[1], (big[2], big[3]), geometry)
                        for n in names
                    ),
                )
            )
        return found


def operations(layers: Sequence[Layer]) -> list[Operation]:
    """Every operation once: layers of two networks often mirror each other."""
    return list(dict.fromkeys(o for layer in layers for o in layer.operations))


def _forward(module: Any, input: Tensor, output_size: list[int] | None = None) -> Tensor:
    """nn.Conv2d's and nn.ConvTranspose2d's forward by the module's forms."""
    spec, chosen = module.__dict__[FORMS]
    if input.dim() != 4 or not input.is_cpu or output_size is not None:
        extra = (output_size,) if output_size is not None else ()
        return type(module).forward(module, input, *extra)
    return convolution(input, module.weight, module.bias, spec, chosen)


def give(nets: Mapping[str, nn.Module], chosen: Mapping[str, Mapping[str, Forms]]) -> None:
    """Let the convolutions named, {network: {path: forms}}, run by their forms, and all others by
    PyTorch's own."""
    for name, path, module, spec in convolutions(nets):
        forms = chosen.get(name, {}).get(path, PYTORCH)
        if forms == PYTORCH:
            module.__dict__.pop("forward", None)
            module.__dict__.pop(FORMS, None)
        else:
            module.__dict__[FORMS] = spec, forms
            module.__dict__["forward"] = MethodType(_forward, module)
