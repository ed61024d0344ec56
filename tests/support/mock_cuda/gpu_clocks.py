"""What the tests of measuring, tuning and stages share: a device, times that are said instead of
measured, small cases."""

from __future__ import annotations

import dataclasses

import torch

from fastgan.bench import operator_calls
from fastgan.bench.stages import conv_directions
from fastgan.kernels import tuning
from fastgan.verify import registry, timing, tune, tuning_tables
from fastgan.verify.tuner import directions
from mock_cuda.kernels import LAUNCHED

CUDA = torch.device("cuda")


def small_sample(name, direction="forward"):
    return next(
        s for s in operator_calls.samples(CUDA, (name,), (), False) if s.direction == direction
    )


def fake_measure(monkeypatch, ms):
    """Every function is called once, and takes what `ms` says of the kernels that it launched."""

    def measured(calls, **how):
        before = len(LAUNCHED)
        calls[0]()
        took = ms(set(LAUNCHED[before:]))
        return timing.Timing(took, took, took, "graph")

    monkeypatch.setattr(tune, "measure", measured)
    monkeypatch.setattr(directions, "measure", measured)


def tiny_layer(monkeypatch, name="conv2d"):
    """The operator with one small case, which counts as a layer, and two tiles a kernel."""
    registry.load()
    op = registry.ops(name)[0]
    transposed, layer = conv_directions.case("D L2" if name == "conv2d" else "G L2", 2, True)
    small = dataclasses.replace(layer, name="a layer", tags=frozenset({"layer", "quick"}))
    few = {kernel: list(tiles)[:2] for kernel, tiles in op.candidates.items()}
    monkeypatch.setitem(registry._OPS, name, dataclasses.replace(op, cases=[small], candidates=few))
    return transposed, small


def stored():
    path = tuning_tables.table_path(CUDA, False)
    return {(e.op, e.type): e for e in tuning.read(path).entries}
