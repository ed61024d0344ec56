"""A whole benchmark: for each suite every row is built, judged, timed in turns and weighed, within
a budget."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fastgan import machine
from fastgan.bench import operator_calls
from fastgan.bench import operators as kernels
from fastgan.bench.iterations import measure, suites
from fastgan.bench.iterations import work as floor
from fastgan.bench.iterations.gate import STEPS, Gate
from fastgan.bench.iterations.ours import Ours
from fastgan.bench.iterations.plain import Plain
from fastgan.bench.iterations.rows import ABLATION, RowSpec, worth
from fastgan.bench.iterations.suites import Suite
from fastgan.bench.tables import headline
from fastgan.graphs.backends import Graph

Entry = dict[str, Any]
QUICKLY = (
    40.0  # seconds: rows that may take longer to build wait until the others have been timed once
)


def one_line(error: BaseException) -> str:
    """An exception as one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:240]


@dataclass
class Bench:
    """How to measure.

    quick: fewer repeats, gates at fewer steps. budget: seconds for everything. say: where progress
    goes, a line each. graph: stands in for CUDA's (tests). children: measure memory and start-up in
        processes of their own. profile: each row's kernels,
    on a GPU. takes: seconds that building a row takes, where known better than by its RowSpec.
    keep: gets what is known of a suite so far, after a first short timing of the rows that need no
        long compilation.
    """

    device: torch.device
    quick: bool = False
    budget: float = float("inf")
    say: Callable[[str], None] = lambda line: None
    graph: Callable[[], Graph] | None = None
    children: bool = True
    repeats: int = 0
    steps: tuple[int, ...] = ()
    profile: bool = False
    takes: Mapping[str, float] = field(default_factory=dict)
    keep: Callable[[dict[str, Any]], None] | None = None
    _end: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.budget
        self.repeats = self.repeats or (9 if self.quick else 15)
        self.steps = self.steps or (STEPS[:2] if self.quick else STEPS)

    def left(self) -> float:
        """Seconds of the budget."""
        return self._end - time.monotonic()

    def run(
        self,
        chosen: Sequence[Suite],
        rows: Sequence[RowSpec],
        ablation: Suite | None = None,
        ops: bool = False,
        only: Sequence[str] = (),
    ) -> dict[str, Any]:
        """The results of all suites as JSON values, and of single operators where `ops`,
        of those named or of all; docs/benchmarks.md has the fields."""
        result: dict[str, Any] = {"machine": machine.describe(self.device), "quick": self.quick}
        result |= {"suites": [], "kernels": []}
        jobs = [(suite, rows, "rows") for suite in chosen] + (
            [(ablation, ABLATION, "ablation")] if ablation else []
        )
        # first: what they leave of their share is the suites'; of a quick run they get little, a
        # quick look
        if ops:
            part = 0.15 if self.quick and jobs else 1 / (len(jobs) + 1)
            result["kernels"] = self.kernels(time.monotonic() + part * self.left(), only)
        for index, (suite, specs, kind) in enumerate(jobs):
            share = self.left() / (len(jobs) - index)
            self.say(f"{suite.name}{' (ablation)' if kind == 'ablation' else ''}: {suite.what}")
            result["suites"].append(self.suite(suite, specs, kind, time.monotonic() + share))
        return result

    def kernels(self, until: float = float("inf"), only: Sequence[str] = ()) -> list[Entry]:
        """An entry an operator, case and direction; those that no time was left for have no rows
        but an "error"."""
        found: list[Entry] = []
        compiled = not self.quick
        takes = 0.0 if not compiled else 60.0 if self.device.type == "cuda" else 10.0
        self.say(
            "kernels: each operator's engines against eager PyTorch"
            + (" and torch.compile" if compiled else "")
        )
        for sample in operator_calls.samples(self.device, only, first=self.quick):
            providers = ("eager", *(("compile",) if compiled else ()), *operator_calls.ENGINES)
            if min(self.left(), until - time.monotonic()) < takes:
                entry = kernels.blank(sample, self.device) | {"error": "not run within the budget"}
            else:
                try:
                    entry = kernels.run(
                        sample,
                        self.device,
                        providers,
                        repeats=self.repeats,
                        until=until,
                        say=self.say,
                    )
                except Exception as error:  # without the reference no engine counts
                    entry = kernels.blank(sample, self.device) | {
                        "error": f"no reference: {one_line(error)}"
                    }
            found.append(entry)
            if (row := headline(entry)) is not None:
                shown = f"{1e3 * row['ms'][1]:.1f} us, {row['speedup'][1]:.2f}x {row['best']}"
                self.say(f"  {sample.name}: {row['provider']} {shown}")
        return found

    def suite(
        self,
        suite: Suite,
        specs: Sequence[RowSpec],
        kind: str = "rows",
        until: float = float("inf"),
    ) -> dict[str, Any]:
        """One suite's results."""
        torch._dynamo.reset()
        gc.collect()
        gpu = self.device.type == "cuda"
        width = 2 if gpu else 4
        found: dict[str, Any] = {
            "suite": suite.name,
            "kind": kind,
            "what": suite.what,
            "batch": suite.batch,
            "images_per_step": suite.images_per_step,
            "device": self.device.type,
            "compute": "bf16" if gpu else "fp32",
            "gate_steps": list(self.steps),
            "rows": [],
        }
        entries: dict[str, Entry] = {
            spec.key: {
                "row": spec.key,
                "label": spec.title(self.device),
                "ours": spec.ours,
                "status": "ok",
            }
            for spec in specs
        }
        found["rows"] = list(entries.values())

        def fail(key: str, error: Exception | str) -> None:
            line = error if isinstance(error, str) else one_line(error)
            entries[key] |= {"status": "failed", "error": line}
            self.say(f"  {key}: {line}")

        try:
            arrays = suites.arrays(suite)
            gate = Gate(suite, arrays, self.device, self.steps)
            gate.prepare(min(until, self._end))
        except Exception as error:  # without float64 gradients no row counts
            for key in entries:
                fail(key, f"no reference gradients: {one_line(error)}")
            return found
        found |= {"row_c_errors": gate.reference, "gate_steps": list(gate.steps)}
        if gate.steps != self.steps:
            self.say(
                f"  gradients compared at steps {', '.join(map(str, gate.steps))} only: no time "
                "for more"
            )
        alive: dict[str, Plain | Ours] = {}
        shown = False
        for spec in sorted(specs, key=worth):
            if self.keep is not None and not shown and spec.seconds > QUICKLY and alive:
                self._time(suite, alive, entries, until, fail, repeats=3)
                compare(found["rows"], kind)
                self.keep(found)
                shown = True
            try:
                runner = self._build(spec, suite, arrays, gate, entries[spec.key], until)
            except Exception as error:  # shown in the row's line of the table
                fail(spec.key, error)
                continue
            if runner is None:
                self.say(f"  {spec.key}: {entries[spec.key]['error']}")
            else:
                alive[spec.key] = runner
        with contextlib.suppress(RuntimeError):  # _weigh says what is wrong
            floor.peaks(self.device.type, again=True)
        self._time(suite, alive, entries, until, fail)
        self._weigh(suite, alive, entries, found, width)
        if self.profile and gpu:
            for key, runner in alive.items():
                try:
                    entries[key]["kernels"] = measure.kernels(runner, self.device)
                except (
                    Exception
                ) as error:  # a profiler that a machine does not allow: the row keeps its time
                    entries[key]["kernels"] = {"error": one_line(error)}
        for runner in alive.values():
            runner.close()
        if self.children:
            self._children(suite, specs, entries, kind)
        compare(found["rows"], kind)
        return found

    def _build(
        self, spec: RowSpec, suite: Suite, arrays: Any, gate: Gate, entry: Entry, until: float
    ) -> Plain | Ours | None:
        compiled = spec.options is not None and bool(spec.options.modules or spec.options.whole)
        takes = spec.seconds if self.device.type == "cuda" else (90.0 if compiled else 0.0)
        takes = self.takes.get(spec.key, takes)
        if min(self.left(), until - time.monotonic()) < takes:
            need = f"it may take {takes:.0f} s" if takes else "no time is left"
            entry |= {"status": "skipped", "error": f"not run within the budget: {need}"}
            return None
        started = time.perf_counter()
        with measure.device_memory(self.device) as memory:
            runner = spec.build(suite, arrays, self.device, graph=self.graph)
            with runner.flags():
                runner.step()
                measure.sync(self.device)
                entry["build_s"] = time.perf_counter() - started
                runner.step()
                measure.sync(self.device)
        entry |= memory
        judged = (
            runner
            if not suite.dropout
            else spec.build(suite, arrays, self.device, dropout=False, graph=self.graph)
        )
        verdict = gate.judge(judged)
        if judged is not runner:
            judged.close()
        entry["gradient"] = {
            "passed": verdict.passed,
            "of_allowed": verdict.worst,
            "where": verdict.where,
            "errors": verdict.errors,
        }
        if not verdict.passed:
            runner.close()
            entry |= {"status": "failed", "error": verdict.line()}
            return None
        if (saved := measure.saved_activations(runner)) is not None:
            entry["saved_MiB"] = saved / 2**20
        self.say(f"  {spec.key}: built in {entry['build_s']:.1f} s, {verdict.line()}")
        return runner

    def _time(
        self,
        suite: Suite,
        alive: dict[str, Plain | Ours],
        entries: dict[str, Entry],
        until: float,
        fail: Callable[[str, Exception | str], None],
        repeats: int = 0,
    ) -> None:
        gpu = self.device.type == "cuda"
        deadline = min(until, self._end)
        samples = measure.interleave(
            alive,
            self.device,
            repeats=repeats or self.repeats,
            sample_s=0.15 if gpu else 0.3,
            until=deadline,
            failed=fail,
        )
        nvml = measure.Nvml(self.device)
        for key in list(alive):
            if entries[key]["status"] != "ok":
                alive.pop(key).close()
                continue
            entry = entries[key]
            entry["samples_ms"] = [1e3 * s for s in samples[key]]
            entry["ms"] = measure.quantiles(entry["samples_ms"])
            entry["images_per_s"] = suite.images_per_step / entry["ms"][1] * 1e3
            if gpu and not repeats and deadline - time.monotonic() > 2:
                entry |= measure.energy(
                    alive[key], self.device, nvml, suite.images_per_step, 0.5 if self.quick else 1.5
                )
            self.say(f"  {key}: {entry['ms'][1]:.3f} ms, {entry['images_per_s']:.0f} images/s")

    def _weigh(
        self,
        suite: Suite,
        alive: dict[str, Plain | Ours],
        entries: dict[str, Entry],
        found: dict[str, Any],
        width: int,
    ) -> None:
        """How near each row is to the least time that its work allows."""
        try:
            least = floor.work(suite, width)
            peaks = floor.peaks(self.device.type, again=True)
        except (
            Exception
        ) as error:  # a torch whose meta device lacks an operator: the column stays empty
            found["work"] = {"error": one_line(error)}
            return
        floor_ms = least.floor(peaks)
        found["work"] = {
            "gflop": least.flops / 1e9,
            "gbytes": least.bytes / 1e9,
            "floor_ms": floor_ms,
            **peaks,
        }
        for key, runner in alive.items():
            ms = entries[key]["ms"][1]
            here = peaks
            if self.device.type == "cpu" and runner.low:
                here = {**peaks, "matmul_tflops": peaks["bf16_tflops"]}
            entries[key]["roofline"] = least.floor(here) / ms
            entries[key]["gflops"] = least.flops / ms / 1e6

    def _children(
        self, suite: Suite, specs: Sequence[RowSpec], entries: dict[str, Entry], kind: str
    ) -> None:
        """Resident memory on a CPU needs a process of its own; start-up from nothing too."""
        wanted = [s.key for s in specs if kind == "rows" and entries[s.key]["status"] == "ok"]
        if self.device.type == "cuda":
            wanted = [] if self.quick else [key for key in wanted if key in ("c", "i")]
        elif suite in suites.TINY:
            wanted = []
        for key in wanted:
            if self.left() < 30:
                return
            try:
                facts = measure.child_facts(suite.name, key, torch.get_num_threads())
            except Exception as error:  # said, and the row keeps its time
                self.say(f"  {key}: no memory or start-up: {one_line(error)}")
                continue
            if self.device.type == "cuda":
                facts.pop("peak_MiB")  # measured in this process already
            entries[key] |= facts


def compare(entries: Sequence[Entry], kind: str = "rows") -> None:
    """Adds to each timed row: `best` (the fastest of a to f2 that ran), `speedup` against it and
    `vs_a`, each [p20, p50, p80] over the repeats; below 1 is a loss. In an ablation `speedup` is
    against the first row and `step` against the one before.
    """
    timed = [e for e in entries if "ms" in e]
    if kind == "ablation":
        for before, entry in zip([timed[0], *timed] if timed else [], timed):
            entry["speedup"] = measure.ratios(timed[0], entry)
            entry["step"] = measure.ratios(before, entry)
        return
    others = [e for e in timed if not e["ours"]]
    best = min(others, key=lambda e: e["ms"][1], default=None)
    first = next((e for e in timed if e["row"] == "a"), None)
    for entry in timed:
        if best is not None:
            entry["best"] = best["row"]
            entry["speedup"] = measure.ratios(best, entry)
        if first is not None:
            entry["vs_a"] = measure.ratios(first, entry)
