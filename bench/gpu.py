"""What a GPU has to tell, in order of worth and within a budget: ``python -m bench.gpu [--budget SECONDS] [--stages
look,verify,...]``.

Needs torch, triton and numpy alone, and no network. Rows go to ``$OUT`` where that is set, else to ``bench/results``; what is
there already is skipped, so any number of short runs add up to the whole. Each stage but the last gets a share of what remains
(:func:`share`), so that a long one does not keep all others from starting; what it does not reach, a later run does. Each
stage runs in a process of its own: a kernel that takes the context down costs one row. The end prints what is left.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from bench.store import Store, machine


@dataclass(frozen=True)
class Row:
    """One thing to measure. ``run()`` returns the row's values; ``seconds`` is what it takes at most, compilation included;
    ``ours`` that the row depends on this project's kernels.
    """

    key: str
    run: Callable[[], dict[str, Any]]
    seconds: float = 5.0
    ours: bool = True


# name -> (module with rows(toy) and summary(store), what it answers). In order of worth.
STAGES = {
    "look": ("bench.first_gpu_look", "ceilings, cuDNN's convolutions, the fused convolutions against them, the three passes"),
    "conv": ("bench.conv_experiment", "convolution, BatchNorm, activation, convolution: every way of the edge; the decision"),
    "verify": ("bench.proof", "verify --quick on the GPU: every op, direction and type"),
    "kernels": ("bench.kernels", "each op's engines against eager channels_last and torch.compile max-autotune"),
    "steps": ("bench.steps", "whole DCGAN steps: PyTorch's best and ours, batch 16 to 1024"),
    "suites": ("bench.suites", "fastgan bench: whole iterations of five kinds of GAN, rows a to i in turns, gradients judged"),
    "same": ("bench.same_training", "accelerated against reference: buffers after 50 steps, five seeds of dcgan each"),
    "full": ("bench.proof_full", "verify --full: layer shapes, every configuration, addresses beyond 2^31"),
}
KERNELS = ("look", "conv", "verify", "full")  # what a toy run on a CPU can only show in Triton's interpreter
DEAD = 77  # exit code of a stage whose CUDA context is gone
GRACE = 60  # seconds a row in flight may run beyond its stage's budget before it is killed
BUDGET = 480  # with GRACE, imports and the summary less than ten minutes
SHARE, AT_LEAST = 0.4, 150.0  # of what remains; seconds: more than the longest row (a compile-heavy proof, 120) and its imports


def one_line(e: BaseException) -> str:
    """An exception as one short line."""
    return f"{type(e).__name__}: {' '.join(str(e).split())}"[:300]


def stage(name: str, budget: float, out: str | None, toy: bool) -> int:
    """Measures what is missing of a stage until the budget is spent. Runs in its own process."""
    end = time.monotonic() + budget
    store = Store(out)
    module = importlib.import_module(STAGES[name][0])
    left: list[str] = []
    marker = store.path.with_suffix(".running")
    for row in module.rows(toy):
        if store.find(name, row.key, row.ours):
            continue
        if end - time.monotonic() < row.seconds:
            left.append(row.key)
            continue
        marker.write_text(json.dumps({"stage": name, "key": row.key, "ours": row.ours}))
        try:
            values = row.run()
        except Exception as e:  # a row that fails is a result: stored, shown, and not tried again by the next run
            values = {"failed": one_line(e)}
        store.add(name, row.key, row.ours, values)
        marker.unlink(missing_ok=True)
        shown = (
            values.get("failed")
            or values.get("shown")
            or ", ".join(f"{k} {v:.4g}" for k, v in values.items() if isinstance(v, float))
        )
        print(f"  {row.key}: {shown}", flush=True)
        if "failed" in values and torch.cuda.is_available():
            try:
                torch.cuda.synchronize()
            except RuntimeError:
                return DEAD
    store.path.with_suffix(f".{name}.left").write_text(json.dumps(left))
    return 0


def share(remaining: float, last: bool) -> float:
    """Seconds a stage gets of those that remain: all for the last one, else two fifths, but enough for any one row."""
    return remaining if last else min(remaining, max(AT_LEAST, SHARE * remaining))


def supervise(name: str, budget: float, out: str | None, toy: bool) -> list[str]:
    """Runs a stage in child processes until it is through or out of budget; returns the keys left."""
    end = time.monotonic() + budget
    store = Store(out)
    marker, rest = store.path.with_suffix(".running"), store.path.with_suffix(f".{name}.left")
    rest.unlink(missing_ok=True)
    marker.unlink(missing_ok=True)
    for _ in range(20):  # a stage that dies twenty times has a problem of its own
        remaining = end - time.monotonic()
        command = [sys.executable, "-m", "bench.gpu", "--one-stage", name, "--budget", str(max(remaining, 0.0))]
        interpreted = {"TRITON_INTERPRET": "1"} if toy and name in KERNELS and not torch.cuda.is_available() else {}
        child = subprocess.Popen(
            [*command, *(["--out", out] if out else []), *(["--toy"] if toy else [])],
            start_new_session=True,
            env={**os.environ, **interpreted},
        )
        try:
            code, why = child.wait(timeout=max(remaining, 0) + GRACE), ""
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            code, why = child.wait(), f"timed out: the stage's budget was spent {GRACE} s before"
        if code == 0:
            break
        if marker.is_file():  # the row in flight was killed by the clock, or took the process down
            lost = json.loads(marker.read_text())
            why = why or f"the process died (exit code {code})"
            Store(out).add(lost["stage"], lost["key"], lost["ours"], {"failed": why})
            marker.unlink()
            print(f"  {lost['key']}: {why}", flush=True)
        elif code != DEAD:
            print(f"  stage {name} stopped with exit code {code}", flush=True)
            break
        if end - time.monotonic() < 10:
            break
    left = json.loads(rest.read_text()) if rest.is_file() else [f"{name}: not finished"]
    rest.unlink(missing_ok=True)
    return left


def main(arguments: Iterable[str] | None = None) -> int:
    """Exit code 0 if every stage asked for ran, 2 without a GPU."""
    p = argparse.ArgumentParser("python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--budget",
        type=float,
        default=float(os.environ.get("BUDGET", BUDGET)),
        help=f"seconds for everything ({BUDGET}, or $BUDGET)",
    )
    p.add_argument("--stages", default=",".join(STAGES), help="which, in order")
    p.add_argument("--out", default=os.environ.get("OUT"), help="folder for results ($OUT, else bench/results)")
    p.add_argument("--toy", action="store_true", help="toy sizes, on a CPU too: finds mistakes before the day")
    p.add_argument("--one-stage", metavar="NAME", help=argparse.SUPPRESS)
    a = p.parse_args(None if arguments is None else list(arguments))
    if a.one_stage:
        return stage(a.one_stage, a.budget, a.out, a.toy)
    names = [n for n in a.stages.split(",") if n]
    if unknown := set(names) - set(STAGES):
        p.error(f"unknown stages: {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    if not torch.cuda.is_available() and not a.toy:
        print("no GPU here: nothing was measured (--toy runs the code at toy sizes on a CPU)", file=sys.stderr)
        return 2
    os.environ["FASTGAN_BENCH_RUN"] = str(int(time.time()))
    if a.toy and not a.out:
        a.out = os.environ.get("TMPDIR", "/tmp") + "/fastgan-bench-toy"  # toy numbers never lie among real ones
    end = time.monotonic() + a.budget
    print(", ".join(f"{k} {v}" for k, v in machine().items()), flush=True)
    left: dict[str, list[str]] = {}
    for name in names:
        remaining = end - time.monotonic()
        print(f"\n== {name}: {STAGES[name][1]}  ({remaining:.0f} s left)", flush=True)
        mine = share(remaining, name == names[-1])
        left[name] = supervise(name, mine, a.out, a.toy) if remaining > 5 else ["everything not in the results yet"]
    store = Store(a.out)
    for name in names:
        importlib.import_module(STAGES[name][0]).summary(store)
    print(f"\nresults: {store.path}")
    for name, keys in left.items():
        if keys:
            print(f"left of {name}: {len(keys)} ({'; '.join(keys[:4])}{' ...' if len(keys) > 4 else ''})")
    if not any(left.values()):
        print("nothing is left")
    return 0


if __name__ == "__main__":
    sys.exit(main())
