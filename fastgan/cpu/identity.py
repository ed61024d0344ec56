"""Which CPU this is, as far as a measurement depends on it."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from pathlib import Path

import torch

LIMITS = (
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "MKL_ENABLE_INSTRUCTIONS",
)
"""Environment variables that keep libraries from instructions which the CPU has."""


def cpu_name() -> str | None:
    """The processor's model, where it is known."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
            return found.group(1).strip() if found else None
    return platform.processor() or None


def instructions() -> str:
    """The instruction set that torch computes with, bf16 and AMX units, and limits set by hand."""
    found = [torch.backends.cpu.get_cpu_capability()]
    for name, has in (("bf16", "_is_avx512_bf16_supported"), ("AMX", "_is_amx_tile_supported")):
        if getattr(torch.cpu, has, bool)():
            found.append(name)
    found += [f"{name}={os.environ[name]}" for name in LIMITS if os.environ.get(name)]
    return " ".join(found)


def identity() -> dict[str, str | int]:
    """What must be equal for a measurement to count: CPU, instructions, threads, torch."""
    return {
        "cpu": cpu_name() or platform.machine() or "unknown",
        "instructions": instructions(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }
