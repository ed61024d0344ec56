"""Makes tuning tables: for every layer-sized case, each candidate configuration checked against
float64, then timed, the fastest kept.

What a call may tune is found by running it: launchers name what they look up (``tuning.record``).
An op with several engines also gets the fastest of them.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from fastgan import machine
from fastgan.errors import FastganError
from fastgan.kernels import tuning
from fastgan.kernels.common import TORCH_DTYPES, has_triton
from fastgan.kernels.tuning import Entry, Shape
from fastgan.verify import registry
from fastgan.verify.calls import converted, leaves, named, precision, seed
from fastgan.verify.check import check
from fastgan.verify.differences import relative_l2
from fastgan.verify.registry import Case, Kwargs, Op
from fastgan.verify.runner import configurations
from fastgan.verify.timing import measure, rotations
from fastgan.verify.tuner.directions import tune_layer
from fastgan.verify.tuning_tables import key_of, merge, table_path

FLAT_ADAM = (
    "flat_adam"  # no op of the registry: the trainer's choice between FlatAdam and torch's Adam
)
PLAIN = ("conv2d", "conv_transpose2d")  # each of their directions has an engine of its own
SLOWER = 1.03  # an entry must beat the default by more than the noise of a median


@dataclass(frozen=True)
class Target:
    """One lookup to tune: the case that makes it, and what the launcher asks."""

    op: str
    case: str
    name: str
    type: str
    shape: Shape


def targets(
    ops: Sequence[Op], device: torch.device, types: Sequence[str], tag: str = "layer"
) -> Iterator[Target]:
    """Every distinct lookup that the ops' cases of a tag make in those types: forward and backward
    are run once."""
    seen = set()
    for op in ops:
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


def _calls(
    op: Op, case: Case, type_name: str, device: torch.device, sets: int, engine: str = "triton"
) -> list[Callable[[], Any]]:
    """Forward, and backward where the op has one, on independent input sets, by one engine."""
    made = case.make(TORCH_DTYPES[type_name], device, seed(op.name, case.name))
    backward = "backward" in (case.directions or op.directions)

    def one(kwargs: Kwargs) -> Callable[[], Any]:
        wanted = (
            [
                t
                for n in op.grad_inputs
                for _, t in leaves(kwargs.get(n), n)
                if t.is_floating_point()
            ]
            if backward
            else []
        )
        for t in wanted:
            t.requires_grad_()
        cotangents: list[torch.Tensor] = []

        def call() -> Any:
            outputs = [
                t for t in named(op, op.fn(**kwargs, impl=engine)).values() if t.requires_grad
            ]
            if not outputs:
                return None
            if not cotangents:
                cotangents.extend(torch.randn_like(t, requires_grad=False) for t in outputs)
            return torch.autograd.grad(outputs, wanted, cotangents, allow_unused=True)

        return call

    return [one(converted(case, made, None, None)) for _ in range(sets)]


def tune(
    target: Target, device: torch.device, default_ms: float | None = None
) -> tuple[Entry, list[dict[str, Any]]]:
    """The fastest right configuration for a lookup, and what was tried with error and time, the
    default (None) first.

    Where the launcher's default stands the entry's configuration is empty: it keeps a neighbour's
    winner from a shape where that lost.
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
        with tuning.override(
            {target.name: config or {}}
        ):  # empty: the default, whatever a table says
            rows = [
                r
                for c in (small, case)
                if c is not None
                for r in check(op, c, type_name, "triton", device, repeat=True)[0]
            ]
            wrong = [r for r in rows if r.verdict == "FAIL"]
            found["error"] = max((r.error for r in rows if r.direction == "forward"), default=0.0)
            if wrong:
                found["wrong"] = (
                    f"{wrong[0].case} {wrong[0].direction} {wrong[0].output}: {wrong[0].note}"
                )
            if config is None:  # what is launched without an entry, right or wrong
                found["ms"] = default_ms or measure(calls).ms
            elif not wrong:
                found["ms"] = measure(calls).ms
        tried.append(found)
    timed = [t for t in tried[1:] if "ms" in t]
    best = min(timed, key=lambda t: t["ms"], default=None)
    if best is None or best["ms"] * SLOWER > tried[0]["ms"]:
        best = tried[0]
    return Entry(
        target.name,
        target.type,
        dict(target.shape),
        config=dict(best["config"] or {}),
        ms=best["ms"],
        error=best["error"],
        **_stamp(device),
    ), tried


