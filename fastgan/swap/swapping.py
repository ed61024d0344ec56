"""accelerate and revert: classes are assigned, nothing is rebuilt.

Parameters, buffers, keys, hooks and children stay the objects they were.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn
from torch.nn.utils import parametrize

from fastgan.errors import FastganError
from fastgan.swap.patterns import BY_CLASS, FAMILIES, LAYERS, RELATIVES, Pattern, Tree, plain_class, why_left, why_unknown
from fastgan.swap.runs import FusedSequential, Plan, fused_class, make_plan

ORIGINAL = "_fastgan_original"
PLAN = "_fastgan_plan"

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Finding:
    """What the table says about one module.

    `status`: swapped (already), swap, keep (PyTorch's own, on purpose), left (with `why`).
    """

    path: str
    module: nn.Module
    status: str
    pattern: Pattern | None = None
    why: str = ""

    @property
    def kind(self) -> str:
        return plain_class(self.module).__name__


def survey(tree: Tree, families: frozenset[str]) -> list[Finding]:
    """One finding for each module of a known family, in the tree's order. Looks, changes nothing."""
    findings = []
    for path, module in tree.walk():
        kind = plain_class(module)
        pattern = BY_CLASS.get(kind)
        if ORIGINAL in module.__dict__ and not isinstance(module, nn.Sequential):
            findings.append(Finding(path, module, "swapped", pattern))
        elif pattern is not None:
            if pattern.family not in families:
                findings.append(Finding(path, module, "off", pattern))
            elif reason := why_left(module, tree):
                findings.append(Finding(path, module, "left", pattern, reason))
            else:
                swap = pattern.replacement is not None and kind is pattern.original
                findings.append(Finding(path, module, "swap" if swap else "keep", pattern))
        elif isinstance(module, RELATIVES):
            findings.append(Finding(path, module, "left", None, why_unknown(module)))
    return findings


def container_left(container: nn.Sequential, tree: Tree) -> str | None:
    """Why a container is not to be fused, whatever its children: one line, or None."""
    kind = type(container)
    if kind.forward not in (nn.Sequential.forward, FusedSequential.forward) or kind.__call__ is not nn.Module.__call__:
        return f"{kind.__name__} overrides forward"
    return why_left(container, tree)


def plan_of(container: nn.Sequential, tree: Tree, families: frozenset[str], coming: dict[int, type[nn.Module]]) -> Plan:
    """The runs of a container once the modules in `coming` (id -> class) have their new class."""
    children = list(container._modules.values())
    types, layers, norms = [], [], []
    for child in children:
        kind = coming.get(id(child), type(child))
        pattern = BY_CLASS.get(plain_class(child))
        free = why_left(child, tree) is None
        types.append(kind if free else _Never)
        layers.append(free and "conv" in families and plain_class(child) in LAYERS)
        norms.append(free and pattern is not None and pattern.family == "norm" and kind is pattern.replacement)
    plan = make_plan(tuple(types), tuple(layers), tuple(norms))
    return plan._replace(types=tuple(coming.get(id(child), type(child)) for child in children))


class _Never(nn.Module):
    """Stands for a child that may not take part in a run."""


def families_of(ops: Iterable[str] | None) -> frozenset[str]:
    if ops is None:
        return frozenset(FAMILIES)
    asked = frozenset([ops] if isinstance(ops, str) else ops)
    if unknown := sorted(asked - set(FAMILIES)):
        raise FastganError(f"ops={unknown[0]!r}: choose from {', '.join(FAMILIES)}")
    return asked


def accelerate(module: M, *, ops: Iterable[str] | None = None, strict: bool = False) -> M:
    """Swaps the hot modules of any nn.Module for faster ones, in place, and returns it. The mathematics stays the same.

    Batch normalisation, and runs of (transposed) convolution -> norm -> activation inside nn.Sequential, get forwards of
    ours; parameters,
    buffers, state_dict, hooks, optimizers and whatever else refers to the module stay valid. What is unsure is left:
    :func:`report` says why.
    `ops` restricts the families ("conv", "norm", "spectral"). `strict` raises FastganError, before anything is changed, where
    a module of
    these families would be left. :func:`revert` undoes it; calling twice is harmless.
    """
    if not isinstance(module, nn.Module):
        raise FastganError(f"accelerate takes an nn.Module, not {type(module).__name__}")
    families = families_of(ops)
    tree = Tree(module)
    findings = survey(tree, families)
    left = [f for f in findings if f.status == "left"]
    if strict and left:
        first = left[0]
        others = f", and {len(left) - 1} more" if len(left) > 1 else ""
        where = f"{first.path or 'the module itself'} ({first.kind})"
        raise FastganError(f"accelerate(strict=True) would leave {where}: {first.why}{others}; fastgan.report shows all")
    for finding in findings:
        if finding.status == "swap":
            assert finding.pattern is not None
            assert finding.pattern.replacement is not None
            _assign(finding.module, finding.pattern.replacement)
    for _, container in tree.walk():
        if isinstance(container, nn.Sequential) and container_left(container, tree) is None:
            plan = plan_of(container, tree, families, {})
            if plan.runs:
                original = container.__dict__.get(ORIGINAL, type(container))
                if not isinstance(container, FusedSequential):
                    _assign(container, fused_class(original))
                container.__dict__[PLAN] = plan
    return module


def _assign(module: nn.Module, to: type) -> None:
    module.__dict__[ORIGINAL] = type(module)
    module.__class__ = to


def revert(module: M) -> M:
    """Gives every module that :func:`accelerate` swapped its class back, in place, and returns the module. Harmless where
    nothing was swapped.

    Raises FastganError, before anything is changed, where a swapped module has since been given another class (parametrized,
    for one).
    """
    swapped = [(path, m) for path, m in module.named_modules() if ORIGINAL in m.__dict__]
    for path, m in swapped:
        if not _ours(m):
            raise FastganError(
                f"revert: {path or 'the module itself'} became a {type(m).__name__} after accelerate: undo that first"
            )
    for _, m in swapped:
        m.__dict__.pop(PLAN, None)
        m.__class__ = m.__dict__.pop(ORIGINAL)
    return module


def _ours(module: Any) -> bool:
    kind = type(module)
    if parametrize.is_parametrized(module) and kind.__name__.startswith("Parametrized"):
        return False
    return issubclass(kind, FusedSequential) or (kind in BY_CLASS and BY_CLASS[kind].replacement is kind)
