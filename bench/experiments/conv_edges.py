"""Who applies the normalisation: whole pairs of layers, forward and backward, by each way an edge
can be run.

    python -m fastgan.bench.gpu --stages conv
        as a stage, with a budget
    TRITON_INTERPRET=1 python -m fastgan.bench.experiments.conv_edges --toy
        the code of every row at toy size, on any CPU

fastgan.bench.experiments.first_gpu_look times the parts; this times what a user gets. A pair is
convolution -> BatchNorm -> activation -> convolution of DCGAN-64 (its edge is what is decided) with
autograd through input and parameters, fp32 parameters, bf16 autocast, channels_last, in one
replayed CUDA graph over rotating inputs. Rows:
eager with cudnn.benchmark; torch.compile; the four edges by our kernels. Then first and last layers
(1 or 3 channels), and SNGAN's folded blocks against their unfolded form. The summary states, per
edge, the fastest way and what it gives against the better of eager and compile.

    python -m fastgan.bench.experiments.conv_edges --write  the decisions in bench/results, or $OUT,
    into the user's tuning table

writes for each pair its edge and, where the normalisation is separate, the engine of every
convolution: those of losers too, since a lookup takes the nearest entry and a winner would reach
shapes where it lost.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.acceleration import accelerate
from fastgan.acceleration.edges import EDGES, chains, folded_weight
from fastgan.acceleration.fused import FusedSequential
from fastgan.acceleration.patterns import Tree
from fastgan.acceleration.swapping import families_of, plan_of
from fastgan.bench.gpu import StageRow
from fastgan.bench.store import Store, machine
from fastgan.kernels import tuning
from fastgan.kernels.common import triton_minor
from fastgan.kernels.conv.spec import ConvSpec
from fastgan.ops.conv.fused import shape_of
from fastgan.ops.conv.modules import Conv2d
from fastgan.paths import config_dir
from fastgan.verify.check import one_line
from fastgan.verify.differences import relative_l2
from fastgan.verify.timing import measure, rotations
from fastgan.verify.tuning_tables import save

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WRONG = (
    3e-2  # relative L2 of the output against eager in fp32: a few bf16 roundings through two layers
)
# name: (transposed, channels of input, middle and output, side of the input)
PAIRS = {
    "G L2-L3": (True, 512, 256, 128, 4),
    "G L3-L4": (True, 256, 128, 64, 8),
    "G L4-L5": (True, 128, 64, 3, 16),
    "D L2-L3": (False, 64, 128, 256, 32),
    "D L3-L4": (False, 128, 256, 512, 16),
}
WAYS = (
    "eager",
    "compile",
    *(
        f"{edge} | {engine}"
        for edge, engine in (
            ("separate", "auto"),
            ("separate", "triton"),
            ("moments", "triton"),
            ("on_load", "triton"),
            ("on_load+g", "triton"),
        )
    ),
)
ENDS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, int, int]]] = {
    "D first, leaky_relu": (
        lambda: nn.Sequential(nn.Conv2d(3, 64, 4, 2, 1), nn.LeakyReLU(0.2)),
        (3, 64, 64),
    ),
    "G last, tanh": (
        lambda: nn.Sequential(nn.ConvTranspose2d(64, 3, 4, 2, 1), nn.Tanh()),
        (64, 32, 32),
    ),
    "D last": (lambda: nn.Sequential(nn.Conv2d(512, 1, 4, 1, 0)), (512, 4, 4)),
    "SNGAN up": (
        lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(256, 256, 3, 1, 1)),
        (256, 16, 16),
    ),
    "SNGAN down": (
        lambda: nn.Sequential(nn.Conv2d(128, 128, 3, 1, 1), nn.AvgPool2d(2)),
        (128, 32, 32),
    ),
}
END_WAYS = ("eager", "compile", "separate | auto", "separate | triton")


def pair(name: str, toy: bool) -> tuple[nn.Sequential, tuple[int, int, int]]:
    """The modules of a pair and the size of one input."""
    transposed, first, middle, last, side = PAIRS[name]
    if toy:
        first, middle, last, side = 6, 5, 3, 4
    make, act = (nn.ConvTranspose2d, nn.ReLU()) if transposed else (nn.Conv2d, nn.LeakyReLU(0.2))
    torch.manual_seed(0)
    net = nn.Sequential(
        make(first, middle, 4, 2, 1, bias=False),
        nn.BatchNorm2d(middle),
        act,
        make(middle, last, 4, 2, 1, bias=False),
    )
    for p in net.parameters():
        if p.dim() == 4:
            nn.init.normal_(p, 0, 0.02)
    return net, (first, side, side)


def run(net: nn.Module, way: str, toy: bool) -> Callable[[Tensor], Any]:
    """The network as `way` runs it, called on one input: forward under autocast."""
    if way == "compile" and not toy:
        net = torch.compile(
            net, mode="max-autotune-no-cudagraphs", dynamic=False
        )  # the harness captures
    elif " | " in way:
        edge, engine = way.split(" | ")
        fused = accelerate(net)
        if isinstance(fused, FusedSequential):
            fused.edge, fused.impl = edge, engine
        else:  # a lone convolution is no run: the operator's own module shows its engines
            lone: Any = net[0]  # type: ignore[index]
            lone.__class__, lone.impl = Conv2d, engine

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=not toy):
            return net(x)

    return forward


def convolutions(net: nn.Sequential, x: Tensor) -> Iterator[tuple[Tensor, Tensor, ConvSpec]]:
    """(input, weight, geometry) of every convolution of a chain as the fused container runs it,
    folded where that folds."""
    children = tuple(net)
    with torch.no_grad():
        for run in plan_of(net, Tree(net), families_of(None)).runs:
            if chains(children, run):
                yield x, *folded_weight(children[run.layer], run.fold)
            for child in children[run.start : run.stop]:
                x = child(x)


def experiment(
    net: nn.Sequential, shape: tuple[int, int, int], batch: int, way: str, toy: bool
) -> dict[str, Any]:
    """Checks a way's output against eager fp32 on the same input, then times forward and
    backward."""
    torch.backends.cudnn.benchmark = True
    net = net.to(DEVICE, memory_format=torch.channels_last)
    generator = torch.Generator(DEVICE).manual_seed(1)
    draw = lambda: torch.randn(batch, *shape, generator=generator, device=DEVICE).contiguous(
        memory_format=torch.channels_last
    )
    gold = copy.deepcopy(net)
    with torch.no_grad():
        probe = draw()
        size = probe.nbytes + gold(probe).nbytes
    sets = [draw().requires_grad_() for _ in range(1 if toy else rotations(size, at_most=8))]
    forward = run(net, way, toy)
    with (
        torch.no_grad()
    ):  # no graph may live on: its leaves' nodes would bind the capture to this stream
        y = forward(sets[0])
        error = relative_l2(y, gold(sets[0]))
    if not error < WRONG:
        return {"failed": f"differs from eager fp32 by {error:.1e}: not timed"}
    u = (
        torch.randn(y.shape, generator=generator, device=DEVICE)
        .to(y.dtype)
        .contiguous(memory_format=torch.channels_last)
    )
    wanted = list(net.parameters())
    timing = measure(
        [lambda x=x: torch.autograd.grad(forward(x), [x, *wanted], u) for x in sets],
        samples=7,
        sample_ms=4.0,
    )
    return {
        "ms": timing.ms,
        "p20": timing.p20,
        "p80": timing.p80,
        "how": timing.how,
        "error": error,
        "sets": len(sets),
        "shown": f"{timing.ms:.4f} ms forward+backward ({timing.how}), error {error:.1e}",
    }


def pair_row(name: str, batch: int, way: str, toy: bool) -> dict[str, Any]:
    net, shape = pair(name, toy)
    return experiment(net, shape, batch, way, toy)


def end_row(name: str, batch: int, way: str, toy: bool) -> dict[str, Any]:
    make, shape = ENDS[name]
    if toy:  # one image, and a side its kernel divides
        shape, batch = (shape[0], 4, 4), 1
    torch.manual_seed(0)
    return experiment(make(), shape, batch, way, toy)


def rows(toy: bool) -> Iterable[StageRow]:
    """Batch 128 first, generator first; PyTorch's rows of an edge before ours."""
    for batch in (2,) if toy else (128, 1024):
        for name in ("G L2-L3", "D L2-L3") if toy else PAIRS:
            for way in WAYS:
                seconds = 60 if way == "compile" else 20
                yield StageRow(
                    f"{name} batch {batch} | {way}",
                    lambda a=(name, batch, way, toy): pair_row(*a),
                    seconds,
                    ours=" | " in way,
                )
        for name in ("D first, leaky_relu",) if toy else ENDS:
            for way in END_WAYS:
                seconds = 60 if way == "compile" else 15
                yield StageRow(
                    f"{name} batch {batch} | {way}",
                    lambda a=(name, batch, way, toy): end_row(*a),
                    seconds,
                    ours=" | " in way,
                )


