"""accelerate and revert: classes are assigned, nothing is rebuilt.

Parameters, buffers, keys, hooks and children stay the objects they were.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn
from torch.nn.utils.parametrizations import _SpectralNorm

from fastgan import arguments
from fastgan.acceleration import functional_norms, home_made, joining
from fastgan.acceleration.discovery import runs_apart
from fastgan.acceleration.fused import FusedSequential, FusionPlan, make_plan
from fastgan.acceleration.patterns import (
    BY_CLASS,
    FAMILIES,
    LAYERS,
    PATTERNS,
    RELATIVES,
    Pattern,
    Tree,
    plain_class,
    why_left,
    why_unknown,
)
from fastgan.errors import FastganError
from fastgan.ops.class_before import class_before
from fastgan.ops.spectral import modules as spectral
from fastgan.ops.spectral.home_made import Swapped

ORIGINAL = "_fastgan_original"
PLAN = "_fastgan_plan"
NORMS = tuple(p.replacement for p in PATTERNS if p.family == "norm")

HOME_MADE = Pattern("spectral", nn.Module, None)
"""Spectral norms of somebody's own class, told by a probe instead of a row of the table."""

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
    target: Any = None  # what changes class: the module, or the object that holds its spectral norm
    seen: home_made.HomeMade | None = None  # what a home-made norm does

    @property
    def kind(self) -> str:
        kind = plain_class(self.module).__name__
        if self.pattern is HOME_MADE:
            return f"{kind} (home-made spectral norm)"
        return (
            f"{kind}'s spectral norm"
            if self.pattern is not None and self.pattern.family == "spectral"
            else kind
        )


def survey(tree: Tree, families: frozenset[str]) -> list[Finding]:
    """One finding for each module of a known family, in the tree's order. Looks, changes
    nothing."""
    findings = []
    for path, module in tree.walk():
        pattern = BY_CLASS.get(plain_class(module))
        if (own := _home_made(path, module, tree, families)) is not None:
            findings.append(own)
        elif not isinstance(module, _SpectralNorm):  # seen with the layer that it belongs to
            if pattern is not None:
                findings.append(_find(path, module, module, pattern, tree, families))
            elif isinstance(module, RELATIVES):
                findings.append(Finding(path, module, "left", None, why_unknown(module)))
            holder = spectral.holder_of(module)
            if holder is not None and type(holder) in BY_CLASS:
                findings.append(_find(path, module, holder, BY_CLASS[type(holder)], tree, families))
    return findings


def _home_made(
    path: str, module: nn.Module, tree: Tree, families: frozenset[str]
) -> Finding | None:
    if spectral.HOME_MADE in module.__dict__:
        return Finding(path, module, "swapped", HOME_MADE, target=module)
    seen = home_made.look(module)
    if seen is None:
        return None
    if "spectral" not in families:
        return Finding(path, module, "off", HOME_MADE, target=module)
    if isinstance(seen, str):
        return Finding(path, module, "left", HOME_MADE, seen, module)
    for part in dict.fromkeys((module, module.get_submodule(seen.layer))):
        if reason := why_left(part, tree):
            return Finding(path, module, "left", HOME_MADE, reason, module)
    return Finding(path, module, "swap", HOME_MADE, target=module, seen=seen)


def _find(
    path: str,
    module: nn.Module,
    target: Any,
    pattern: Pattern,
    tree: Tree,
    families: frozenset[str],
) -> Finding:
    if ORIGINAL in target.__dict__:
        return Finding(path, module, "swapped", pattern, target=target)
    if pattern.family not in families:
        return Finding(path, module, "off", pattern, target=target)
    if reason := why_left(module, tree):
        return Finding(path, module, "left", pattern, reason, target)
    theirs = pattern.replacement is not None and pattern.original in (
        type(target),
        plain_class(module),
    )
    return Finding(path, module, "swap" if theirs else "keep", pattern, target=target)


