"""Time of a call on the device: graph replay on rotated inputs, medians of samples; and the
ceilings to hold it against, from the same run.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fastgan.graphs.backends import end_capture

Call = Callable[[], Any]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call: median, 20th and 80th percentile of the samples. ``how``: graph
    (replayed), events (eager, launches included) or cpu.
    """

    ms: float
    p20: float
    p80: float
    how: str


def _timing(samples: Sequence[float], how: str) -> Timing:
    ordered = sorted(samples)
    at = lambda q: ordered[min(len(ordered) - 1, int(q * len(ordered)))]
    return Timing(statistics.median(ordered), at(0.2), at(0.8), how)


def measure(
    calls: Sequence[Call], samples: int = 9, sample_ms: float = 5.0, graph: bool = True
) -> Timing:
    """Times ``calls``, one a set of inputs, all in one captured graph that is replayed; outputs
    stay alive, so that none reuses a warm address.

    ``graph=False`` leaves the launches in: what an uncaptured user sees. A call that cannot be
    captured is timed so, and ``how`` says it.
    """
    if not torch.cuda.is_available():
        return _on_cpu(calls, samples)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(
        stream
        # compiles, tunes cuDNN and loads modules; backward runs on the stream of forward, so on the
        # capture's
    ):
        for _ in range(3):
            for call in calls:
                call()
    torch.cuda.synchronize()
    kept: list[Any] = []
    how = "events"
    replay: Callable[[], Any] = lambda: [call() for call in calls]
    if graph:
        captured = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(captured, stream=stream):
                kept += [call() for call in calls]
            replay, how = captured.replay, "graph"
        except (
            RuntimeError
        ):  # something syncs or allocates outside the pool: eager time is still a time
            torch.cuda.synchronize()
            end_capture(torch.device("cuda", torch.cuda.current_device()))
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def sample(n: int) -> float:
        begin.record()
        for _ in range(n):
            replay()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / n

    sample(1)
    n = max(1, min(500, math.ceil(sample_ms / max(sample(2), 1e-3))))
    return _timing([sample(n) / len(calls) for _ in range(samples)], how)


def _on_cpu(calls: Sequence[Call], samples: int) -> Timing:
    times = []
    for call in calls:
        call()
    for i in range(max(samples, 3)):
        start = time.perf_counter()
        calls[i % len(calls)]()
        times.append((time.perf_counter() - start) * 1e3)
    return _timing(times, "cpu")


def rotations(bytes_per_set: int, at_most: int = 16) -> int:
    """Input sets to rotate among, so that together they exceed three times the last-level cache and
    no call finds its inputs warm.
    """
    if not torch.cuda.is_available():
        return 2
    cache = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 50 << 20)
    return max(2, min(at_most, math.ceil(3 * cache / max(bytes_per_set, 1))))


def ceilings(toy: bool = False) -> dict[str, float]:
    """Measured roofline peaks of this run: ``copy_gbs`` (device copy, read + write),
    ``matmul_tflops`` (bf16, 8192^3)."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 1 << (16 if toy or device == "cpu" else 29)
    a = torch.randint(0, 100, (size,), device=device, dtype=torch.uint8)
    b = torch.empty_like(a)
    copy = measure([lambda: b.copy_(a)])
    n = 64 if toy or device == "cpu" else 8192
    x, w, y = (torch.randn(n, n, device=device).to(torch.bfloat16) for _ in range(3))
    product = measure([lambda: torch.mm(x, w, out=y)], sample_ms=20)
    return {"copy_gbs": 2 * size / copy.ms / 1e6, "matmul_tflops": 2 * n**3 / product.ms / 1e9}


def gpu_state() -> dict[str, str]:
    """Clocks, power, temperature and driver as nvidia-smi tells them; empty without it."""
    fields = (
        "driver_version",
        "clocks.sm",
        "clocks.mem",
        "power.draw",
        "temperature.gpu",
        "clocks_throttle_reasons.active",
    )
    command = [
        "nvidia-smi",
        f"--query-gpu={','.join(fields)}",
        "--format=csv,noheader,nounits",
        "-i",
        "0",
    ]
    try:
        line = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return {}
    return dict(zip(fields, (v.strip() for v in line.split(","))))