def table(store: Store) -> dict[str, dict[str, float]]:
    """where -> way -> milliseconds."""
    found: dict[str, dict[str, float]] = {}
    for r in store.stage("conv"):
        where, _, way = r["key"].partition(" | ")
        found.setdefault(where, {})[way] = r["ms"]
    return found


def summary(store: Store) -> None:
    """Per edge: every way, the fastest, and what it gives against the better of eager and
    compile."""
    won = []
    for where, ms in table(store).items():
        base = min((ms[w] for w in ("eager", "compile") if w in ms), default=math.nan)
        ours = {w: v for w, v in ms.items() if " | " in w}
        print(f"\n{where}")
        for way in WAYS if where.split(" batch ")[0] in PAIRS else END_WAYS:
            print(
                f"  {way:22} "
                + (f"{ms[way]:8.4f} ms  {base / ms[way]:5.2f}x" if way in ms else "not measured")
            )
        if ours and base == base:
            best = min(ours, key=lambda w: ours[w])
            won.append(base / ours[best])
            print(
                f"  decision: {best}, {base / ours[best]:.2f}x of the better of eager and compile"
            )
    if won:
        print(
            f"\ngeomean over {len(won)} rows: {math.exp(sum(map(math.log, won)) / len(won)):.2f}x, "
            f"worst {min(won):.2f}x"
        )


