"""Makes tuning tables: for every layer-sized case, each candidate configuration checked against float64, then timed, the
fastest kept.

What a call may tune is found by running it: launchers name what they look up (``tuning.record``). An op with several engines
also gets the fastest of them.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fastgan import files, machine, paths
from fastgan.errors import FastganError
from fastgan.kernels import tuning
from fastgan.kernels._common import TORCH_DTYPES, has_triton, triton_minor
from fastgan.kernels.tuning import Entry, Shape, Table
from fastgan.ops import registry
from fastgan.ops.registry import Case, Kwargs, Op
from fastgan.verify.check import check, converted, leaves, named, precision, seed
from fastgan.verify.run import configurations
from fastgan.verify.timing import measure, rotations

SLOWER = 1.03  # an entry must beat the default by more than the noise of a median


@dataclass(frozen=True)
class Target:
    """One lookup to tune: the case that makes it, and what the launcher asks."""

    op: str
    case: str
    name: str
    type: str
    shape: Shape


def targets(ops: Sequence[Op], device: torch.device, types: Sequence[str], tag: str = "layer") -> Iterator[Target]:
    """Every distinct lookup that the ops' cases of a tag make in those types: forward and backward are run once."""
    seen = set()
    for op in ops:
        if op.lacks and op.lacks(device):
            continue
        for case in op.cases:
            for type_name in types:
                if (
                    tag not in case.tags
                    or type_name not in op.dtypes
                    or (case.dtypes is not None and type_name not in case.dtypes)
                ):
                    continue
                with tuning.record() as asked, precision(type_name):
                    for call in _calls(op, case, type_name, device, 1):
                        call()
                for name, kind, shape in asked:
                    if (name, kind, shape) not in seen and len(configurations(op, name)) > 1:
                        seen.add((name, kind, shape))
                        yield Target(op.name, case.name, name, kind, shape)


def _calls(op: Op, case: Case, type_name: str, device: torch.device, sets: int) -> list[Callable[[], Any]]:
    """Forward, and backward where the op has one, on independent input sets, by the Triton engine."""
    made = case.make(TORCH_DTYPES[type_name], device, seed(op.name, case.name))
    backward = "backward" in (case.directions or op.directions)

    def one(kwargs: Kwargs) -> Callable[[], Any]:
        wanted = [t for n in op.grad_inputs for _, t in leaves(kwargs.get(n), n) if t.is_floating_point()] if backward else []
        for t in wanted:
            t.requires_grad_()
        cotangents: list[torch.Tensor] = []

        def call() -> Any:
            outputs = [t for t in named(op, op.fn(**kwargs, impl="triton")).values() if t.requires_grad]
            if not outputs:
                return None
            if not cotangents:
                cotangents.extend(torch.randn_like(t, requires_grad=False) for t in outputs)
            return torch.autograd.grad(outputs, wanted, cotangents, allow_unused=True)

        return call

    return [one(converted(case, made, None, None)) for _ in range(sets)]


def tune(target: Target, device: torch.device, default_ms: float | None = None) -> tuple[Entry, list[dict[str, Any]]]:
    """The fastest right configuration for a lookup, and what was tried with error and time, the default (None) first.

    Where the launcher's default stands the entry's configuration is empty: it keeps a neighbour's winner from a shape where
    that lost.
    """
    op = registry.ops(target.op)[0]
    case = next(c for c in op.cases if c.name == target.case)
    small = next((c for c in op.cases if "quick" in c.tags and c.dtypes is None), None)
    type_name = target.type if target.type in op.dtypes else "fp32"
    probe = case.make(TORCH_DTYPES[type_name], device, seed(op.name, case.name))
    sets = rotations(sum(t.nbytes for _, t in leaves(probe, "")), at_most=8)
    calls = _calls(op, case, type_name, device, sets)
    tried: list[dict[str, Any]] = []
    for config in (None, *configurations(op, target.name)):
        found: dict[str, Any] = {"config": config}
        with tuning.override({target.name: config or {}}):  # empty: the default, whatever a table says
            rows = [r for c in (small, case) if c is not None for r in check(op, c, type_name, "triton", device, repeat=True)[0]]
            wrong = [r for r in rows if r.verdict == "FAIL"]
            found["error"] = max((r.error for r in rows if r.direction == "forward"), default=0.0)
            if wrong:
                found["wrong"] = f"{wrong[0].case} {wrong[0].direction} {wrong[0].output}: {wrong[0].note}"
            if config is None:  # what is launched without an entry, right or wrong
                found["ms"] = default_ms or measure(calls).ms
            elif not wrong:
                found["ms"] = measure(calls).ms
        tried.append(found)
    timed = [t for t in tried[1:] if "ms" in t]
    best = min(timed, key=lambda t: t["ms"], default=None)
    if best is None or best["ms"] * SLOWER > tried[0]["ms"]:
        best = tried[0]
    env = machine.describe(device)
    return Entry(
        target.name,
        target.type,
        dict(target.shape),
        config=dict(best["config"] or {}),
        ms=best["ms"],
        error=best["error"],
        torch=env["torch"],
        triton=env["triton"],
        commit=env["commit"],
        date=env["date"],
    ), tried