def container_left(container: nn.Sequential, tree: Tree) -> str | None:
    """Why a container is not to be fused, whatever its children: one line, or None."""
    kind = type(container)
    if (
        kind.forward not in (nn.Sequential.forward, FusedSequential.forward)
        or kind.__call__ is not nn.Module.__call__
    ):
        return f"{kind.__name__} overrides forward"
    return why_left(container, tree)


def plan_of(container: nn.Sequential, tree: Tree, families: frozenset[str]) -> FusionPlan:
    """The runs of a container whose children have their new classes."""
    children = list(container._modules.values())
    free, layers, norms = [], [], []
    for child in children:
        pattern = BY_CLASS.get(plain_class(child))
        free.append(why_left(child, tree) is None)
        layers.append(free[-1] and "conv" in families and plain_class(child) in LAYERS)
        norms.append(
            free[-1]
            and pattern is not None
            and pattern.family == "norm"
            and type(child) is pattern.replacement
        )
    return make_plan(children, free, layers, norms)


def families_of(ops: Iterable[str] | None) -> frozenset[str]:
    if ops is None:
        return frozenset(FAMILIES)
    try:
        asked = list([ops] if isinstance(ops, str) else ops)
    except TypeError:
        known = ", ".join(FAMILIES)
        raise FastganError(f"ops must be names of {known}, not {arguments.shown(ops)}") from None
    if unknown := [name for name in asked if name not in FAMILIES]:
        raise FastganError(f"ops={unknown[0]!r}: choose from {', '.join(FAMILIES)}")
    return frozenset(asked)


def accelerate(
    module: M, *, ops: Iterable[str] | None = None, strict: bool = False, rewrite: bool = False
) -> M:
    """Swap the hot modules of any network for faster ones, in place. The mathematics stays the
    same.

    Batch and instance norms, spectral norms, upsampling and pooling by 2, and runs of (transposed)
    convolution, norm and activation inside nn.Sequential get other forwards. Parameters, buffers,
    state_dict, hooks and optimisers stay the objects they were. What is unsure is left alone, and
    `fastgan.report` says why. A second call is harmless; `fastgan.revert` undoes it.

    Args:
        module: Any nn.Module. For the Triton kernels it and its inputs lie on a GPU, channels_last.
        ops: Only these families: "conv", "norm", "resample", "spectral". Default: all.
        strict: Whether to raise, before anything is changed, where a module of these families would
            be left.
        rewrite: Whether norms outside any nn.Sequential run with the activation that the forward
            calls after them, as torch.fx or the first forward shows.

    Returns:
        The same module.

    Raises:
        FastganError: `module` is no nn.Module, `ops` names no family, or `strict` found a module
            that would be left.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import fastgan
        >>> block = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.LeakyReLU(0.2))
        >>> fastgan.accelerate(block) is block
        True
        >>> block(torch.randn(2, 3, 8, 8)).shape
        torch.Size([2, 8, 4, 4])
    """
    require_module(module, "accelerate")
    arguments.flag(strict, "strict")
    arguments.flag(rewrite, "rewrite")
    families = families_of(ops)
    tree = Tree(module)
    findings = survey(tree, families)
    left = [f for f in findings if f.status == "left"]
    if strict and left:
        first = left[0]
        others = f", and {len(left) - 1} more" if len(left) > 1 else ""
        where = f"{first.path or 'the module itself'} ({first.kind})"
        raise FastganError(
            f"accelerate(strict=True) would leave {where}: {first.why}{others}; fastgan.report "
            "shows all"
        )
    for finding in findings:
        if finding.seen is not None:
            finding.module.__dict__[spectral.HOME_MADE] = finding.seen
            _assign(finding.module, class_before(Swapped, type(finding.module)))
        elif finding.status == "swap":
            assert finding.pattern is not None
            assert finding.pattern.replacement is not None
            _assign(finding.target, finding.pattern.replacement)
    found = survey(tree, families)
    spectral.attach(
        module,
        [
            (f.module, spectral.holder_of(f.module))
            for f in found
            if f.status == "swapped" and f.pattern is not None and f.pattern.family == "spectral"
        ],
    )
    containers = [
        m
        for _, m in tree.walk()
        if isinstance(m, nn.Sequential) and container_left(m, tree) is None
    ]
    fused = [m for m in containers if plan_of(m, tree, families).joined]
    for container in fused:
        if not isinstance(container, FusedSequential):
            _assign(container, class_before(FusedSequential, type(container)))
    for (
        container
    ) in fused:  # a plan names its children's classes: those of containers inside have just changed
        container.__dict__[PLAN] = plan_of(container, tree, families)
    if rewrite and "norm" in families:
        _join(tree)
    return module


