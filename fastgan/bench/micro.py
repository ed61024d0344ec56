"""Calls of registered operators, ready to be timed: ours by engine, and what users would write in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from fastgan.kernels._common import TORCH_DTYPES
from fastgan.ops import registry
from fastgan.ops.registry import Case, Op
from fastgan.verify.check import leaves, named, seed

PROVIDERS = ("fastgan", "eager")


def cases(device: torch.device) -> Iterator[tuple[Op, Case, str, str]]:
    """(op, case, type, direction): layer shapes in bf16 on a GPU; on a CPU the first small case of each op in fp32, whose times
    say nothing about a GPU.
    """
    gpu = device.type == "cuda"
    type_name, tag = ("bf16", "layer") if gpu else ("fp32", "quick")
    registry.load()
    for op in registry.ops():
        found = [c for c in op.cases if tag in c.tags and type_name in (c.dtypes or op.dtypes) and type_name in op.dtypes]
        for case in found[: None if gpu else 1]:
            yield op, case, type_name, "forward"
            if "backward" in (case.directions or op.directions):
                yield op, case, type_name, "both"


def call(op: Op, case: Case, type_name: str, direction: str, provider: str, device: torch.device) -> Callable[[], Any]:
    """One call on inputs of its own: forward without autograd, or forward and backward; waits for the device."""
    kwargs = case.make(TORCH_DTYPES[type_name], device, seed(op.name, case.name))
    function = op.fn if provider == "fastgan" else op.eager or op.reference
    wanted = [t for name in op.grad_inputs for _, t in leaves(kwargs.get(name), name) if t.is_floating_point()]

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def forward() -> None:
        with torch.no_grad():
            function(**kwargs)
        wait()

    if direction == "forward":
        return forward
    for t in wanted:
        t.requires_grad_()
    kept: dict[tuple[int, ...], torch.Tensor] = {}

    def both() -> None:
        outputs = [t for t in named(op, function(**kwargs)).values() if t.requires_grad]
        given = [kept.setdefault(tuple(t.shape), torch.randn_like(t, requires_grad=False)) for t in outputs]
        torch.autograd.grad(outputs, wanted, given, allow_unused=True)
        wait()

    return both