def layers(where: str) -> list[tuple[str, dict[str, int]]]:
    """(operator, sizes under which the tables keep it) of every convolution of a pair or an end at
    its batch."""
    name, _, batch = where.partition(" batch ")
    net, shape = pair(name, False) if name in PAIRS else (ENDS[name][0](), ENDS[name][1])
    found = []
    for x, w, spec in convolutions(net, torch.zeros(1, *shape)):
        sizes = dict(shape_of(x, w, spec))
        found.append(
            (
                "conv_transpose2d" if spec.transposed else "conv2d",
                {**sizes, "rows": sizes["rows"] * int(batch)},
            )
        )
    return found


def decisions(found: dict[str, dict[str, float]]) -> list[tuning.Entry]:
    """The fastest of our ways of each pair and end as table entries, bf16: conv_edge, and engines
    where separate.

    A layer that is second in one pair and first in another goes by the pair whose edge it opens.
    """
    chosen: dict[tuple[str, tuple[tuple[str, int], ...]], tuning.Entry] = {}
    opened: set[tuple[str, tuple[tuple[str, int], ...]]] = set()
    for where, ms in found.items():
        ours = {w: v for w, v in ms.items() if " | " in w}
        if not ours:
            continue
        best = min(ours, key=lambda w: ours[w])
        edge, _, engine = best.partition(" | ")
        is_pair = where.partition(" batch ")[0] in PAIRS
        for i, (op, sizes) in enumerate(layers(where)):
            entries = []
            if edge == "separate":
                taken = "cudnn" if engine == "auto" else "triton"
                entries.append(tuning.Entry(op, "bf16", sizes, taken, ms=ours[best]))
            if is_pair and i == 0:
                entries.append(tuning.Entry("conv_edge", "bf16", sizes, edge, ms=ours[best]))
            for entry in entries:
                key = entry.op, tuple(sorted(sizes.items()))
                if i == 0 or key not in opened:
                    chosen[key] = entry
                if i == 0:
                    opened.add(key)
    return list(chosen.values())


def write(store: Store) -> None:
    """The decisions into the user's tuning table, over entries of the same operator, type and
    sizes."""
    facts = tuning.device_facts(torch.device("cuda", torch.cuda.current_device()))
    assert facts is not None
    here = machine()
    stamp = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        **{k: here[k] for k in ("torch", "triton", "commit")},
    }
    entries = [replace(e, **stamp) for e in decisions(table(store))]
    if not entries:
        raise SystemExit(
            f"nothing measured of the conv stage in {store.path}: run python -m fastgan.bench.gpu "
            "--stages conv first"
        )
    path = config_dir() / tuning.slug(facts.gpu) / f"triton-{triton_minor()}.json"
    key = lambda e: (e.op, e.type, tuple(sorted(e.shape.items())))
    new = {key(e) for e in entries}
    kept = [e for e in (tuning.read(path).entries if path.is_file() else ()) if key(e) not in new]
    save(path, tuning.Table(facts.gpu, facts.capability, triton_minor(), (*kept, *entries)))
    print(f"{len(entries)} entries written to {path}")


def main() -> None:
    """Every row at once, without a store; or the decisions of a store into the tuning table."""
    p = argparse.ArgumentParser(
        "python -m fastgan.bench.experiments.conv_edges",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--toy", action="store_true", help="tiny sizes, to find mistakes before GPU time is spent"
    )
    p.add_argument(
        "--write", action="store_true", help="what was decided into the user's tuning table"
    )
    options = p.parse_args()
    if options.write:
        if not torch.cuda.is_available():
            raise SystemExit(
                "no GPU here: a tuning table is of the GPU that was measured, so write it there"
            )
        write(Store(os.environ.get("OUT")))
        return
    for row in rows(options.toy or DEVICE == "cpu"):
        try:
            values = row.run()
        except Exception as e:  # Triton's own errors derive from Exception alone
            values = {"failed": one_line(e)}
        print(f"{row.key}: {values.get('failed') or values['shown']}", flush=True)


assert {way.split(" | ")[0] for way in WAYS if " | " in way} == set(EDGES)

if __name__ == "__main__":
    main()
