"""`fastgan bench --launches`: what a training step launches, counted without a GPU: kernels, casts,
copies, their bytes, and what they take at a bandwidth.

An estimate; launch_costs.py says of what.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fastgan.bench.fake_gpu import FakeGpu, Kernel, Operator
from fastgan.bench.iterations import suites
from fastgan.bench.launch_costs import FLOOR_US, GB_PER_S, TFLOPS, Launch, launches_of
from fastgan.errors import FastganError


@dataclass(frozen=True)
class Row:
    """Launches of a kind in a phase."""

    phase: str
    what: str
    count: int
    megabytes: float
    us: float


class Recorder:
    """Takes what a FakeGpu notes, where `on`; `phase` is what it belongs to."""

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self.kernels: dict[tuple[str, Any], Kernel] = {}
        self.phase, self.on = "data", False

    def __call__(self, noted: Kernel | Operator) -> None:
        if not self.on:
            return
        if isinstance(noted, Kernel):
            self.kernels.setdefault((noted.name, id(noted.compiled)), noted)
        self.launches += [
            dataclasses.replace(launch, phase=self.phase) for launch in launches_of(noted)
        ]

    @contextlib.contextmanager
    def within(self, phase: str) -> Iterator[None]:
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before


def table(
    launches: Iterable[Launch], gb_per_s: float = GB_PER_S, tflops: float = TFLOPS
) -> list[Row]:
    """Rows in the order in which their phases and kinds first occur."""
    found: dict[tuple[str, str], list[Launch]] = {}
    phases: dict[str, None] = {}
    for launch in launches:
        phases[launch.phase] = None
        found.setdefault((launch.phase, launch.what), []).append(launch)
    rows = [
        Row(
            phase,
            what,
            len(some),
            sum(x.bytes for x in some) / 1e6,
            sum(x.us(gb_per_s, tflops) for x in some),
        )
        for (phase, what), some in found.items()
    ]
    return sorted(rows, key=lambda row: list(phases).index(row.phase))


def counts(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """{phase: {what: count}}, for comparison."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row.phase, {})[row.what] = row.count
    return found


def text(name: str, rows: list[Row], gb_per_s: float = GB_PER_S, tflops: float = TFLOPS) -> str:
    """The table as people read it."""
    lines = [
        f"{name}: one step, launch by launch (estimate at {gb_per_s:g} GB/s, {tflops:g} TFLOP/s, "
        f"{FLOOR_US} us a launch)"
    ]
    lines.append(f"{'phase':<12}{'what':<24}{'launches':>9}{'MB':>11}{'us (est.)':>11}")
    for phase in dict.fromkeys(row.phase for row in rows):
        mine = [row for row in rows if row.phase == phase]
        for i, row in enumerate(mine):
            first = phase if not i else ""
            numbers = f"{row.count:>9}{row.megabytes:>11.2f}{row.us:>11.1f}"
            lines.append(f"{first:<12}{row.what:<24}{numbers}")
        if len(mine) > 1:
            lines.append(_sum("", f"{phase} in all", mine))
    lines.append(_sum("step", "", rows))
    return "\n".join(lines)


def line(name: str, rows: list[Row]) -> str:
    """A step in one line."""
    count, megabytes, us = (
        sum(getattr(row, key) for row in rows) for key in ("count", "megabytes", "us")
    )
    return f"{name:<18}{count:>6} launches{megabytes:>11.1f} MB{us:>11.1f} us (est.)"


def compiled(kernels: list[Kernel], target: str) -> str:
    """Registers, spilled bytes and shared memory of the kernels as they were compiled, a line each
    form."""
    from fastgan.verify.aot import resources

    lines = [f"Triton's kernels on {target}: registers, spilled bytes, shared bytes"]
    for kernel in kernels:
        assembled = kernel.compiled.asm
        registers, spilled = resources(assembled["cubin"], assembled["ptx"])
        lines.append(
            f"  {kernel.name:<28}{registers:>6}{spilled:>6}{kernel.compiled.metadata.shared:>8}"
        )
    return "\n".join(lines)


