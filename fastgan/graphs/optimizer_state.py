"""What capture asks of optimisers: which it can take, and the numbers that a graph holds."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.ops.adam.optimizer import FlatAdam


def baked(optimizers: Sequence[torch.optim.Optimizer]) -> list[tuple[str, Any]]:
    """The Python scalars in param_groups, which a graph holds as they were when it was captured.

    FlatAdam's are on the device (`sync_hyper`); only whether it decays weights is decided on the
    host.
    """
    found = []
    for i, optimizer in enumerate(optimizers):
        for j, group in enumerate(optimizer.param_groups):
            for name, value in group.items():
                if isinstance(optimizer, FlatAdam) and name in ("lr", "betas", "eps"):
                    continue
                if isinstance(optimizer, FlatAdam) and name == "weight_decay":
                    name, value = "weight_decay != 0", value != 0
                if name != "params" and not isinstance(value, Tensor):
                    found.append((f"optimizer {i}, group {j}, {name}", copy.copy(value)))
    return found


@contextmanager
def capturable(optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[None]:
    """Sets `capturable` in the groups of torch's fused optimisers, and puts it back.

    torch refuses to capture a step while it is False, even a fused one, whose step count lies on
    the device already.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    changed = [group for group in groups if group.get("fused") and group.get("capturable") is False]
    for group in changed:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in changed:
            group["capturable"] = False


def require_capturable(optimizer: torch.optim.Optimizer, index: int) -> None:
    """Raises FastganError for an optimiser that keeps its step count on the host, or whose state,
    not yet born, does not begin at zero.
    """
    group, name = optimizer.param_groups[0], f"optimizer {index} ({type(optimizer).__name__})"
    cuda = any(p.is_cuda for p in group["params"])
    on_host = (
        not isinstance(optimizer, FlatAdam)
        and "capturable" in group
        and not (group["capturable"] or group.get("fused"))
    )
    if cuda and on_host:
        remedy = "fused=True or capturable=True" if "fused" in group else "capturable=True"
        raise FastganError(f"{name} keeps its step on the host: make it with {remedy}")
    if unborn(optimizer):
        raise FastganError(
            f"the state of {name} does not begin at zero: take one step before capture"
        )


def unborn(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimiser's state is still to be made, and does not begin at zero, to which a
    warm-up is undone."""
    elsewhere = isinstance(optimizer, (torch.optim.NAdam, torch.optim.ASGD, torch.optim.Rprop))
    return not optimizer.state and (
        elsewhere or any(group.get("dampening") for group in optimizer.param_groups)
    )