def _join(tree: Tree) -> None:
    """A site on every norm, and before every module that calls norms as functions."""
    for path, module in list(tree.walk()):
        kind = plain_class(module)
        if kind in NORMS and ORIGINAL in module.__dict__:
            if module.join is None:
                module.join = joining.Site(path, kind.__name__)
        elif (
            ORIGINAL not in module.__dict__
            and functional_norms.calls_norms(module)
            and why_left(module, tree) is None
        ):
            _assign(module, class_before(functional_norms.Joining, type(module)))
            module.__dict__[functional_norms.SITES] = functional_norms.Sites(path)
    for _, module in tree.walk():
        try:
            for run in runs_apart(module, tree):
                names = {stage: (what, name) for stage, what, name in run}
                if "norm" in names and isinstance(
                    site := module.get_submodule(names["norm"][1]).join, joining.Site
                ):
                    site.expect(names["act"][0])
        except Exception:
            # torch.fx runs somebody else's code with stand-ins: what it can't follow, the first
            # forward shows
            continue


def _assign(module: Any, to: type) -> None:
    module.__dict__[ORIGINAL] = type(module)
    module.__class__ = to


def require_module(module: object, name: str) -> None:
    if not isinstance(module, nn.Module):
        raise FastganError(f"{name} takes an nn.Module, not {type(module).__name__}")


def revert(module: M) -> M:
    """Give every module that `fastgan.accelerate` swapped its class back, in place.

    Args:
        module: A network. Nothing happens where nothing was swapped.

    Returns:
        The same module.

    Raises:
        FastganError: A swapped module has been given another class since, as by a parametrization.
            Nothing has been changed then.

    Example:
        >>> from torch import nn
        >>> import fastgan
        >>> block = fastgan.accelerate(nn.Sequential(nn.Linear(3, 8), nn.ReLU()))
        >>> type(fastgan.revert(block)) is nn.Sequential
        True
    """
    require_module(module, "revert")
    swapped: list[tuple[str, Any]] = []
    for path, m in module.named_modules():
        hooks = (
            hook
            for hook in m._forward_pre_hooks.values()
            if isinstance(hook, spectral.SpectralNormHook)
        )
        swapped += [(path, target) for target in (m, *hooks) if ORIGINAL in target.__dict__]
    for path, target in swapped:
        if not _ours(target):
            raise FastganError(
                f"revert: {path or 'the module itself'} became a {type(target).__name__} after "
                "accelerate: undo that first"
            )
    for m in module.modules():
        spectral.detach(m)
    for _, target in swapped:
        for key in (
            PLAN,
            "_edges",
            "join",
            functional_norms.SITES,
            spectral.USES,
            spectral.LAST,
            spectral.WAITING,
            spectral.HOME_MADE,
        ):
            target.__dict__.pop(key, None)
        target.__class__ = target.__dict__.pop(ORIGINAL)
    return module


def _ours(target: Any) -> bool:
    kind = type(target)
    return issubclass(kind, (FusedSequential, functional_norms.Joining, Swapped)) or (
        kind in BY_CLASS and BY_CLASS[kind].replacement is kind
    )
