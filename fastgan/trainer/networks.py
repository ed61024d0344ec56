"""Networks as the trainer handles them: placed on a device, checked and loaded."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from fastgan.errors import FastganError, printable


def place(net: nn.Module, device: torch.device, memory_format: torch.memory_format) -> nn.Module:
    """Move a network in place; its convolution weights take the memory format."""
    return net.to(device).to(memory_format=memory_format)  # type: ignore[call-overload]


def is_lazy(parameter: Tensor) -> bool:
    """Whether torch makes it only when its module is first called."""
    return isinstance(parameter, (UninitializedParameter, UninitializedBuffer))


def is_compiled(net: nn.Module) -> bool:
    """Whether torch.compile was applied to a part of it, whose tracing the engine's function mode
    would disturb."""
    return any(
        type(m).__name__ == "OptimizedModule" or m._compiled_call_impl is not None
        for m in net.modules()
    )


def load_network(net: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load weights in place. Raises FastganError naming the first parameter that differs."""
    check_network(net, state, name)
    net.load_state_dict(state)


def check_network(net: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Raises FastganError naming the first parameter that differs."""
    mine = net.state_dict()
    for key in [*mine, *state]:
        if key not in state or key not in mine or mine[key].shape != state[key].shape:
            here = tuple(mine[key].shape) if key in mine else "absent"
            there = tuple(state[key].shape) if key in state else "absent"
            raise FastganError(
                f"network {name} is not the one that was trained: {printable(key)} is {here} here "
                f"and {there} in the checkpoint"
            )
