"""What machine this is, as proofs, benchmarks, tuning tables and `fastgan info` describe it.

Needs torch, triton and numpy alone.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import fastgan
from fastgan.cpu.identity import cpu_name, instructions
from fastgan.kernels import toolchain

__all__ = ["commit", "cores", "cpu_name", "describe", "driver", "nvml", "versions"]


def describe(device: torch.device) -> dict[str, Any]:
    """What a number or a verdict on `device` must be read with: JSON values, None where unknown.

    device: the GPU's name, or "CPU: " and the processor's. load: processes that run or wait for a
    core, the mean of a minute.
    """
    gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if gpu else f"CPU: {cpu_name() or platform.machine()}"
    return {
        "device": name,
        "instructions": None if gpu else instructions(),
        "threads": torch.get_num_threads(),
        "cores": cores(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "driver": driver() if gpu else None,
        **versions(),
        "triton": toolchain.versions()["triton"] or "none",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def versions() -> dict[str, str | None]:
    """fastgan, Python and what it computes with."""
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    return {
        "fastgan": fastgan.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **toolchain.versions(),
        "cuda": torch.version.cuda,
        "cudnn": str(cudnn) if cudnn else None,
    }


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def nvml() -> Iterator[Any]:
    """NVIDIA's management library. Raises ImportError or pynvml.NVMLError where it is not there."""
    import pynvml

    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def driver() -> str | None:
    """The version of NVIDIA's driver, where there is one."""
    with contextlib.suppress(Exception), nvml() as library:  # no package, library or permission
        return str(library.nvmlSystemGetDriverVersion())
    return None


def commit() -> str:
    """$FASTGAN_COMMIT, which a copy of the tree is given; else the short commit of the checkout,
    with "+" where files differ from it; else empty.
    """
    if known := os.environ.get("FASTGAN_COMMIT"):
        return known
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
