"""Rows of single operators, from the registry: each engine that runs here against eager PyTorch and
torch.compile, in turns.

Used by `fastgan bench --suite kernels`, by the stage `kernels` of fastgan.bench.gpu and by `pytest
bench/`. A provider is timed only after its outputs and gradients agreed with the op's reference on
inputs of the same values.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan.bench.baselines import rival
from fastgan.bench.iterations import measure, work
from fastgan.bench.iterations.gate import error
from fastgan.bench.operator_calls import (
    PYTORCH,
    Caller,
    Sample,
    automatic,
    engines,
    function,
    inputs,
)
from fastgan.verify.calls import Directions, call_reference, precision, to
from fastgan.verify.check import one_line
from fastgan.verify.registry import Kwargs

AGREES = {"bf16": 2e-2, "fp16": 4e-3, "tf32": 4e-3, "fp32": 1e-4}
"""Relative L2 between two results of one type, each within the proof's bound and twice PyTorch's
own error: a gate, no proof."""
Entry = dict[str, Any]


def outcome(
    sample: Sample, fn: Callable[..., Any], kwargs: Kwargs, ways: Directions
) -> dict[str, Tensor]:
    """Outputs, state after the call and first derivatives by name, floating ones only."""
    with precision(sample.type_name):
        run = ways.run(lambda given: fn(**given), kwargs)
    found = {**run.outputs, **run.grads.get("backward", {})}
    return {name: t.detach() for name, t in found.items() if t.is_floating_point()}


def disagreement(found: dict[str, Tensor], gold: dict[str, Tensor]) -> float:
    """Worst relative L2 error over the reference's outputs, state and gradients; inf where one is
    missing."""
    return max(
        (error([found[n]], [g]) if n in found else float("inf") for n, g in gold.items()),
        default=0.0,
    )


def least(sample: Sample, made: Kwargs) -> tuple[int, int]:
    """(FLOPs, bytes) of the least work, as the op registers them; 0 where it does not."""
    ways = ("forward", "backward") if sample.direction == "both" else ("forward",)
    flops, moved = (
        0 if f is None else sum(f(made, way) for way in ways)
        for f in (sample.op.flops, sample.op.bytes)
    )
    return flops, moved


def blank(sample: Sample, device: torch.device) -> Entry:
    """An entry with nothing measured."""
    return {
        "op": sample.op.name,
        "case": sample.case.name,
        "type": sample.type_name,
        "direction": sample.direction,
        "device": device.type,
        "auto": "",
        "missing": {},
        "rows": [],
    }


def run(
    sample: Sample,
    device: torch.device,
    providers: Sequence[str],
    *,
    repeats: int,
    until: float = float("inf"),
    say: Callable[[str], None] = lambda line: None,
) -> Entry:
    """One line of the table as JSON values. providers: of "eager", "compile", "auto" and engines'
    names; an engine the op lacks or that cannot run here is passed over, and what cannot run is in
    "missing". Raises what the op's reference raises.
    """
    # beyond a few shapes of one function the compiler falls back to eager without a word
    torch._dynamo.reset()
    gpu = device.type == "cuda"
    here, missing = engines(sample, device)
    if not here:
        return blank(sample, device) | {"missing": missing}
    made = sample.make(device)  # once: drawing a large layer's numbers takes longer than all else
    auto = automatic(sample, device, made)
    wanted = [
        p
        for p in dict.fromkeys(auto if p == "auto" else p for p in providers)
        if p in here or p in PYTORCH
    ]
    ways = Directions(
        sample.op,
        sample.case,
        ("forward", "backward") if sample.direction == "both" else ("forward",),
    )
    gold = outcome(
        sample,
        lambda **kwargs: call_reference(sample.op, None, None)(kwargs),
        to(made, None, None),
        ways,
    )
    entry = blank(sample, device) | {"auto": auto, "missing": missing}
    alive: dict[str, Caller] = {}
    by_name: dict[str, Entry] = {}

    def fail(key: str, failure: Exception | str) -> None:
        by_name[key] |= {
            "status": "failed",
            "error": failure if isinstance(failure, str) else one_line(failure),
        }
        say(f"  {sample.name} | {key}: {by_name[key]['error']}")

    for provider in wanted:
        row: Entry = {"provider": provider, "ours": provider not in PYTORCH, "status": "ok"}
        by_name[provider] = row
        entry["rows"].append(row)
        try:
            if row["ours"] or rival(sample.op).same:
                given = inputs(sample, provider, made, 1)[0]
                row["disagreement"] = disagreement(
                    outcome(sample, function(sample, provider, auto), given, ways), gold
                )
                if not row["disagreement"] < AGREES[sample.type_name]:
                    row["agrees"] = False
                    fail(
                        provider,
                        f"differs from the reference by {row['disagreement']:.1e}: not timed",
                    )
                    continue
            began = time.perf_counter()
            alive[provider] = Caller(sample, provider, auto, device, made)
            row |= {
                "build_s": time.perf_counter() - began,
                "how": alive[provider].how,
                "sets": alive[provider].count,
            }
        except Exception as failure:  # shown in its row, the others still count
            fail(provider, failure)
    took = measure.interleave(
        alive, device, repeats=repeats, sample_s=0.02 if gpu else 0.01, until=until, failed=fail
    )
    flops, moved = least(sample, made)
    floor = work.Work(flops, moved).floor(work.peaks(device.type))
    entry |= {"gflop": flops / 1e9, "gbytes": moved / 1e9, "floor_ms": floor}
    for provider, seconds in took.items():
        row, count = by_name[provider], alive[provider].count
        row["samples_ms"] = [1e3 * s / count for s in seconds]
        row["ms"] = measure.quantiles(row["samples_ms"])
        if floor:
            row["roofline"] = floor / row["ms"][1]
    compare(entry)
    return entry


def compare(entry: Entry) -> None:
    """Adds to each timed row `best`, the faster of PyTorch's that ran, and `speedup` against it:
    [p20, p50, p80] over repeats."""
    timed = [r for r in entry["rows"] if "ms" in r]
    best = min((r for r in timed if not r["ours"]), key=lambda r: r["ms"][1], default=None)
    if best is None:
        return
    for row in timed:
        row["best"] = best["provider"]
        row["speedup"] = measure.ratios(best, row)


def merge(first: Entry, second: Entry) -> Entry:
    """An entry without torch.compile and one with it, of the same call: the second's rows count
    where both have one."""
    rows = {row["provider"]: row for row in (*first["rows"], *second["rows"])}
    return {**first, **second, "rows": list(rows.values())}