def tune_engine(op: Op, case: Case, type_name: str, device: torch.device) -> Entry | None:
    """Which engine is fastest on a case, for ops with more than one besides the reference; None where there is no choice."""
    from fastgan.ops import dispatch

    engines = [e for e in op.engines if e != "reference" and dispatch.missing(e, device) is None]
    chooser = dispatch._DISPATCHERS.get(op.name)
    if len(engines) < 2 or chooser is None:
        return None
    made = case.make(TORCH_DTYPES[type_name], device, seed(op.name, case.name))
    times, errors = {}, {}
    for engine in engines:
        rows, _ = check(op, case, type_name, engine, device, repeat=False)
        if any(r.verdict == "FAIL" for r in rows):
            continue
        errors[engine] = max((r.error for r in rows if r.direction == "forward"), default=0.0)
        copies = rotations(sum(t.nbytes for _, t in leaves(made, "")), at_most=8)
        sets = [converted(case, made, None, None) for _ in range(copies)]
        with torch.no_grad():
            times[engine] = measure([functools.partial(op.fn, **kwargs, impl=engine) for kwargs in sets]).ms
    shape = chooser.last_shape
    if not times or shape is None:
        return None
    best = min(times, key=lambda e: times[e])
    env = machine.describe(device)
    stamp = {k: env[k] for k in ("torch", "triton", "commit", "date")}
    proof: dict[str, Any] = {"ms": times[best], "error": errors[best]}
    return Entry(op.name, type_name, dict(shape), engine=best, **proof, **stamp)


def save(path: Path, table: Table) -> None:
    """Write ``table`` whole. Raises FastganError."""
    with files.explained(f"can't write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, tuning.as_text(table).encode())


def merge(path: Path, device: torch.device, new: Sequence[Entry]) -> Table:
    """Puts ``new`` into the table at ``path`` (made if missing), over entries of the same op, type and shape; writes and
    returns it.
    """
    facts = tuning.device_facts(device)
    if facts is None:
        raise FastganError("fastgan tune needs a GPU: tables are kept per GPU model")
    key = lambda e: (e.op, e.type, tuple(sorted(e.shape.items())))
    old = tuning.read(path).entries if path.is_file() else ()
    entries = {key(e): e for e in [*old, *new]}
    table = Table(facts.gpu, facts.capability, triton_minor(), tuple(entries.values()), path)
    save(path, table)
    tuning.forget()
    return table


def table_path(device: torch.device, ship: bool) -> Path:
    """Where a device's table belongs: the user's folder, or (``ship``) the package's, to be committed."""
    facts = tuning.device_facts(device)
    if facts is None:
        raise FastganError("fastgan tune needs a GPU: tables are kept per GPU model")
    root = tuning.SHIPPED if ship else paths.config_dir()
    return root / tuning.slug(facts.gpu) / f"triton-{triton_minor()}.json"


def run(names: Sequence[str], types: Sequence[str], budget: float, ship: bool, say: Callable[[str], None]) -> int:
    """Tunes within a budget of seconds and writes after every entry; 0 if everything was reached, 1 if some is left."""
    if not torch.cuda.is_available() or not has_triton:
        raise FastganError("fastgan tune needs an NVIDIA GPU and Triton: without, kernels launch with their safe defaults")
    device = torch.device("cuda", torch.cuda.current_device())
    path, end, left, kept = table_path(device, ship), time.monotonic() + budget, 0, 0
    registry.load()
    ops = registry.ops(*names)
    known = {(e.op, e.type, tuple(sorted(e.shape.items()))) for e in (tuning.read(path).entries if path.is_file() else ())}
    for target in targets(ops, device, types):
        if (target.name, target.type, tuple(sorted(target.shape))) in known:
            continue
        if time.monotonic() > end:
            left += 1
            continue
        entry, tried = tune(target, device)
        wrong = sum("wrong" in t for t in tried)
        what = f"{target.name} {target.type} {dict(target.shape)}: default {tried[0]['ms']:.4f} ms"
        merge(path, device, [replace(entry, shared=_shared(target, entry)) if entry.config else entry])
        kept += 1
        found = f"{entry.ms:.4f} ms with {entry.config}" if entry.config else "stands"
        say(f"{what}, {found}{f', {wrong} configurations WRONG' if wrong else ''}")
    for op in ops:
        for case in op.cases:
            for type_name in types:
                if "layer" in case.tags and type_name in op.dtypes and len(op.engines) > 2 and time.monotonic() < end:
                    fastest = tune_engine(op, case, type_name, device)
                    if fastest:
                        merge(path, device, [fastest])
                        say(f"{op.name} {type_name} {fastest.shape}: {fastest.engine}, {fastest.ms:.4f} ms")
    say(f"{kept} entries in {path}" + (f"; {left} lookups left, run again" if left else ""))
    return int(left > 0)


def _shared(target: Target, entry: Entry) -> int:
    """Shared memory the entry's configuration needs on this GPU, by compiling for it: what decides whether it fits another."""
    from fastgan.verify import aot

    facts = tuning.device_facts(torch.device("cuda", torch.cuda.current_device()))
    if facts is None or facts.capability not in aot.SHARED_LIMIT:
        return 0
    variants = [(i, v) for i, v in enumerate(aot._variants(target.op)) if v.tuned == target.name]
    rows = [
        aot.compile_job(aot.Job(target.op, i, tuple(sorted({**v.configs[0], **entry.config}.items())), facts.capability), True)
        for i, v in variants
    ]
    return max((r.shared for r in rows), default=0)