def tune_engine(op: Op, case: Case, type_name: str, device: torch.device) -> Entry | None:
    """Which engine is fastest on a case, forward and backward together, for ops with more than one
    besides the reference; None where there is no choice.
    """
    from fastgan.ops import dispatch

    engines = [e for e in op.engines if e != "reference" and dispatch.missing(e, device) is None]
    chooser = dispatch.DISPATCHERS.get(op.name)
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
        with precision(type_name):
            times[engine] = measure(_calls(op, case, type_name, device, copies, engine)).ms
    shape = chooser.last_shape
    if not times or shape is None:
        return None
    best = min(times, key=lambda e: times[e])
    return Entry(
        op.name,
        type_name,
        dict(shape),
        engine=best,
        ms=times[best],
        error=errors[best],
        **_stamp(device),
    )


def _stamp(device: torch.device) -> dict[str, Any]:
    env = machine.describe(device)
    return {k: env[k] for k in ("torch", "triton", "commit", "date")}


def networks() -> list[tuple[str, nn.Module, bool]]:
    """(name, network, whether it is averaged) of the recipes' networks for images of 64 pixels or
    the recipe's own size, one of each number of parameters.
    """
    from fastgan.recipes import RECIPES, ImageSpec, find

    found: dict[int, tuple[str, nn.Module, bool]] = {}
    for recipe in RECIPES:
        config = find(recipe)()
        images = ImageSpec(
            config.defaults_for()[0] or 64,
            3,
            classes=10,
            source_channels=3,
            words=("cat",),
            captions=("cat",),
        )
        try:
            built = config.build(images)
        except FastganError:  # a recipe whose package is not installed
            continue
        for name, net in built.nets.items():
            if not _size(net):  # such as a pool of images
                continue
            found.setdefault(_size(net), (f"{recipe} {name}", net, name in built.ema))
    return list(found.values())


def _size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def tune_flat_adam(net: nn.Module, averaged: bool, device: torch.device) -> Entry:
    """Whether a network of this size is updated faster by FlatAdam, its average in the same launch,
    than by torch's fused Adam and the multi-tensor average: "triton", or "reference" where that is
    not so, or is off by more than 1e-6 (relative L2).
    """
    times, results = {}, {}
    sets = rotations(6 * 4 * _size(net), at_most=4)
    for engine in ("reference", "triton"):
        updates, changed = zip(*(_update(net, averaged, device, engine) for _ in range(sets)))
        updates[0]()
        results[engine] = torch.cat([t.detach().flatten() for t in changed[0]])
        times[engine] = measure(updates).ms
    error = relative_l2(results["triton"], results["reference"])
    better = error < 1e-6 and times["triton"] * SLOWER < times["reference"]
    best = "triton" if better else "reference"
    return Entry(
        FLAT_ADAM,
        "fp32",
        {"n": _size(net)},
        engine=best,
        ms=times[best],
        error=error,
        **_stamp(device),
    )


def _update(
    net: nn.Module, averaged: bool, device: torch.device, engine: str
) -> tuple[Callable[[], None], list[torch.Tensor]]:
    """(one update of a copy of the network and its average as the trainer does it, the tensors that
    it changes)."""
    from fastgan.ops.adam.flat_parameters import FlatParameters
    from fastgan.ops.adam.optimizer import FlatAdam
    from fastgan.trainer.optimization.optimizers import Ema

    mine = copy.deepcopy(net).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = [p for p in mine.parameters() if p.requires_grad]
    capturable = device.type == "cuda"
    adam: torch.optim.Optimizer
    adam = torch.optim.Adam(
        parameters, lr=2e-4, betas=(0.5, 0.999), fused=True, capturable=capturable
    )
    if engine == "triton":
        adam = flat = FlatAdam.of(adam, FlatParameters(parameters), impl=engine)
    ema = Ema({"net": mine}, 0.999) if averaged else None
    if ema is not None and engine == "triton":
        flat.average_into(
            ema.take_over(parameters), torch.tensor(0.999, dtype=torch.float64, device=device)
        )
    share = torch.tensor(0.001, device=device)
    generator = seed("flat_adam")
    for p in parameters:
        p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator))

    def update() -> None:
        adam.step()
        if ema is not None:
            ema.update(share)

    return update, [*parameters, *(ema.nets["net"].parameters() if ema is not None else ())]


