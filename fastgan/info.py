"""What this machine has: versions, devices, whether the Triton kernels can run and if not why,
compiler, precision, cache.

Nothing here raises: a fact that can't be found out is None, or a line that says why.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
from collections.abc import Callable
from importlib import metadata
from typing import Any

from fastgan import machine, paths
from fastgan.cpu.identity import instructions
from fastgan.kernels import toolchain

PAIRS = {"2.10": "3.6", "2.11": "3.6", "2.12": "3.7", "2.13": "3.7"}
"""Triton minor version that each torch minor version was built with; used where torch's own
metadata don't say."""


def collect() -> dict[str, Any]:
    """All facts as JSON values. Takes about as long as importing torch."""
    facts: dict[str, Any] = {
        "versions": _safe(machine.versions, {}),
        "platform": _safe(_platform, {}),
        "driver": _safe(machine.driver, None),
        "devices": _safe(_devices, []),
        "compiler": _safe(toolchain.compiler, {}),
        "cache": _safe(_cache, {}),
    }
    facts["kernels"] = _safe(
        lambda: kernels(facts), {"status": "unknown", "reasons": ["the check itself failed"]}
    )
    facts["precision"] = _safe(_precision, None)
    return facts


def _safe(find: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return find()
    except Exception:  # a report of a broken machine must not break on it
        return otherwise


def _platform() -> dict[str, Any]:
    import torch

    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": machine.cpu_name(),
        "cores": machine.cores(),
        "torch_threads": torch.get_num_threads(),
        "memory_bytes": _safe(
            lambda: os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
        ),
    }


def _devices() -> list[dict[str, Any]]:
    import torch

    if torch.cuda.is_available():
        found = []
        for index in range(torch.cuda.device_count()):
            props = torch.cuda.get_device_properties(index)
            free = _safe(functools.partial(torch.cuda.mem_get_info, index), (None,))[0]
            found.append(
                {
                    "index": index,
                    "name": props.name,
                    "usable": True,
                    "capability": f"{props.major}.{props.minor}",
                    "memory_bytes": props.total_memory,
                    "free_bytes": free,
                }
            )
        return found
    with machine.nvml() as nvml:
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        return [_through_driver(nvml, index, handle) for index, handle in enumerate(handles)]


def _through_driver(nvml: Any, index: int, handle: Any) -> dict[str, Any]:
    """A GPU that the driver sees and torch does not (a CPU build of torch, or a driver too old for
    it)."""
    capability = _safe(
        lambda: "{}.{}".format(*nvml.nvmlDeviceGetCudaComputeCapability(handle)), None
    )
    memory = _safe(lambda: nvml.nvmlDeviceGetMemoryInfo(handle), None)
    return {
        "index": index,
        "name": str(nvml.nvmlDeviceGetName(handle)),
        "usable": False,
        "capability": capability,
        "memory_bytes": getattr(memory, "total", None),
        "free_bytes": getattr(memory, "free", None),
    }


def paired_triton(torch_version: str) -> str | None:
    """Triton minor version (`"3.7"`) that a torch version was built with, or None where that is not
    known."""
    for line in _safe(lambda: metadata.requires("torch"), None) or []:
        if found := re.match(r"triton[~=]=(\d+\.\d+)", line.replace(" ", "")):
            return found.group(1)
    return PAIRS.get(".".join(torch_version.split(".")[:2]))


def kernels(facts: dict[str, Any]) -> dict[str, Any]:
    """Whether the Triton kernels can run.

    status: "ready", "interpreted" or "unavailable"; reasons: why not; notes: what is odd but does
        not prevent it.
    """
    versions = facts["versions"]
    notes: list[str] = []
    interpreted = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "y", "yes")
    reasons = toolchain.lacks(versions, facts["compiler"], interpreted)
    if not interpreted:
        reasons += _gpu_reasons(facts)
        if breaks := toolchain.interpreter_breaks(versions):
            notes.append(f"`fastgan verify` without a GPU can't run: {breaks}")
    pair = paired_triton(versions.get("torch") or "")
    if versions.get("triton") and pair and not versions["triton"].startswith(pair + "."):
        notes.append(
            f"torch {versions['torch']} is built for Triton {pair}, this is {versions['triton']}: "
            f"pip install 'triton=={pair}.*'"
        )
    status = "unavailable" if reasons else "interpreted" if interpreted else "ready"
    return {"status": status, "reasons": reasons, "notes": notes, "interpreter": interpreted}