def _sum(first: str, second: str, rows: list[Row]) -> str:
    count, megabytes, us = (sum(getattr(r, k) for r in rows) for k in ("count", "megabytes", "us"))
    numbers = f"{count:>9}{megabytes:>11.2f}{us:>11.1f}"
    return f"{first:<12}{second:<24}{numbers}"


UNCOUNTED = ("sagan", "biggan-small", "projected")
"""Orthogonal weights come from a QR, of which there are no values here; frozen features from a
package."""


def names() -> list[str]:
    """Everything that can be counted: recipes as `fastgan train` starts them, but for those that
    render their data by the operators counted or make no images, and the benchmark's suites of
    GPUs."""
    from fastgan.recipes import RECIPES

    left = (".translation.", ".media.")
    counted = [name for name, where in RECIPES.items() if not any(one in where for one in left)]
    gpu = [name for name in suites.SUITES if not name.startswith("cpu-")]
    return [*(name for name in counted if name not in UNCOUNTED), *gpu]


def record(
    name: str,
    *,
    impl: str = "auto",
    averaged: bool = True,
    target: str = "sm_90",
    compile: bool = False,
) -> tuple[list[Launch], list[Kernel]]:
    """The launches of one step of a recipe or suite as on a GPU of this target (bf16, the engine's
    choice `impl`), and the distinct Triton kernels. averaged: with the generator's average. Raises
    FastganError for an
        unknown name.
    """
    if name not in names():
        raise FastganError(f"no suite or recipe {name!r}: choose from {', '.join(names())}")
    recorder = Recorder()
    with (
        FakeGpu(recorder, target, compile) as gpu,
        torch.random.fork_rng([]),
        _switches_kept(),
        _no_trial(),
        _captured(),
    ):
        active = _suite(name, impl, averaged) if name in suites.SUITES else _recipe(name, impl)
        _watch(active, recorder)
        active.train_step(0)  # optimisers' state is born
        recorder.on = gpu.capturing = True
        active.on_device(active.runner.due(0))
        recorder.on = gpu.capturing = False
        active.close()
    return recorder.launches, list(recorder.kernels.values())


@contextlib.contextmanager
def _no_trial() -> Iterator[None]:
    """Nothing is computed here, so no trial can tell whether one pass is two: what a network is
    made of decides alone."""
    from fastgan.trainer.step import pairing

    tried, pairing.differs = pairing.differs, lambda *args: None
    try:
        yield
    finally:
        pairing.differs = tried


@contextlib.contextmanager
def _captured() -> Iterator[None]:
    """Optimisers are chosen as for steps that are captured, which the step that is counted stands
    for."""
    from fastgan.trainer.optimization import fused as flat

    chosen = flat.engine_of
    flat.engine_of = lambda impl, size, device, captured=True: chosen(impl, size, device, True)
    try:
        yield
    finally:
        flat.engine_of = chosen


@contextlib.contextmanager
def _switches_kept() -> Iterator[None]:
    """The engine sets process-wide switches when it begins on a GPU."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before


def _suite(name: str, impl: str, averaged: bool) -> Any:
    from fastgan.bench.iterations.ours import Ours

    suite = suites.SUITES[name]
    image = np.zeros(
        (max(suite.images, suite.batch), suite.size, suite.size, suite.channels), np.uint8
    )
    arrays = {"image": image} | ({"source": image.copy()} if suite.paired else {})
    return Ours(suite, arrays, torch.device("cuda"), impl=impl, averaged=averaged).active


def _recipe(name: str, impl: str) -> Any:
    from fastgan.recipes import find
    from fastgan.recipes.training import make_trainer

    config = find(name)(device="cuda", graph="off", impl=impl)
    return make_trainer(config, resume=False, log=None, out=None).active


def _watch(active: Any, recorder: Recorder) -> None:
    """Tells the recorder which part of the step is running."""

    def timed(function: Any, phase: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            with recorder.within(phase(*args)):
                return function(*args, **kwargs)

        return call

    runner = active.runner
    runner.run_phase = timed(
        runner.run_phase, lambda index, repeat, step: runner.phases[index].name
    )
    for optimizer in active.optimizers.values():
        optimizer.step = timed(optimizer.step, lambda *args: "optimiser")
    active.ema.update = timed(active.ema.update, lambda *args: "average")
