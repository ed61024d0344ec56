"""A dispatch mode in which reading the device from the host raises: how a step proves that it can
be captured."""

from __future__ import annotations

import traceback
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

HOST_READS = {
    torch.ops.aten._local_scalar_dense.default: ".item(), float(), int(), bool() or `if` on a "
    "tensor",
    torch.ops.aten.nonzero.default: "nonzero, whose size depends on the data",
    torch.ops.aten.masked_select.default: "masked_select, whose size depends on the data",
    torch.ops.aten.equal.default: "torch.equal",
    torch.ops.aten._unique2.default: "unique, whose size depends on the data",
}


class HostRead(RuntimeError):
    """A step read the device. The message names the line and what it did."""


class NoHostReads(TorchDispatchMode):
    """Inside, an operation that makes the host wait for the device raises HostRead naming the
    caller's line; works on the CPU too.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in HOST_READS:
            raise HostRead(f"{caller()}: the step reads the device ({HOST_READS[func]})")
        if func is torch.ops.aten.index.Tensor and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        ):
            raise HostRead(
                f"{caller()}: the step reads the device (a boolean index, whose size depends on "
                "the data)"
            )
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            refuse_crossing(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def refuse_crossing(func: Any, args: Any, kwargs: Any) -> None:
    """Raises HostRead for a copy between host and device: the host waits for it, and a graph can't
    hold it."""
    if func is torch.ops.aten.copy_.default:
        given, target = args[1], args[0].device.type
    else:
        given = args[0]
        target = torch.device(kwargs.get("device") or given.device).type
    source = given.device.type
    if source != target == "cpu":
        raise HostRead(
            f"{caller()}: the step reads the device (.cpu(), .numpy(), .tolist() or a copy to the "
            "host)"
        )
    if target != source == "cpu" and not given.is_pinned():
        raise HostRead(
            f"{caller()}: the step copies from the host (make the tensor on the device, or before "
            "the step)"
        )


def caller() -> str:
    """file:line of the innermost frame outside torch and this module, and outside what only passes
    a call on."""
    for frame in reversed(traceback.extract_stack()):
        passed_on = frame.name == "__torch_function__" or "/torch/" in frame.filename
        if not passed_on and frame.filename != __file__:
            return f"{frame.filename}:{frame.lineno}"
    return "?"
