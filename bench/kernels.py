"""Each registered op against PyTorch: eager channels_last, torch.compile max-autotune, and ours; GPU time by graph replay on
rotated inputs.

    python -m bench.gpu --stages kernels            as a stage, with a budget
    python -m bench.kernels [--op NAME] [--toy]     at once

Ours is timed only after it agreed with eager on the very inputs timed. ``of copy`` is the least traffic the op needs
(registry) over the time, against a device copy measured in the same run. On a CPU rows are marked CPU and say nothing about a
GPU.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch

from bench.gpu import Row
from bench.store import Store
from fastgan.kernels._common import TORCH_DTYPES
from fastgan.ops import dispatch, registry
from fastgan.ops.registry import Case, Kwargs, Op
from fastgan.verify.check import leaves, named, precision, relative_l2, seed, to
from fastgan.verify.timing import Timing, ceilings, gpu_state, measure, rotations

PROVIDERS = ("fastgan", "eager", "compile")
AGREES = {"bf16": 2e-2, "fp16": 4e-3, "tf32": 4e-3, "fp32": 1e-4}  # two results of one type: a gate, not the proof
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@functools.cache
def peaks() -> dict[str, float]:
    """Copy bandwidth and matrix rate, measured once in this process."""
    return ceilings()


def function(op: Op, provider: str) -> Callable[..., Any]:
    """The callable a provider stands for."""
    if provider == "fastgan":
        return op.fn
    eager = op.eager or op.reference
    return eager if provider == "eager" else torch.compile(eager, mode="max-autotune-no-cudagraphs", dynamic=False)


def inputs(op: Op, case: Case, type_name: str, copies: int) -> list[Kwargs]:
    """Independent input sets with the same values; gradients wanted where the op has them."""
    made = case.make(TORCH_DTYPES[type_name], torch.device(DEVICE), seed(op.name, case.name))
    sets = [to(made, None, None) for _ in range(copies)]
    for kwargs in sets:
        for name in op.grad_inputs if "backward" in op.directions else ():
            for _, t in leaves(kwargs.get(name), name):
                if t.is_floating_point():
                    t.requires_grad_()
    return sets


def calls(op: Op, fn: Callable[..., Any], sets: list[Kwargs], direction: str) -> list[Callable[[], Any]]:
    """One call an input set: forward alone (without autograd), or forward and backward together."""

    def forward(kwargs: Kwargs) -> Any:
        with torch.no_grad():
            return fn(**kwargs)

    def both(kwargs: Kwargs) -> Any:
        outputs = [t for t in named(op, fn(**kwargs)).values() if t.requires_grad]
        wanted = [t for name in op.grad_inputs for _, t in leaves(kwargs.get(name), name) if t.requires_grad]
        # a cotangent as large as the output: ones would let nothing be skipped, and cost no memory traffic of their own to draw
        return torch.autograd.grad(outputs, wanted, [cotangent(t) for t in outputs], allow_unused=True)

    kept: dict[tuple[Any, ...], torch.Tensor] = {}

    def cotangent(t: torch.Tensor) -> torch.Tensor:
        key = (t.shape, t.stride(), t.dtype)
        if key not in kept:
            kept[key] = torch.randn_like(t, requires_grad=False)
        return kept[key]

    run = forward if direction == "forward" else both
    return [lambda kwargs=kwargs: run(kwargs) for kwargs in sets]


def agreement(op: Op, case: Case, type_name: str) -> float:
    """Relative L2 of our outputs against eager's on the inputs to be timed; the worst output."""
    results = []
    for fn in (function(op, "fastgan"), function(op, "eager")):
        kwargs = inputs(op, case, type_name, 1)[0]
        with torch.no_grad():
            outputs = named(op, fn(**kwargs))
        state = {n + "'": t for name in op.mutates for n, t in leaves(kwargs.get(name), name)}
        results.append({n: t.detach() for n, t in {**outputs, **state}.items() if t.is_floating_point()})
    ours, theirs = results
    return max((relative_l2(ours[n], theirs[n]) for n in theirs if n in ours), default=0.0)


