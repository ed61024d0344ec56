"""The stages of `fastgan bench --stages`: proof and measurements on a GPU, the most useful first,
within a budget.

Each row is stored as it is measured and what is known already is skipped, so any number of short
runs add up to the whole. The plan (:data:`parts.PLAN`) comes first: parts in order of
worth, each with its seconds, those of one group at the same time in processes of their own, since
they compile more than they run. What is left of the budget goes to the stages, one after the other.
A kernel that takes the context down, or a row that the clock stops, costs one row. The end prints
what is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fastgan.bench.stages.parts import PLAN, Part
from fastgan.bench.store import Store, machine
from fastgan.errors import FastganError


@dataclass(frozen=True)
class StageRow:
    """One thing to measure. ``run()`` returns the row's values (a suite's takes options, which its
    own stage gives); ``seconds`` is what it takes at most, compilation included; ``ours`` that
    the row depends on this project's kernels.
    """

    key: str
    run: Callable[..., dict[str, Any]]
    seconds: float = 5.0
    ours: bool = True


# name -> (module with rows(toy) and summary(store), what it answers)
STAGES = {
    "look": (
        "fastgan.bench.experiments.first_gpu_look",
        "ceilings, cuDNN's convolutions, the fused convolutions against them, the three passes",
    ),
    "verify": ("fastgan.bench.stages.proof", "verify on the GPU: every op, direction and type"),
    "warm": (
        "fastgan.bench.stages.start_up",
        "every row of an iteration from nothing to its second step; fills the compilers' caches",
    ),
    "suites": (
        "fastgan.bench.stages.iteration_times",
        "fastgan bench: whole iterations of five kinds of GAN, rows a to i in turns, gradients "
        "judged",
    ),
    "recipes": (
        "fastgan.bench.stages.recipe_runs",
        "every recipe trains by default options, its steps captured",
    ),
    "directions": (
        "fastgan.bench.stages.conv_directions",
        "convolutions by direction, cuDNN against Triton; fills the tuning table",
    ),
    "norm": (
        "fastgan.bench.stages.norm_forms",
        "normalisation: one launch or several, chained or not, at DCGAN-64's shapes",
    ),
    "conv": (
        "fastgan.bench.experiments.conv_edges",
        "convolution, BatchNorm, activation, convolution: every way of the edge; the decision",
    ),
    "kernels": (
        "fastgan.bench.stages.operator_times",
        "each op's engines against eager channels_last and torch.compile max-autotune",
    ),
    "commands": (
        "fastgan.bench.stages.command_runs",
        "what people type: a stopped run against a whole one, six kinds on landscapes at once",
    ),
    "same": (
        "fastgan.bench.stages.same_training",
        "accelerated against reference: buffers after 50 steps, five seeds of dcgan each",
    ),
}
KERNELS = (
    "look",
    "conv",
    "directions",
    "norm",
    "verify",
)  # what a toy run on a CPU can only show in Triton's interpreter


OPS = ("verify", "kernels")
"""Stages whose rows begin with an operator's name."""


DEAD = 77  # exit code of a stage whose CUDA context is gone
GRACE = 20  # seconds a row in flight may run beyond its part's budget before it is killed
BUDGET = 400  # a rented quarter of an hour holds two such calls and two machines' starts
LIMIT = 530  # more does not fit a call of ten minutes with GRACE, imports and the summary
SHARE, AT_LEAST = 0.4, 90.0  # of what remains for a stage that others follow; seconds


def one_line(e: BaseException) -> str:
    """An exception as one short line."""
    return f"{type(e).__name__}: {' '.join(str(e).split())}"[:300]


