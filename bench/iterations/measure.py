"""Time by interleaved repeats, saved activations and peak memory, power and clock through NVML."""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastgan.bench.iterations.rows import Runner


class Stepper(Protocol):
    """What can be timed: `step()` enqueues the work, within `flags()`."""

    def flags(self) -> Any: ...

    def step(self) -> None: ...


def sync(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def quantiles(values: Sequence[float]) -> list[float]:
    """20th percentile, median, 80th percentile, linearly interpolated."""
    ordered = sorted(values)

    def at(q: float) -> float:
        place = q * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    return [at(0.2), at(0.5), at(0.8)]


def ratios(other: Mapping[str, Any], mine: Mapping[str, Any]) -> list[float]:
    """How many times `mine` is faster, repeat by repeat: [p20, median, p80]."""
    pairs = zip(other["samples_ms"], mine["samples_ms"])
    return quantiles([theirs / ours for theirs, ours in pairs])


def timed(runner: Stepper, steps: int, device: torch.device) -> float:
    """Seconds of one step: wall clock around `steps` of them, the device idle before and after;
    launches included."""
    with runner.flags():
        sync(device)
        start = time.perf_counter()
        for _ in range(steps):
            runner.step()
        sync(device)
        return (time.perf_counter() - start) / steps


def interleave(
    runners: Mapping[str, Stepper],
    device: torch.device,
    *,
    repeats: int,
    sample_s: float,
    until: float,
    failed: Callable[[str, Exception], None],
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, list[float]]:
    """Seconds a step of each row, one sample a repeat; rows take turns, and the order turns round
    at each repeat, so that a clock that falls or a neighbour that wakes meets all of them.

    sample_s: length of a sample at least. until: no new repeat after this time (but for three). A
    row that raises is dropped and told to `failed`.
    """
    alive = dict(runners)
    steps: dict[str, int] = {}
    samples: dict[str, list[float]] = {key: [] for key in runners}

    def attempt(key: str, count: int) -> float | None:
        try:
            return timed(alive[key], count, device)
        except (
            Exception
        ) as error:  # a row that raises shows its error and drops out, the others go on
            failed(key, error)
            del alive[key]
            samples.pop(key)
            return None

    for key in list(alive):
        if (second := attempt(key, 2)) is not None:
            steps[key] = max(1, min(2000, round(sample_s / max(second, 1e-6))))
    for repeat in range(repeats):
        if repeat >= 3 and clock() > until:
            break
        for key in list(alive)[:: -1 if repeat % 2 else 1]:
            if (second := attempt(key, steps[key])) is not None:
                samples[key].append(second)
    return samples


class SavedActivations:
    """Bytes that autograd holds for backward, at their peak: storages saved by operators, each
    once, networks' own tensors apart.

        with SavedActivations(nets) as saved:
            step()
        saved.peak
    """

    def __init__(self, nets: Mapping[str, nn.Module]) -> None:
        own = [t for net in nets.values() for t in [*net.parameters(), *net.buffers()]]
        self._own = {t.untyped_storage().data_ptr() for t in own}
        self._held: dict[int, int] = {}
        self.now = self.peak = 0
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda held: held.tensor)

    def _pack(self, tensor: Tensor) -> _Held:
        return _Held(tensor, self)

    def take(self, key: int, size: int) -> None:
        if self._held.get(key, 0) == 0:
            self.now += size
            self.peak = max(self.peak, self.now)
        self._held[key] = self._held.get(key, 0) + 1

    def give(self, key: int, size: int) -> None:
        self._held[key] -= 1
        if self._held[key] == 0:
            self.now -= size

    def __enter__(self) -> SavedActivations:
        self._hooks.__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        self._hooks.__exit__(*args)


class _Held:
    """A saved tensor; tells when autograd lets go of it."""

    def __init__(self, tensor: Tensor, counter: SavedActivations) -> None:
        self.tensor, self.counter = tensor, counter
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        self.counts = self.key not in counter._own and self.size > 0
        if self.counts:
            counter.take(self.key, self.size)

    def __del__(self) -> None:
        if getattr(self, "counts", False):
            self.counter.give(self.key, self.size)


def saved_activations(runner: Runner) -> int | None:
    """Peak bytes saved for backward in one eager step; None where the row's autograd lies inside a
    compiled graph."""
    gc.collect()
    with runner.flags(), SavedActivations(runner.nets) as saved:
        runner.eager_step()
    return saved.peak or None


def kernels(runner: Stepper, device: torch.device, steps: int = 3) -> dict[str, list[float]]:
    """{kernel's name: [launches a step, microseconds a step]} on a GPU, the longest first, by
    torch's profiler."""
    with runner.flags():
        runner.step()
        sync(device)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiled:
            for _ in range(steps):
                runner.step()
            sync(device)
    found = {
        e.key: [e.count / steps, e.device_time_total / steps]
        for e in profiled.key_averages()
        if e.device_time_total > 0
    }
    return dict(sorted(found.items(), key=lambda item: -item[1][1]))


