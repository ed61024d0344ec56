"""The table of what may be swapped for what, and every reason to leave a module as it is.

A row is an exact class: a subclass somebody else wrote may have changed anything. To teach
`accelerate` a module, add its row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.spectral_norm import SpectralNorm as SpectralNormHook

from fastgan.kernels.activations import ACTIVATIONS as TABLE
from fastgan.kernels.activations import Activation
from fastgan.ops import resample
from fastgan.ops.conv.repeated import Repeated
from fastgan.ops.norm import modules as norms
from fastgan.ops.spectral import modules as spectral

FAMILIES = ("conv", "norm", "resample", "spectral")


@dataclass(frozen=True)
class Pattern:
    """Instances of exactly `original` become `replacement` by class assignment.

    `replacement` None: PyTorch's own is kept, and fuses.
    """

    family: str
    original: type
    replacement: type | None


PATTERNS: tuple[Pattern, ...] = (
    Pattern("norm", nn.BatchNorm1d, norms.BatchNorm1d),
    Pattern("norm", nn.BatchNorm2d, norms.BatchNorm2d),
    Pattern("norm", nn.BatchNorm3d, norms.BatchNorm3d),
    Pattern("norm", nn.InstanceNorm1d, norms.InstanceNorm1d),
    Pattern("norm", nn.InstanceNorm2d, norms.InstanceNorm2d),
    Pattern("norm", nn.InstanceNorm3d, norms.InstanceNorm3d),
    Pattern("resample", nn.Upsample, resample.Upsample),
    Pattern("resample", nn.AvgPool2d, resample.AvgPool2d),
    Pattern("spectral", parametrizations._SpectralNorm, spectral.SpectralNorm),
    Pattern("spectral", SpectralNormHook, spectral.SpectralNormHook),
    Pattern("conv", nn.Conv2d, None),
    Pattern("conv", nn.ConvTranspose2d, None),
)
BY_CLASS: dict[type, Pattern] = {p.original: p for p in PATTERNS} | {
    p.replacement: p for p in PATTERNS if p.replacement is not None
}

LAYERS: tuple[type[nn.Module], ...] = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)
"""Layers that may open a run: their output is new, and their backward does not need it."""

ACTIVATIONS: dict[type[nn.Module], Activation] = {
    a.module: a for a in TABLE.values() if a.module is not None
}
"""Activation modules that may end a run."""

FUNCTIONS: dict[Any, str] = {form: a.name for a in TABLE.values() for form in a.forms}
"""Activations as a forward may call them: functions, and names of methods."""


def activation_of(module: nn.Module) -> tuple[str, float]:
    """(name, slope) of a module whose class is in ACTIVATIONS."""
    activation = ACTIVATIONS[type(module)]
    return activation.name, float(
        getattr(module, activation.parameter)
    ) if activation.parameter else 0.01


RELATIVES: tuple[type[nn.Module], ...] = (_ConvNd, _NormBase, nn.GroupNorm, nn.LayerNorm)
"""What a reader of the report expects to find there, in the table or not."""


class Tree:
    """A module with what is shared inside it: the facts that one module alone cannot tell."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        owners = Counter(
            id(p) for module in root.modules() for p in module._parameters.values() if p is not None
        )
        self.shared = {key for key, count in owners.items() if count > 1}

    def walk(self) -> Iterator[tuple[str, nn.Module]]:
        return self.root.named_modules()


def plain_class(module: nn.Module) -> type[nn.Module]:
    """The module's class without the one that parametrization put over it."""
    return parametrize.type_before_parametrizations(module)


def why_unknown(module: nn.Module) -> str:
    """Why a relative of the table's classes is not in the table."""
    if isinstance(module, LazyModuleMixin):
        return "not initialised yet (lazy): run it once, then accelerate"
    base = next((p.original for p in PATTERNS if isinstance(module, p.original)), None)
    return (
        f"a subclass of {base.__name__}, which may have changed anything"
        if base
        else "not in the table of patterns"
    )


def why_left(module: nn.Module, tree: Tree) -> str | None:
    """Why a module whose class is in the table is left nevertheless: one line, or None."""
    for name, value in module._parameters.items():
        if id(value) in tree.shared:
            return f"its {name} is shared with another module"
    if isinstance(module, nn.Upsample) and not resample.doubles(module):
        return "no kernel for this upsampling: nearest, by 2, has one"
    if isinstance(module, nn.AvgPool2d) and not resample.halves(module):
        return "no kernel for this pooling: 2x2 without padding has one"
    if "forward" in module.__dict__:
        return "its forward was replaced on the instance"
    if any(not spectral.is_ours(hook) for hook in module._forward_hooks.values()):
        return "it has a forward hook"
    if any(
        not (isinstance(hook, SpectralNormHook) or spectral.is_ours(hook))
        for hook in module._forward_pre_hooks.values()
    ):
        return "it has a forward pre-hook"
    if module._backward_hooks or module._backward_pre_hooks:
        return "it has a backward hook"
    if parametrize.is_parametrized(module):
        for name, chain in module.parametrizations.items():  # type: ignore[union-attr, operator]
            for part in chain:
                if not isinstance(part, (parametrizations._SpectralNorm, Repeated)):
                    return f"its {name} is parametrized by {type(part).__name__}"
    return None