def die_with_parent() -> None:
    """On Linux: no measuring process outlives the one that started it, whose death a clock may have
    caused."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def needed(part: Part, row: StageRow, store: Store) -> bool:
    """Whether a row of the part is run."""
    if part.again:
        return store.find("suites", row.key.split()[0], True) is None
    return store.find(part.stage, row.key, row.ours) is None


def stage(part: Part, out: str | None, toy: bool, state: Path, aside: str | None = None) -> int:
    """Measures what is missing of a part until its seconds are spent. Runs in its own process.

    state: where the row in flight (`.running`) and, at the end, the keys left (`.left`) are
        written. aside: where results go instead of `out`.
    """
    end = time.monotonic() + part.seconds
    store, known = Store(aside or out), Store(out)
    module = importlib.import_module(STAGES[part.stage][0])
    left: list[str] = []
    marker = state.with_suffix(".running")
    for row in module.rows(toy):
        if not re.match(part.rows, row.key) or not needed(part, row, known):
            continue
        if not fits(end - time.monotonic(), row.seconds, part):
            left.append(row.key)
            continue
        marker.write_text(json.dumps({"stage": part.stage, "key": row.key, "ours": row.ours}))
        began = time.monotonic()
        try:
            of_stage = getattr(module, "run_row", None)
            values = of_stage(row, store, end, part.only) if of_stage else row.run()
        except (
            Exception
        ) as e:  # a row that fails is a result: stored, shown, and not tried again by the next run
            values = {"failed": one_line(e)}
        values["took_s"] = time.monotonic() - began
        store.add(part.stage, row.key, row.ours, values)
        marker.unlink(missing_ok=True)
        shown = (
            values.get("failed")
            or values.get("shown")
            or ", ".join(f"{k} {v:.4g}" for k, v in values.items() if isinstance(v, float))
        )
        print(f"  {row.key}: {shown} ({values['took_s']:.1f} s)", flush=True)
        if "failed" in values and torch.cuda.is_available():
            try:
                torch.cuda.synchronize()
            except RuntimeError:
                return DEAD
    state.with_suffix(".left").write_text(json.dumps(left))
    return 0


def fits(remaining: float, seconds: float, part: Part) -> bool:
    """Whether a row of so many declared seconds is started with what remains of its part."""
    return remaining >= min(seconds, 0.5 * part.seconds)


def share(remaining: float, last: bool) -> float:
    """Seconds a stage gets of those that remain: all for the last one, else two fifths, but enough
    for most rows."""
    return remaining if last else min(remaining, max(AT_LEAST, SHARE * remaining))


def supervise(part: Part, out: str | None, toy: bool, aside: str | None = None) -> list[str]:
    """Runs a part in child processes until it is through or out of seconds; returns the keys
    left. aside: where results go instead of `out`."""
    end = time.monotonic() + part.seconds
    store = Store(aside or out)
    state = store.path.with_name(f".{part.stage}-{os.getpid()}-{threading.get_ident()}.state")
    marker, rest = state.with_suffix(".running"), state.with_suffix(".left")
    for _ in range(20):  # a part that dies twenty times has a problem of its own
        remaining = max(end - time.monotonic(), 0.0)
        given = {"part": asdict(replace(part, seconds=remaining)), "out": out, "toy": toy}
        given |= {"state": str(state), "aside": aside}
        interpreted = (
            {"TRITON_INTERPRET": "1"}
            if toy and part.stage in KERNELS and not torch.cuda.is_available()
            else {}
        )
        child = subprocess.Popen(
            [sys.executable, "-m", "fastgan.bench.stages.plan", json.dumps(given)],
            start_new_session=True,
            env={**os.environ, **interpreted, **({"FASTGAN_CONFIG_DIR": aside} if aside else {})},
        )
        try:
            code, why = child.wait(timeout=remaining + GRACE), ""
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            code, why = (
                child.wait(),
                f"timed out: the part's {part.seconds:.0f} s were spent {GRACE} s before",
            )
        if code == 0:
            break
        if marker.is_file():  # the row in flight was killed by the clock, or took the process down
            lost = json.loads(marker.read_text())
            why = why or f"the process died (exit code {code})"
            kept = Store(aside or out)
            if not kept.partial(lost["stage"], lost["key"]):  # else what it had measured counts
                kept.add(lost["stage"], lost["key"], lost["ours"], {"failed": why})
            marker.unlink()
            print(f"  {lost['key']}: {why}", flush=True)
        elif code != DEAD:
            print(f"  stage {part.stage} stopped with exit code {code}", flush=True)
            break
        if end - time.monotonic() < 10:
            break
    left = (
        json.loads(rest.read_text())
        if rest.is_file()
        else [f"{part.stage} {part.rows}: not finished"]
    )
    for path in (marker, rest):
        path.unlink(missing_ok=True)
    return left


def together(parts: Sequence[Part], out: str | None, toy: bool) -> list[str]:
    """A group of the plan, its parts at the same time."""
    left: list[list[str]] = [[] for _ in parts]

    def one(index: int) -> None:
        part = parts[index]
        if part.prefetch:
            with tempfile.TemporaryDirectory() as aside:
                supervise(part, out, toy, aside)
        else:
            left[index] = supervise(part, out, toy)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [key for keys in left for key in keys]


def groups(names: Sequence[str], toy: bool, ops: Sequence[str] = ()) -> list[tuple[Part, ...]]:
    """What to run, in order: the plan, then every stage with what remains (0 seconds here); of
    stages named, those alone, and of operators named, their rows alone."""
    rows = f"(full: )?({'|'.join(map(re.escape, ops))}) " if ops else ""
    whole = [(Part(name, rows, 0.0),) for name in names or (OPS if ops else STAGES)]
    return whole if names or toy or ops else [*PLAN, *whole]


def run(
    names: Sequence[str],
    budget: float,
    out: str | None = None,
    toy: bool = False,
    ops: Sequence[str] = (),
) -> int:
    """Measures what is missing of the plan, or of the stages named, and prints what is known and
    what is left; 0. Raises FastganError for an unknown stage, without a GPU, and for a budget that
    a call whose results go to $OUT has no time for.

    out: folder of the results instead of bench/results. toy: toy sizes, on a CPU too. ops: of the
    stages in OPS the rows of these operators alone.
    """
    if unknown := [name for name in names if name not in STAGES]:
        raise FastganError(f"no stage {unknown[0]!r}: choose from {', '.join(STAGES)}")
    if ops and (other := [name for name in names if name not in OPS]):
        raise FastganError(f"--op chooses rows of {' and '.join(OPS)}, not of {other[0]}")
    if not torch.cuda.is_available() and not toy:
        raise FastganError(
            "no GPU here: nothing was measured (--toy runs the code at toy sizes on a CPU)"
        )
    if budget > LIMIT and os.environ.get("OUT"):
        raise FastganError(
            f"--budget {budget:.0f}: at most {LIMIT} where results go to $OUT, or the call's clock "
            "ends it"
        )
    os.environ["FASTGAN_BENCH_RUN"] = str(int(time.time()))
    os.environ.setdefault("FASTGAN_CONFIG_DIR", str(Path(out or Store(out).path.parent) / "tuning"))
    if toy and not out:  # toy numbers never lie among real ones
        out = os.environ.get("TMPDIR", "/tmp") + "/fastgan-bench-toy"
    end = time.monotonic() + budget
    print(", ".join(f"{k} {v}" for k, v in machine().items()), flush=True)
    left: dict[str, list[str]] = {}
    chosen = groups(names, toy, ops)
    for index, group in enumerate(chosen):
        remaining = end - time.monotonic()
        part = group[0]
        if not part.seconds:
            group = (replace(part, seconds=share(remaining, index == len(chosen) - 1)),)
        title = " + ".join(f"{p.stage} {p.rows}".strip() for p in group)
        print(f"\n== {title}  ({remaining:.0f} s left)", flush=True)
        if remaining > 5:
            fitting = [replace(p, seconds=min(p.seconds, remaining)) for p in group]
            left[title] = together(fitting, out, toy)
        else:
            left[title] = ["everything not in the results yet"]
    store = Store(out)
    for name in names or (OPS if ops else STAGES):
        importlib.import_module(STAGES[name][0]).summary(store)
    print(
        f"\nresults: {store.path}; put it into bench/results before the next call, which then goes "
        "on from there"
    )
    for title, keys in left.items():
        if keys:
            print(
                f"left of {title[:60]}: {len(keys)} "
                f"({'; '.join(keys[:4])}{' ...' if len(keys) > 4 else ''})"
            )
    if not any(left.values()):
        print("nothing is left")
    return 0


if __name__ == "__main__":  # a part's process, which supervise() starts
    die_with_parent()
    given = json.loads(sys.argv[1])
    part, state = Part(**given["part"]), Path(given["state"])
    sys.exit(stage(part, given["out"], given["toy"], state, given["aside"]))
