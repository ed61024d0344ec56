"""What a run of ``fastgan verify`` checks, and what it cannot: the plan, its execution, and the
list of things not exercised."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from fastgan import machine
from fastgan.kernels import tuning
from fastgan.kernels.common import INTERPRET, TRITON_VERSION, has_triton
from fastgan.ops.dispatch import missing
from fastgan.verify import registry
from fastgan.verify.check import CheckRow, check
from fastgan.verify.registry import Bound, Case, Op

INTERPRETED_TYPES = ("fp32", "fp16")


@dataclass(frozen=True)
class CheckJob:
    """One check: an engine of an op on a case, in a type, under a launch configuration (None: what
    the tables give)."""

    op: str
    case: str
    type: str
    engine: str
    config: tuple[str, int] | None = None  # (tuning name, index into Op configurations)
    repeat: bool = True


@dataclass
class Report:
    """Everything a run found."""

    rows: list[CheckRow]
    not_exercised: list[str]
    environment: dict[str, Any]
    level: str
    seconds: float
    slowest: list[tuple[str, float]] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """True if a row failed, or nothing at all was checked."""
        return any(r.verdict == "FAIL" for r in self.rows) or not self.rows

    def as_json(self) -> dict[str, Any]:
        """The report as plain data: rows with all numbers, exceptions to the bounds, what was not
        exercised."""
        return {
            "level": self.level,
            "failed": self.failed,
            "seconds": self.seconds,
            "environment": self.environment,
            "rows": [asdict(r) for r in self.rows],
            "not_exercised": self.not_exercised,
            "exceptions": exceptions({r.op for r in self.rows}),
        }


def exceptions(names: set[str]) -> list[str]:
    """One line for every exception to the bounds that the ops of a run carry, outputs together
    that have the same one."""
    outputs: dict[tuple[str, Bound], list[str]] = {}
    for op in registry.ops():
        if op.name in names:
            for output, bound in op.bounds.items():
                outputs.setdefault((op.name, bound), []).append(output)
    lines = []
    for (name, bound), alike in outputs.items():
        limits = [("L2", bound.l2), ("times PyTorch's own", bound.ratio), ("peak", bound.peak)]
        changed = ", ".join(f"{n} {v:g}" for n, v in limits if v is not None)
        lines.append(f"{name} {', '.join(alike)}: {changed}: {bound.reason}")
    return lines


def configurations(op: Op, name: str) -> list[dict[str, Any]]:
    """Every configuration kernel ``name`` of ``op`` may launch with: AOT variants' own, committed
    and user entries, candidates.
    """
    found: list[dict[str, Any]] = []
    variants = op.kernels() if op.kernels and has_triton else ()
    own = [dict(c) for v in variants if v.tuned == name for c in v.configs]
    for config in [
        *own,
        *(e.config for e in tuning.entries(name)),
        *(dict(c) for c in op.candidates.get(name, ())),
    ]:
        if config and config not in found:
            found.append(config)
    return found


def tuned_names(op: Op) -> list[str]:
    """The tuning names of an op, in order, once each."""
    variants = op.kernels() if op.kernels and has_triton else ()
    return list(dict.fromkeys([*(v.tuned for v in variants if v.tuned), *op.candidates]))


def plan(ops: Sequence[Op], level: str, device: torch.device) -> tuple[list[CheckJob], list[str]]:
    """The checks of a level (``quick`` or ``full``) on a device, and a line for each thing they
    cannot show."""
    on_gpu = device.type == "cuda"
    jobs: list[CheckJob] = []
    missed: dict[str, list[str]] = {}
    for op in ops:
        wanted = (
            {"quick"}
            if level == "quick"
            else {"quick", "full", "layer", "huge"}
            if on_gpu
            else {"quick", "full"}
        )
        cases = [c for c in op.cases if wanted & set(c.tags)]
        if not cases:
            missed.setdefault(f"no {level} case", []).append(op.name)
        if level == "full" and not on_gpu:
            for case in op.cases:
                if case not in cases and {"layer", "huge"} & set(case.tags):
                    kind = (
                        "addresses beyond 2^31"
                        if "huge" in case.tags
                        else "layer shapes of real networks"
                    )
                    missed.setdefault(f"{kind} (needs a GPU)", []).append(f"{op.name}/{case.name}")
        for engine in op.engines:
            if engine == "reference":
                types = ["fp32"] if "fp32" in op.dtypes else list(op.dtypes[:1])
            elif reason := missing(engine, device):
                missed.setdefault(f"engine {engine} ({reason})", []).append(op.name)
                continue
            else:
                types = [
                    t for t in op.dtypes if on_gpu or engine == "cpu" or t in INTERPRETED_TYPES
                ]
                for t in set(op.dtypes) - set(types):
                    why = "the interpreter truncates where a GPU rounds" + (
                        ", and its bf16 dot is wrong" if op.uses_dot else ""
                    )
                    missed.setdefault(
                        f"{t} ({why if t == 'bf16' else 'the interpreter multiplies in fp32'})", []
                    ).append(op.name)
            for case in cases:
                if case.engines is not None and engine not in case.engines:
                    continue
                here = [t for t in types if case.dtypes is None or t in case.dtypes]
                if engine == "reference" and "huge" in case.tags:
                    continue
                # the kernels alone promise equal bits: cuDNN's fastest algorithms add with atomics
                jobs += [
                    CheckJob(
                        op.name,
                        case.name,
                        t,
                        engine,
                        repeat=engine == "triton" and (on_gpu or i == 0),
                    )
                    for i, t in enumerate(here)
                ]
            if level == "full" and engine == "triton":
                first = [c for c in cases if "quick" in c.tags][:1]
                for name in tuned_names(op):
                    for i in range(len(configurations(op, name))):
                        jobs += [
                            CheckJob(op.name, c.name, t, engine, (name, i))
                            for c in first
                            for t in types[: None if on_gpu else 1]
                        ]
    lines = [f"{what}: {', '.join(dict.fromkeys(who))}" for what, who in missed.items()]
    if not on_gpu and INTERPRET:
        lines.append(
            "warps and races between them, asynchronous copies, alignment, occupancy: one program "
            "at a time runs here, in NumPy"
        )
    return jobs, lines


def execute(job: CheckJob, device: torch.device) -> tuple[list[CheckRow], float]:
    """Runs one job: its rows and seconds."""
    op = registry.ops(job.op)[0]
    case: Case = next(c for c in op.cases if c.name == job.case)
    if job.config is None:
        return check(op, case, job.type, job.engine, device, job.repeat)
    name, index = job.config
    config = configurations(op, name)[index]
    with tuning.override({name: config}):
        rows, seconds = check(op, case, job.type, job.engine, device, repeat=False)
    label = ", ".join(f"{k} {v}" for k, v in config.items())
    for r in rows:
        r.case = f"{r.case} [{name}: {label}]"
    return rows, seconds


def _in_worker(job: CheckJob) -> tuple[list[CheckRow], float]:
    torch.set_num_threads(1)
    return execute(job, torch.device("cpu"))


def run(
    names: Sequence[str] = (),
    level: str = "quick",
    device: torch.device | None = None,
    workers: int = 1,
    families: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Loads the registry and verifies the named ops (default: all) on ``device`` (default: the GPU
    if there is one, else the CPU).
    """
    start = time.perf_counter()
    device = device or torch.device(
        "cuda" if torch.cuda.is_available() and not INTERPRET else "cpu"
    )
    registry.load(families)
    jobs, not_exercised = plan(registry.ops(*names), level, device)
    done: list[tuple[CheckJob, list[CheckRow], float]] = []
    threads = torch.get_num_threads()
    if workers > 1 and device.type == "cpu" and len(jobs) > 1:
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            for job, (rows, seconds) in zip(jobs, pool.imap(_in_worker, jobs)):
                done.append((job, rows, seconds))
                if progress:
                    progress(len(done), len(jobs))
    else:
        if device.type == "cpu":
            torch.set_num_threads(
                1
            )  # a thread pool costs more than these sizes repay, and keeps sums in one order
        try:
            for job in jobs:
                done.append((job, *execute(job, device)))
                if progress:
                    progress(len(done), len(jobs))
        finally:
            torch.set_num_threads(threads)
    slowest = sorted(
        ((f"{j.op}/{j.case} {j.type} {j.engine}", s) for j, _, s in done), key=lambda x: -x[1]
    )[:5]
    rows = [r for _, some, _ in done for r in some]
    mode = "Triton interpreter on the CPU" if INTERPRET else "PyTorch on the CPU"
    mode = "GPU" if device.type == "cuda" else mode
    environment = {**machine.describe(device), "mode": mode}
    return Report(rows, not_exercised, environment, level, time.perf_counter() - start, slowest)


def default_workers() -> int:
    """Processes for the interpreter: the cores this process may use, at most 4."""
    return min(4, machine.cores())


__all__ = [
    "TRITON_VERSION",
    "CheckJob",
    "Report",
    "configurations",
    "default_workers",
    "execute",
    "plan",
    "run",
]