def run(
    names: Sequence[str],
    types: Sequence[str],
    budget: float,
    ship: bool,
    say: Callable[[str], None],
) -> int:
    """Tunes within a budget of seconds and writes after every entry; 0 if everything was reached, 1
    if some is left."""
    if not torch.cuda.is_available() or not has_triton:
        raise FastganError(
            "fastgan tune needs an NVIDIA GPU and Triton: without, kernels launch with their safe "
            "defaults"
        )
    device = torch.device("cuda", torch.cuda.current_device())
    path, end, left, kept = table_path(device, ship), time.monotonic() + budget, 0, 0
    facts = tuning.device_facts(device)
    assert facts is not None
    registry.load()
    ops = registry.ops(*(n for n in names if n != FLAT_ADAM)) if set(names) != {FLAT_ADAM} else []
    known = {key_of(e) for e in (tuning.read(path).entries if path.is_file() else ())}
    for target in targets(ops, device, types):
        if (target.name, target.type, tuple(sorted(target.shape))) in known:
            continue
        if time.monotonic() > end:
            left += 1
            continue
        entry, tried = tune(target, device)
        wrong = sum("wrong" in t for t in tried)
        what = f"{target.name} {target.type} {dict(target.shape)}: default {tried[0]['ms']:.4f} ms"
        merge(
            path,
            device,
            [replace(entry, shared=_shared(entry, facts.capability)) if entry.config else entry],
        )
        kept += 1
        found = f"{entry.ms:.4f} ms with {entry.config}" if entry.config else "stands"
        say(f"{what}, {found}{f', {wrong} configurations WRONG' if wrong else ''}")
    for op in ops:
        for case in op.cases:
            for type_name in types:
                if (
                    "layer" in case.tags
                    and type_name in op.dtypes
                    and len(op.engines) > 2
                    and time.monotonic() < end
                ):
                    fastest = tune_engine(op, case, type_name, device)
                    if fastest:
                        merge(path, device, [fastest])
                        say(
                            f"{op.name} {type_name} {fastest.shape}: {fastest.engine}, "
                            f"{fastest.ms:.4f} ms"
                        )
                    if fastest and op.name in PLAIN and fastest.engine == "cudnn":
                        by_direction, each = tune_layer(
                            op.name == PLAIN[1], case, type_name, device, _stamp(device)
                        )
                        merge(path, device, by_direction)
                        said = ", ".join(f"{d} {f['engine']}" for d, f in each.items())
                        say(f"  by direction: {said}")
    for name, net, averaged in networks() if not names or FLAT_ADAM in names else ():
        if (FLAT_ADAM, "fp32", (("n", _size(net)),)) in known:
            continue
        if time.monotonic() > end:
            left += 1
            continue
        entry = tune_flat_adam(net, averaged, device)
        merge(path, device, [entry])
        kept += 1
        say(f"{FLAT_ADAM} {name}, {_size(net)} parameters: {entry.engine}, {entry.ms:.4f} ms")
    say(f"{kept} entries in {path}" + (f"; {left} lookups left, run again" if left else ""))
    return int(left > 0)


def _shared(entry: Entry, capability: str) -> int:
    """Shared memory the entry's configuration needs on this GPU, by compiling for it: what decides
    whether it fits another."""
    from fastgan.verify import aot

    return (
        max((r.shared for r in aot.recheck(entry, capability)), default=0)
        if capability in aot.SHARED_LIMIT
        else 0
    )
