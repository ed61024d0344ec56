"""Kernels that begin while the one before them ends: programmatic dependent launch, on sm_90 (CUDA
C++ Programming Guide, the section of that name; `griddepcontrol` in PTX).

The first of a chain lets the next begin at once. A next one reads what was there before the chain
began, then waits until the kernel before it has ended and its stores are seen; only after that it
reads them, or writes anything. Such a kernel is launched so behind a known kernel alone: one that
began early behind a foreign one would find its inputs half written. What the third kernel reads
before it waits (x, dz, weights, in dx also mean and variance) is written by neither before it.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from fastgan.kernels.common import INTERPRET, tl, triton

ON = True
"""Off for measurements."""


CAPABLE = (9, 0)
"""Tried on an H200. Later ones have it too, where nobody has tried it."""

DRIVER = 12030
"""CUDA 12.3 captures such launches into graphs; what an older driver does is not known."""


@functools.cache
def _capable(device: torch.device) -> bool:
    return (
        device.type == "cuda"
        and not INTERPRET
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device) == CAPABLE
        and getattr(torch._C, "_cuda_getDriverVersion", int)() >= DRIVER
    )


def first(device: torch.device) -> dict[str, Any]:
    """Arguments of the first kernel of a chain."""
    return {"CHAINED": True} if ON and _capable(device) else {}


def following(device: torch.device) -> dict[str, Any]:
    """Arguments and launch options of a kernel that comes directly after one of the chain."""
    return {"CHAINED": True, "launch_pdl": True} if ON and _capable(device) else {}


@triton.jit
def let_next_begin(CHAINED: tl.constexpr):
    if CHAINED:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def wait_for_last(CHAINED: tl.constexpr):
    if CHAINED:
        tl.extra.cuda.gdc_wait()
