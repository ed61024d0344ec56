"""Every kernel and shipped configuration compiled for a GPU that need not be there: registers,
spills, shared memory, matrix instructions.

A row fails if the kernel does not compile, spills registers, wants more shared memory than a block
may have on that GPU, or should use tensor cores and does not. Rows are kept under the hash of the
kernel's source (its jitted callees included), so a second run costs almost nothing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastgan import files, paths
from fastgan.errors import FastganError
from fastgan.kernels import tuning
from fastgan.kernels.common import has_triton, triton
from fastgan.verify import registry
from fastgan.verify.check import one_line
from fastgan.verify.registry import Op, Variant
from fastgan.verify.report import table

# Shared memory a block may use, in bytes: CUDA C++ Programming Guide, table "Technical
# specifications per compute capability".
SHARED_LIMIT = {
    f"sm_{n}": kb * 1024
    for n, kb in (
        (80, 163),
        (86, 99),
        (87, 163),
        (89, 99),
        (90, 227),
        (100, 227),
        (103, 227),
        (120, 99),
        (121, 99),
    )
}
MATRIX = {"wgmma": "wgmma.mma_async", "mma.sync": "mma.sync", "tcgen05": "tcgen05.mma"}
OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg", "enable_fp_fusion")
FORMAT = 1  # of kept rows: raise it when a row's meaning changes


@dataclass
class CompiledRow:
    """One kernel, configuration and target. ``spilled`` is bytes a thread stores and loads again;
    ``kept`` that the row came from the cache.
    """

    op: str
    kernel: str
    config: str
    target: str
    verdict: str = "pass"
    registers: int = 0
    spilled: int = 0
    shared: int = 0
    limit: int = 0
    matrix: str = ""
    seconds: float = 0.0
    note: str = ""
    kept: bool = False


@dataclass(frozen=True)
class CompileJob:
    """What a worker compiles: indices rather than kernels, since a jitted function cannot be sent
    to another process."""

    op: str
    variant: int
    config: tuple[tuple[str, Any], ...]
    target: str


@functools.cache
def variants_of(name: str) -> tuple[Variant, ...]:
    op = registry.ops(name)[0]
    return tuple(op.kernels()) if op.kernels else ()


def jobs(ops: Sequence[Op], targets: Sequence[str], defaults: bool = False) -> list[CompileJob]:
    """Every variant x (its own configurations, and the committed table entries for that target),
    once each.

    ``defaults``: of a variant's own configurations only the first, which its launcher uses untuned;
    the rest are the tuner's candidates.
    """
    found: dict[tuple[Any, ...], CompileJob] = {}
    for op in ops:
        for i, variant in enumerate(variants_of(op.name)):
            for target in targets:
                if int(target.removeprefix("sm_")) < variant.least:
                    continue
                entries = tuning.entries(variant.tuned, target) if variant.tuned else ()
                shipped = [{**variant.configs[0], **e.config} for e in entries if e.config]
                for config in [*variant.configs[: 1 if defaults else None], *shipped]:
                    chosen = tuple(sorted(config.items()))
                    form = (
                        sorted(variant.signature.items()),
                        sorted(variant.constexprs.items(), key=str),
                        variant.aligned,
                    )
                    found.setdefault(
                        (id(variant.kernel), repr(form), chosen, target),
                        CompileJob(op.name, i, chosen, target),
                    )
    return list(found.values())


def source_of(variant: Variant, config: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """(Triton's ASTSource, launch options) of a variant under a configuration, with the
    specialisation the launcher would get."""
    from triton.compiler import ASTSource

    kernel = variant.kernel
    names = list(kernel.arg_names)
    options = {k: v for k, v in config.items() if k in OPTIONS}
    # what the kernel does not take steers the launcher alone: a grid size, a threshold
    constexprs = {**variant.constexprs, **{k: v for k, v in config.items() if k in names}}
    if unknown := [k for k in (*variant.signature, *variant.constexprs) if k not in names]:
        raise FastganError(f"{variant.name}: the kernel has no argument {unknown[0]!r}")
    defaults = {p.name: p.default for p in kernel.params if p.has_default}
    if lacking := [
        n for n in names if n not in variant.signature and n not in constexprs and n not in defaults
    ]:
        raise FastganError(
            f"{variant.name}: neither signature, constexprs nor configuration give {lacking[0]!r}"
        )
    constexprs = {
        n: constexprs.get(n, defaults.get(n)) for n in names if n not in variant.signature
    }
    signature = {n: variant.signature.get(n, "constexpr") for n in names}
    # a tuple of arguments is one parameter: its elements are specialised under (parameter, element)
    paths = {}
    for at, (name, kind) in enumerate(signature.items()):
        for path, one in (
            [((at,), kind)] if isinstance(kind, str) else [((at, j), k) for j, k in enumerate(kind)]
        ):
            if name in variant.aligned if variant.aligned is not None else one.startswith("*"):
                paths[path] = [["tt.divisibility", 16]]
    return ASTSource(fn=kernel, signature=signature, constexprs=constexprs, attrs=paths), options


def _tool(name: str) -> str:
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def resources(cubin: bytes, ptx: str) -> tuple[int, int]:
    """(registers a thread, bytes spilled). The stack also holds arrays and calls, so where there is
    one ptxas is asked what was spilled.
    """
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(cubin)
        usage = subprocess.run(
            [_tool("cuobjdump"), "--dump-resource-usage", str(binary)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
        if not found:
            raise FastganError(
                "cuobjdump printed no resource usage: its format has changed, "
                "fastgan/verify/aot.py must learn it"
            )
        registers, stack = int(found[1]), int(found[2])
        if not stack:
            return registers, 0
        target = re.search(r"\.target (sm_\w+)", ptx)
        text = Path(folder) / "kernel.ptx"
        text.write_text(ptx)
        arch = target[1] if target else "sm_90a"
        newer = int(re.sub(r"\D", "", arch)) >= 100 and Path(_tool("ptxas-blackwell")).exists()
        command = [
            _tool("ptxas-blackwell" if newer else "ptxas"),
            "-v",
            f"--gpu-name={arch}",
            str(text),
            "-o",
            str(Path(folder) / "again"),
        ]
        verbose = subprocess.run(command, capture_output=True, text=True, check=False)
        spills = [
            int(n)
            for n in re.findall(
                r"(\d+) bytes spill (?:stores|loads)", verbose.stdout + verbose.stderr
            )
        ]
        return registers, sum(spills) if spills else stack


def compile_job(job: CompileJob, use_cache: bool) -> CompiledRow:
    """The row of one job, from the cache where its source, form, target and Triton version are
    known."""
    from triton.backends.compiler import GPUTarget

    variant = variants_of(job.op)[job.variant]
    config = dict(job.config)
    label = " ".join(f"{k.removeprefix('num_')}={v}" for k, v in job.config)
    row = CompiledRow(job.op, variant.name, label, job.target, limit=SHARED_LIMIT[job.target])
    start = time.perf_counter()
    try:
        source, options = source_of(variant, config)
        key = [
            FORMAT,
            triton.__version__,
            source.hash(),
            sorted(options.items()),
            job.target,
            variant.needs_tensor_cores,
        ]
        name = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
        kept = paths.cache_dir() / "aot" / f"{name}.json"
        if use_cache and kept.is_file():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                known = json.loads(kept.read_text())
                return CompiledRow(
                    **{**known, "op": row.op, "kernel": row.kernel, "config": label, "kept": True}
                )
        binary = triton.compile(
            source,
            target=GPUTarget("cuda", int(job.target.removeprefix("sm_")), 32),
            options=options,
        )
        ptx = binary.asm["ptx"]
        row.registers, row.spilled = resources(binary.asm["cubin"], ptx)
        row.shared = binary.metadata.shared
        row.matrix = " ".join(
            f"{short} x{ptx.count(full)}" for short, full in MATRIX.items() if full in ptx
        )
        wrong = [f"spills {row.spilled} bytes"] if row.spilled else []
        wrong += (
            [f"shared memory over the limit by {row.shared - row.limit} bytes"]
            if row.shared > row.limit
            else []
        )
        wrong += ["no tensor cores"] if variant.needs_tensor_cores and not row.matrix else []
        row.verdict, row.note = ("FAIL", ", ".join(wrong)) if wrong else ("pass", "")
        row.seconds = time.perf_counter() - start
        _keep(kept, row)
    except (
        Exception
    ) as e:  # a kernel that does not compile is a finding, and the others must still be seen
        row.verdict, row.note = "FAIL", one_line(e)
        row.seconds = time.perf_counter() - start
    return row


def recheck(entry: tuning.Entry, capability: str) -> list[CompiledRow]:
    """The rows of a tuning entry's configuration, in every kernel of its type that it launches;
    none where it steers a launcher alone. Load the registry first.
    """
    pointer = "*fp32" if entry.type == "tf32" else f"*{entry.type}"
    rows = []
    for op in registry.ops():
        mine = [(i, v) for i, v in enumerate(variants_of(op.name)) if v.tuned == entry.op]
        typed = [(i, v) for i, v in mine if pointer in v.signature.values()]
        for i, variant in typed or mine:
            config = tuple(sorted({**variant.configs[0], **entry.config}.items()))
            rows.append(compile_job(CompileJob(op.name, i, config, capability), use_cache=True))
    return rows


def _keep(path: Path, row: CompiledRow) -> None:
    with contextlib.suppress(OSError):  # a read-only home costs the cache, not the run
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, json.dumps(asdict(row)).encode())


def _in_worker(arguments: tuple[CompileJob, bool]) -> CompiledRow:
    return compile_job(*arguments)


def compile_all(
    ops: Sequence[Op],
    targets: Sequence[str],
    workers: int = 1,
    use_cache: bool = True,
    defaults: bool = False,
) -> Iterator[CompiledRow]:
    """Rows as they come, in order. FastganError for a target that is not known, or without
    Triton."""
    if not has_triton:
        raise FastganError("--aot needs Triton: pip install triton")
    if unknown := [t for t in targets if t not in SHARED_LIMIT]:
        raise FastganError(f"unknown target {unknown[0]!r}: choose from {', '.join(SHARED_LIMIT)}")
    todo = [(job, use_cache) for job in jobs(ops, targets, defaults)]
    if workers > 1 and len(todo) > 1:
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            yield from pool.imap(_in_worker, todo)
    else:
        yield from map(_in_worker, todo)


def text(rows: Sequence[CompiledRow], seconds: float) -> str:
    """The table, and a summary line."""
    head = (
        "op",
        "kernel",
        "config",
        "target",
        "regs",
        "spilled",
        "shared",
        "limit",
        "matrix",
        "verdict",
        "",
    )
    cells = [
        (
            r.op,
            r.kernel,
            r.config,
            r.target,
            str(r.registers),
            str(r.spilled),
            str(r.shared),
            str(r.limit),
            r.matrix or "-",
            r.verdict,
            r.note,
        )
        for r in rows
    ]
    failed = [r for r in rows if r.verdict == "FAIL"]
    lines = table(head, cells, right=(4, 5, 6, 7)) if cells else ["no op has a kernel to compile"]
    fresh = sum(not r.kept for r in rows)
    lines += [
        "",
        f"{len(rows)} kernels, {fresh} of them compiled now, {seconds:.0f} s, triton "
        f"{triton.__version__}",
    ]
    lines.append(
        f"FAILED: {len(failed)} of {len(rows)}"
        if failed
        else "every kernel fits"
        if rows
        else "FAILED: nothing was compiled"
    )
    return "\n".join(lines)


def command(
    targets: Sequence[str],
    names: Sequence[str],
    families: Sequence[str] | None,
    workers: int | None,
    use_cache: bool,
    as_json: bool,
    defaults: bool = False,
) -> int:
    """``fastgan verify --aot``: prints the report, returns the exit code."""
    from fastgan.verify.runner import default_workers

    start = time.perf_counter()
    registry.load(families)
    rows = []
    for row in compile_all(
        registry.ops(*names), targets, workers or default_workers(), use_cache, defaults
    ):
        rows.append(row)
        if sys.stderr.isatty():
            print(f"\r{len(rows)} kernels", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    seconds = time.perf_counter() - start
    failed = not rows or any(r.verdict == "FAIL" for r in rows)
    data = {
        "failed": failed,
        "seconds": seconds,
        "triton": triton.__version__,
        "rows": [asdict(r) for r in rows],
    }
    print(json.dumps(data, indent=1) if as_json else text(rows, seconds))
    return int(failed)
