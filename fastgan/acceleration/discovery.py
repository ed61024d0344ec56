"""Runs of layer -> norm -> activation that a forward calls one after the other, outside any
nn.Sequential.

Found by torch.fx: for the report, and as what accelerate(rewrite=True) expects to follow a norm.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import fx, nn

from fastgan.acceleration.patterns import (
    ACTIVATIONS,
    BY_CLASS,
    FUNCTIONS,
    LAYERS,
    Tree,
    plain_class,
    why_left,
)


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = (
        True  # a forward that counts its calls in a buffer must not count this one
    )

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _graph(module: nn.Module) -> fx.Graph:
    """The graph of the module's own forward, every call of a child being one node; what torch.fx
    raises where it cannot follow.

    The forward is somebody else's code, and runs: on a copy of the module's own attributes, so that
    nothing stays behind.
    """
    twin = copy.copy(module)
    twin.__dict__.update(
        {k: copy.copy(v) for k, v in module.__dict__.items() if isinstance(v, (dict, list, set))}
    )
    with torch.random.fork_rng(devices=[]):
        return _Tracer().trace(twin)


def _kind(node: fx.Node, module: nn.Module, tree: Tree) -> tuple[str, str, str] | None:
    """("layer" | "norm" | "act", its name, the child's name) of a node that may be part of a
    run."""
    if node.op == "call_module":
        child = module.get_submodule(str(node.target))
        kind = plain_class(child)
        pattern = BY_CLASS.get(kind)
        what = "layer" if kind in LAYERS else "act" if kind in ACTIVATIONS else None
        if what is None and pattern is not None and pattern.family == "norm":
            what = "norm"
        if why_left(child, tree) is not None:
            return None
        return what and (what, kind.__name__.removeprefix("Parametrized"), str(node.target))  # type: ignore[return-value]
    called = FUNCTIONS.get(node.target) if node.op in ("call_function", "call_method") else None
    return None if called is None else ("act", called, "")


def _follower(node: fx.Node) -> fx.Node | None:
    """The one node that takes this one's result, as its first argument; None where somebody else
    sees it too."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].args and users[0].args[0] is node else None


def _traceable(module: nn.Module) -> bool:
    """Whether the forward is code of a network's author that calls layers or norms of its own."""
    own = any(
        plain_class(child) in LAYERS or plain_class(child) in BY_CLASS
        for child in module.children()
    )  # a container decides about its own children
    return (
        own
        and not isinstance(module, nn.Sequential)
        and not type(module).__module__.startswith("torch.")
    )


def runs_apart(module: nn.Module, tree: Tree) -> Iterator[list[tuple[str, str, str]]]:
    """Each run that ends in an activation, as ("layer" | "norm" | "act", its name, the child's name
    or ""); raises what torch.fx raises.
    """
    if "forward" in module.__dict__ or not _traceable(module):
        return
    taken: set[fx.Node] = set()
    for node in _graph(module).nodes:
        if node in taken:
            continue
        found: list[tuple[str, str, str]] = []
        at: fx.Node | None = node
        # each kind once, in this order
        for stage in ("layer", "norm", "act"):
            known = None if at is None else _kind(at, module, tree)
            if at is not None and known is not None and known[0] == stage:
                found.append(known)
                taken.add(at)
                at = _follower(at)
        if len(found) > 1 and found[-1][0] == "act":
            yield found