def row(name: str, case_name: str, type_name: str, direction: str, provider: str) -> dict[str, Any]:
    """Times one provider on one case."""
    op = registry.ops(name)[0]
    case = next(c for c in op.cases if c.name == case_name)
    with precision(type_name):
        torch.backends.cudnn.benchmark = True
        values: dict[str, Any] = {}
        if provider == "fastgan":
            values["disagreement"] = agreement(op, case, type_name)
            if not values["disagreement"] < AGREES[type_name]:
                return {"failed": f"differs from eager by {values['disagreement']:.1e}: not timed"}
        probe = inputs(op, case, type_name, 1)[0]
        size = sum(t.nbytes for _, t in leaves(probe, ""))
        sets = inputs(op, case, type_name, rotations(size, at_most=8))
        timing: Timing = measure(calls(op, function(op, provider), sets, direction))
        moved = op.bytes(probe, "forward") if op.bytes else 0
        if direction == "both" and op.bytes:
            moved += op.bytes(probe, "backward")
        work = op.flops(probe, "forward") if op.flops else 0
        work += op.flops(probe, "backward") if direction == "both" and op.flops else 0
    peak = peaks()
    values |= {"ms": timing.ms, "p20": timing.p20, "p80": timing.p80, "how": timing.how, "sets": len(sets), **peak}
    if provider == "fastgan":
        values["why"] = dispatch.why(name) if name in dispatch._DISPATCHERS else ""
    if moved:
        values["of_copy"] = moved / timing.ms / 1e6 / peak["copy_gbs"]
    if work:
        values["of_matmul"] = work / timing.ms / 1e9 / peak["matmul_tflops"]
    values["state"] = gpu_state()
    ratio = f", {100 * values['of_copy']:.0f} % of copy" if moved else ""
    values["shown"] = f"{timing.ms:.4f} ms ({timing.p20:.4f} to {timing.p80:.4f}, {timing.how}){ratio}" + (
        " CPU" if DEVICE == "cpu" else ""
    )
    return values


def rows(toy: bool, names: tuple[str, ...] = ()) -> Iterable[Row]:
    """Ours and eager first for every op, then compile, which takes longest; bf16 first, fp32 after."""
    registry.load()
    for provider_group in (("fastgan", "eager"), ("compile",)):
        for type_name in ("fp32",) if toy else ("bf16", "fp32"):
            for op in registry.ops(*names):
                if type_name not in op.dtypes:
                    continue
                wanted = "quick" if toy else "layer"
                cases = [c for c in op.cases if wanted in c.tags and (c.dtypes is None or type_name in c.dtypes)]
                for case in cases[: 1 if toy else None]:
                    some = case.directions or op.directions
                    for direction in ("forward", *(["both"] if "backward" in some else [])):
                        for provider in provider_group:
                            key = f"{op.name} | {case.name} | {type_name} | {direction} | {provider}"
                            arguments = (op.name, case.name, type_name, direction, provider)
                            seconds = 60 if provider == "compile" else 8
                            yield Row(key, lambda a=arguments: row(*a), seconds, ours=provider == "fastgan")


def summary(store: Store) -> None:
    """A line for each op, case, type and direction: ours against the best of PyTorch's."""
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for r in store.stage("kernels"):
        head, _, provider = r["key"].rpartition(" | ")
        groups.setdefault(head, {})[provider] = r
    if groups:
        print("\nours against eager channels_last and torch.compile max-autotune: how many times faster")
        print(f"{'op | case | type | direction':70} {'ours ms':>9} {'eager':>7} {'compile':>8} {'of copy':>8}")
    for head, by in groups.items():
        ours = by.get("fastgan")
        times = [f"{by[p]['ms'] / ours['ms']:.2f}x" if ours and p in by else "-" for p in ("eager", "compile")]
        share = f"{100 * ours['of_copy']:.0f} %" if ours and "of_copy" in ours else "-"
        ms = f"{ours['ms']:.4f}" if ours else "-"
        print(f"{head:70} {ms:>9} {times[0]:>7} {times[1]:>8} {share:>8}")


def main() -> int:
    """Measures at once and prints, without a store."""
    p = argparse.ArgumentParser(
        "python -m bench.kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--op", action="append", default=[], metavar="NAME")
    p.add_argument("--toy", action="store_true", help="quick cases, on a CPU too")
    p.add_argument("--no-compile", action="store_true")
    a = p.parse_args()
    for r in rows(a.toy or DEVICE == "cpu", tuple(a.op)):
        if a.no_compile and r.key.endswith("compile"):
            continue
        try:
            values = r.run()
        except Exception as e:  # shown in its line: the other rows still count
            values = {"failed": f"{type(e).__name__}: {e}"}
        print(f"{r.key}: {values.get('failed') or values['shown']}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
