"""Normalisation at the shapes of DCGAN-64: one launch or several, chained or not, how many
programs; inputs lie in L2, as in a step.

fastgan bench --stages norm
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

import torch

from fastgan.bench.stages.plan import StageRow
from fastgan.bench.store import Store
from fastgan.kernels import tuning
from fastgan.kernels.norm import backward as norm_backward
from fastgan.kernels.norm import backward_sums, chain, moments, tiles
from fastgan.kernels.norm import forward as norm
from fastgan.verify.check import one_line
from fastgan.verify.timing import measure

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SETS = 4  # of inputs: what a step has just written lies in L2
SHAPES = {  # name: (images, channels, side, segments)
    "512x4x4": (128, 512, 4, 1),
    "256x8x8": (128, 256, 8, 1),
    "128x16x16": (128, 128, 16, 1),
    "64x32x32": (128, 64, 32, 1),
    "512x4x4 real|fake": (256, 512, 4, 2),
    "256x8x8 real|fake": (256, 256, 8, 2),
    "128x16x16 real|fake": (256, 128, 16, 2),
}
ONE = {"norm_one_launch": {"MAX_ROWS": 1 << 30}}
SEVERAL = {"norm_one_launch": {"MAX_ROWS": 0}}


def forms() -> Iterator[tuple[str, dict[str, dict[str, int]], int, bool]]:
    """(name, tuning overrides, programs of a reducing pass, whether launches are chained)."""
    yield "as shipped", {}, tiles.SPLIT_PROGRAMS, True
    yield "as shipped, not chained", {}, tiles.SPLIT_PROGRAMS, False
    for programs in (132, 264, 1056):
        yield f"several launches, {programs} programs", SEVERAL, programs, True
    yield "one launch", ONE, tiles.SPLIT_PROGRAMS, True


def row(shape: tuple[int, int, int, int], direction: str, toy: bool) -> dict[str, Any]:
    """Microseconds of each form, and of the parts of the one of several launches."""
    n, c, side, segments = (4, 16, 4, shape[3]) if toy else shape
    kind = torch.float32 if toy else torch.bfloat16
    draw = lambda: (
        torch.randn(n, c, side, side, device=DEVICE)
        .to(kind)
        .contiguous(memory_format=torch.channels_last)
    )
    xs, dzs = [draw() for _ in range(SETS)], [draw() for _ in range(SETS)]
    weight, bias = torch.rand(c, device=DEVICE), torch.rand(c, device=DEVICE)
    running = torch.zeros(c, device=DEVICE), torch.ones(c, device=DEVICE)
    stats = moments.moments(xs[0], segments)

    def call(i: int) -> Any:
        if direction == "forward":
            return norm.train_forward(
                xs[i], weight, bias, segments, 1e-5, "leaky_relu", 0.2, running, None, 0.1
            )
        return norm_backward.train_backward(
            dzs[i], xs[i], weight, bias, stats, 1e-5, "leaky_relu", 0.2
        )

    def time(one: Any) -> float:
        return 1e3 * measure([lambda i=i: one(i) for i in range(SETS)], samples=5, sample_ms=3.0).ms

    found: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, overrides, programs, chained in forms():
        with contextlib.ExitStack() as stack:
            stack.enter_context(tuning.override(overrides))
            stack.enter_context(mock.patch.object(tiles, "SPLIT_PROGRAMS", programs))
            stack.enter_context(mock.patch.object(chain, "ON", chained))
            tuning.forget()
            try:
                found[name] = time(call)
            except Exception as e:  # a configuration that does not fit costs itself alone
                failed[name] = one_line(e)
    tuning.forget()
    flat = stats.unbind(0)
    if direction == "forward":
        parts = {
            "moments and merge": lambda i: moments.moments(xs[i], segments, running),
            "apply": lambda i: norm.apply(xs[i], weight, bias, *flat, 1e-5, "leaky_relu", 0.2),
        }
    else:
        sums = torch.zeros(segments, 2, c, device=DEVICE)
        parts = {
            "sums and merge": lambda i: backward_sums.reduce(
                dzs[i], xs[i], weight, bias, *flat, 1e-5, "leaky_relu", 0.2, write_dx=False
            ),
            "dx": lambda i: norm_backward.dx(
                dzs[i], xs[i], weight, bias, *flat, sums, 1e-5, "leaky_relu", 0.2
            ),
        }
    found |= {name: time(one) for name, one in parts.items()}
    size = xs[0].nbytes
    best = min((k for k in found if "launch" in k or "shipped" in k), key=lambda k: found[k])
    shown = (
        f"{size / 1e6:.1f} MB: as shipped {found['as shipped']:.1f} us, best "
        f"{found[best]:.1f} "
        f"us ({best})"
    )
    return {"us": found, "failures": failed, "bytes": size, "shown": shown}


def rows(toy: bool) -> Iterable[StageRow]:
    """Each shape, forward and backward."""
    for name, shape in SHAPES.items():
        for direction in ("forward", "backward"):
            yield StageRow(f"{name} {direction}", lambda a=(shape, direction, toy): row(*a), 20)


def summary(store: Store) -> None:
    """Each form's microseconds."""
    for known in store.stage("norm"):
        print(f"\n{known['key']} ({known['bytes'] / 1e6:.1f} MB)")
        for name, us in sorted(known["us"].items(), key=lambda item: item[1]):
            print(f"  {us:8.2f} us  {name}")