def _gpu_reasons(facts: dict[str, Any]) -> list[str]:
    devices = facts["devices"]
    usable = [device for device in devices if device["usable"]]
    if not devices:
        return ["no NVIDIA GPU"]
    if not usable:
        if facts["versions"].get("cuda") is None:
            return [
                f"{devices[0]['name']} is there, but torch {facts['versions'].get('torch')} is a "
                "build without CUDA"
            ]
        return [
            f"{devices[0]['name']} is there, but torch can't use it: is driver {facts['driver']} "
            "too old?"
        ]
    old = [toolchain.too_old(*map(int, device["capability"].split("."))) for device in usable]
    return [old[0]] if old[0] and all(old) else []


def _precision() -> str:
    """What --precision auto means here."""
    import torch

    ampere = (
        torch.cuda.is_available()
        and torch.version.hip is None
        and torch.cuda.get_device_capability()[0] >= 8
    )
    if not torch.cuda.is_available():
        return f"measured at the start of each training ({instructions()})"
    return "bf16" if ampere else "fp32"


def _cache() -> dict[str, Any]:
    folder = paths.cache_dir()
    size = files = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.stat(os.path.join(base, name)).st_size
                files += 1
    return {"path": str(folder), "bytes": size, "files": files}


def render(facts: dict[str, Any]) -> str:
    """The facts as a few aligned lines."""
    versions, place, build, cache, state = (
        facts.get(key) or {} for key in ("versions", "platform", "compiler", "cache", "kernels")
    )
    lines = [f"fastgan {versions.get('fastgan') or '?'}", ""]

    def add(name: str, *texts: str | None) -> None:
        for index, text in enumerate(text for text in texts if text):
            lines.append(f"  {name if index == 0 else '':<11}{text}")

    add(
        "versions",
        ", ".join(
            f"{name} {versions[name]}"
            for name in ("python", "torch", "triton", "numpy")
            if versions.get(name)
        ),
    )
    cuda = [f"CUDA {versions['cuda']}" if versions.get("cuda") else "torch without CUDA"]
    cuda += [f"cuDNN {versions['cudnn']}"] if versions.get("cudnn") else []
    cuda += [f"driver {facts['driver']}"] if facts.get("driver") else []
    add("", ", ".join(cuda))
    lines[-1] = "             " + lines[-1].strip()
    gpus = [_gpu_line(device) for device in facts.get("devices") or []]
    add("devices", *(gpus or ["no GPU: training runs on the CPU"]))
    name = place.get("cpu") or place.get("system")
    memory = f", {_size(place.get('memory_bytes'))}" if place.get("memory_bytes") else ""
    add(
        "CPU",
        f"{name}, {place.get('cores')} cores, {place.get('torch_threads')} torch threads{memory}",
    )
    headline = {
        "ready": "the Triton kernels can run",
        "interpreted": "run on the CPU in Triton's interpreter (TRITON_INTERPRET=1): for checking, "
        "far too slow for training",
        "unavailable": "can't run here; the PyTorch path does the same work",
    }
    add(
        "kernels",
        headline.get(state.get("status", ""), "unknown"),
        *(f"- {reason}" for reason in state.get("reasons", ())),
    )
    add("", *(f"note: {note}" for note in state.get("notes", ())))
    add(
        "compiler",
        f"{build.get('cc') or 'none'}, Python.h {'found' if build.get('python_h') else 'missing'}",
    )
    add("precision", f"auto means {facts.get('precision') or 'unknown'}")
    add(
        "cache",
        f"{cache.get('path')} ({_size(cache.get('bytes'))} in {cache.get('files')} files)"
        if cache.get("path")
        else "unknown",
    )
    return "\n".join(lines)


def _gpu_line(device: dict[str, Any]) -> str:
    architecture = (
        f", sm_{device['capability'].replace('.', '')}" if device.get("capability") else ""
    )
    state = "" if device["usable"] else " (not usable)"
    return (
        f"GPU {device['index']}: {device['name']}, "
        f"{_size(device['memory_bytes'])}{architecture}{state}"
    )


def _size(count: int | None) -> str:
    if count is None:
        return "unknown size"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"
