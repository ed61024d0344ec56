"""What several GPUs can give, computed: the tables of docs/many-gpus.md, which pages.py makes."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from fastgan.bench.iterations.work import count
from fastgan.distributed.buckets import BYTES
from fastgan.models import dcgan, r3gan

A_NODE = 8
"""GPUs that NVLink joins."""

NVLINK, INFINIBAND = 400e9, 45e9
"""Bytes a second that a GPU moves in a reduction: of 450 (NVLink 4, one direction) and 50 (400 Gb/s
InfiniBand, one port a GPU)."""

START, HOP = 30e-6, 12e-6
"""Seconds before a reduction moves anything, within a node and for each doubling of nodes."""

RATE, SHARE = 989e12, 0.25
"""bf16 operations a second of an H100 or H200, and how many of them R3GAN's grouped convolutions
are taken to reach."""

BACKWARD = 2 / 3
"""Of a phase: the part in which reductions have something to hide behind."""

STATE = {"D": 20, "G": 24}
"""Bytes a parameter: master, gradient and two moments in fp32 (16), the bf16 copy and the gradient
as backward leaves it (4), G's average (4)."""

ROOM = 0.5
"""Of a GPU's memory: what activations leave for the state."""


@dataclass(frozen=True)
class Phase:
    """seconds: of an update on one GPU. parameters: whose gradients are reduced in it."""

    net: str
    seconds: float
    parameters: int


@dataclass(frozen=True)
class Training:
    """A step on one GPU. batch: images a GPU. source: where its time is from."""

    name: str
    batch: int
    phases: tuple[Phase, ...]
    source: str

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)

    @property
    def state(self) -> int:
        """Bytes that parameters and what belongs to them take on each GPU."""
        return sum(STATE[p.net] * p.parameters for p in self.phases)


def reduction(size: float, gpus: int) -> float:
    """Seconds of adding up `size` bytes over `gpus`: scattered and gathered within a node, each
    GPU's part over the nodes in between (two rings)."""
    inside, nodes = min(gpus, A_NODE), max(gpus // A_NODE, 1)
    seconds = START + 2 * (inside - 1) / inside * size / NVLINK
    if nodes > 1:
        seconds += HOP * math.log2(nodes)
        seconds += 2 * (nodes - 1) / nodes * size / inside / INFINIBAND
    return seconds


def exposed(phase: Phase, gpus: int, bucket: float) -> float:
    """Seconds of reductions that backward doesn't hide: buckets are ready one after the other, and
    reduced one after the other."""
    if gpus == 1:
        return 0.0
    size = 4 * phase.parameters
    buckets = max(int(size // bucket), 1)
    backward, done = BACKWARD * phase.seconds, 0.0
    for i in range(buckets):
        done = max(done, backward * (i + 1) / buckets) + reduction(size / buckets, gpus)
    return done - backward


def efficiency(training: Training, gpus: int, bucket: float = BYTES) -> float:
    """Images a second of `gpus`, each with its own batch, over those of `gpus` that need not
    talk."""
    waits = sum(exposed(phase, gpus, bucket) for phase in training.phases)
    return training.seconds / (training.seconds + waits)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@functools.cache
def dcgan_64() -> Training:
    """Batch 128 a GPU; its step as it was measured on an H200 (bench/results)."""
    with torch.device("meta"):
        g, d = dcgan.Generator(64, 3), dcgan.Discriminator(64, 3)
    step = 1.545e-3
    phases = (Phase("D", 0.6 * step, parameters(d)), Phase("G", 0.4 * step, parameters(g)))
    return Training("DCGAN-64", 128, phases, "measured on an H200: 1.545 ms")


@functools.cache
def r3gan_100m() -> Training:
    """64 pixels, batch 32 a GPU, about 100 million parameters; its step by its operations."""
    shape = {"width": 192, "count": 2, "group": 16}
    batch = 32
    with torch.device("meta"):
        g, d = r3gan.Generator(64, 3, 64, **shape), r3gan.Discriminator(64, 3, **shape)
        z, real = torch.empty(batch, 64), torch.empty(batch, 3, 64, 64)

    def d_phase() -> None:
        both = torch.cat([real, g(z).detach()]).requires_grad_()
        logits = d(both)
        (slope,) = torch.autograd.grad(logits.sum(), both, create_graph=True)
        (F.softplus(logits).mean() + slope.square().sum()).backward()

    def g_phase() -> None:
        d.requires_grad_(False)
        F.softplus(d(g(z)) - d(real)).mean().backward()

    seconds = [count(run) / (SHARE * RATE) for run in (d_phase, g_phase)]
    phases = (Phase("D", seconds[0], parameters(d)), Phase("G", seconds[1], parameters(g)))
    total = sum(p.parameters for p in phases) / 1e6
    source = f"{sum(seconds) * 1e3:.0f} ms, from {sum(seconds) * SHARE * RATE / 1e12:.1f} TFLOP"
    return Training(f"R3GAN-64, {total:.0f} M parameters", batch, phases, source)


def trainings() -> list[Training]:
    return [dcgan_64(), r3gan_100m()]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def efficiencies(counts: Sequence[int]) -> str:
    """Efficiency by training and number of GPUs."""
    rows = [
        [training.name, *(f"{efficiency(training, n):.1%}" for n in counts)]
        for training in trainings()
    ]
    return table(["GPUs", *map(str, counts)], rows)


def bucket_sizes() -> str:
    """Efficiency by the size of a bucket."""
    sizes = {"one for all": 1e12, "25 MB": 25e6, "4 MiB": BYTES, "1 MiB": 2**20}
    rows = [
        [f"{training.name}, {n} GPUs"]
        + [f"{efficiency(training, n, size):.1%}" for size in sizes.values()]
        for training in trainings()
        for n in (8, 64)
    ]
    return table(["a bucket", *sizes], rows)


def memory() -> str:
    """Time and state of a step on each GPU."""
    rows = [[t.name, str(t.batch), t.source, f"{t.state / 1e9:.2f} GB"] for t in trainings()]
    return table(["training", "images a GPU", "a step on one GPU", "state on each GPU"], rows)


def largest() -> str:
    """The parameters from which the state would have to be spread over GPUs."""
    mean = sum(STATE.values()) / len(STATE)
    rows = [[f"{gb} GB", f"{ROOM * gb / mean:.1f} billion"] for gb in (24, 80, 141)]
    return table(["memory of a GPU", "parameters of G and D together"], rows)


TABLES = {
    "one node": lambda: efficiencies((1, 2, 4, 8)),
    "nodes": lambda: efficiencies((8, 16, 64, 256, 1024)),
    "buckets": bucket_sizes,
    "memory": memory,
    "largest": largest,
}