@contextlib.contextmanager
def device_memory(device: torch.device) -> Iterator[dict[str, float]]:
    """peak_MiB of GPU memory that the block reached above what was allocated before it; nothing on
    a CPU (`child_facts`)."""
    found: dict[str, float] = {}
    if device.type != "cuda":
        yield found
        return
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield found
    found["peak_MiB"] = (torch.cuda.max_memory_allocated(device) - before) / 2**20


def child_facts(
    suite: str, row: str, threads: int, steps: int = 6, timeout: float = 300
) -> dict[str, float]:
    """{"peak_MiB", "startup_s"} of a row in a process of its own.

    startup_s: from the start of the process, imports included, to the end of the first step.
    peak_MiB: resident memory above what imports and data take (VmHWM after a reset). Raises
        RuntimeError with the child's last line.
    """
    code = (
        f"from fastgan.bench.iterations.measure import report_child; report_child({suite!r}, "
        f"{row!r}, {threads}, {steps})"
    )
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-c", f"began = {began}; {code}"],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
    facts = json.loads(done.stdout.strip().splitlines()[-1])
    facts["startup_s"] = facts.pop("first_step_at") - began
    return facts


def report_child(suite: str, row: str, threads: int, steps: int) -> None:
    """What `child_facts` runs: prints one line of JSON."""
    torch.set_num_threads(threads)
    from fastgan.bench.iterations import rows, suites

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = suites.SUITES[suite]
    arrays = suites.arrays(chosen)
    gc.collect()
    before = reset_peak()
    with device_memory(device) as memory:
        runner = rows.BY_KEY[row].build(chosen, arrays, device)
        with runner.flags():
            runner.step()
            sync(device)
            first = time.time()
            for _ in range(steps - 1):
                runner.step()
            sync(device)
    peak = memory.get("peak_MiB", resident("VmHWM") - before)
    runner.close()
    print(json.dumps({"peak_MiB": peak, "first_step_at": first}))


def resident(field: str) -> float:
    """VmRSS or VmHWM of this process in MiB; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next(
        (int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":")), 0.0
    )


def reset_peak() -> float:
    """Sets VmHWM back to what is resident now, and returns that in MiB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


class Nvml:
    """Power, SM clock and energy of the GPU in use. Every method gives nothing where NVML is not
    there."""

    def __init__(self, device: torch.device) -> None:
        self.nvml: Any = None
        self.handle: Any = None
        if device.type != "cuda":
            return
        try:
            import pynvml
        except ImportError:
            return
        try:
            pynvml.nvmlInit()
            uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
            try:
                self.handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            except pynvml.NVMLError:  # a torch without uuid, or a partition of a GPU
                self.handle = pynvml.nvmlDeviceGetHandleByIndex(device.index or 0)
        except pynvml.NVMLError:  # no driver, no permission: the columns stay empty
            return
        self.nvml = pynvml

    def _ask(self, what: Callable[[Any, Any], Any]) -> Any:
        if self.nvml is None:
            return None
        try:
            return what(self.nvml, self.handle)
        except self.nvml.NVMLError:  # this GPU does not tell
            return None

    def joules(self) -> float | None:
        """Energy since the driver was loaded."""
        return self._ask(lambda n, h: n.nvmlDeviceGetTotalEnergyConsumption(h) / 1e3)

    def watts(self) -> float | None:
        return self._ask(lambda n, h: n.nvmlDeviceGetPowerUsage(h) / 1e3)

    def megahertz(self) -> float | None:
        return self._ask(lambda n, h: float(n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM)))


def energy(
    runner: Runner, device: torch.device, nvml: Nvml, images_per_step: int, seconds: float
) -> dict[str, float]:
    """joules_per_1000_images, watts and sm_mhz over a steady window of about `seconds`; empty
    without NVML."""
    if nvml.joules() is None and nvml.watts() is None:
        return {}
    power: list[float] = []
    clock: list[float] = []
    over = threading.Event()

    def sample() -> None:
        while not over.wait(0.02):
            watts, megahertz = nvml.watts(), nvml.megahertz()
            if watts is not None:
                power.append(watts)
            if megahertz is not None:
                clock.append(megahertz)

    each = timed(runner, 2, device)
    steps = max(2, round(seconds / max(each, 1e-6)))
    thread = threading.Thread(target=sample, daemon=True)
    sync(device)
    before = nvml.joules()
    thread.start()
    elapsed = steps * timed(runner, steps, device)
    after = nvml.joules()
    over.set()
    thread.join()
    found = {}
    if power:
        found["watts"] = sum(power) / len(power)
    if clock:
        found["sm_mhz"] = sum(clock) / len(clock)
    images = steps * images_per_step
    if before is not None and after is not None and after > before:
        found["joules_per_1000_images"] = (after - before) / images * 1e3
    elif power:
        found["joules_per_1000_images"] = found["watts"] * elapsed / images * 1e3
    return found
