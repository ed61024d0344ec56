"""What tunes on a GPU, its clock stood in for: run by
tests/graphs/test_mock_cuda.py."""

from __future__ import annotations

import dataclasses
import types

import pytest
import torch
from torch import nn

from fastgan.bench.stages import conv_directions
from fastgan.kernels import tuning
from fastgan.verify import aot, registry, tune, tuning_tables
from fastgan.verify.tuner import directions
from mock_cuda.gpu_clocks import CUDA, fake_measure, stored, tiny_layer

pytestmark = pytest.mark.usefixtures("settings_of_its_own")


def test_the_tuner_keeps_an_engine_a_direction_and_flat_adam(monkeypatch):
    tiny_layer(monkeypatch)
    net = nn.Linear(4, 3)
    monkeypatch.setattr(tune, "networks", lambda: [("tiny G", net, True)])
    monkeypatch.setattr(
        aot, "recheck", lambda entry, capability: [types.SimpleNamespace(shared=12345)]
    )
    tried = []

    def ms(kernels):
        """cuDNN wins as a whole, Triton the weight gradient and Adam; of tiles the later."""
        tried.append(kernels)
        if any("adam" in k for k in kernels):
            return 0.5
        if kernels == {"conv_wgrad_kernel"}:
            return 0.7
        return 1.0 if not kernels else 2.0 - 0.1 * len(tried) / 100

    fake_measure(monkeypatch, ms)
    tiles = {d: found[:1] for d, found in directions.TILES.items()}
    monkeypatch.setattr(directions.tune_layer, "__defaults__", (tiles,))
    said = []
    assert tune.run(["conv2d", "flat_adam"], ["fp32"], 600.0, False, said.append) == 0
    found = stored()
    assert found["conv2d", "fp32"].engine == "cudnn"
    assert found["conv2d.wgrad", "fp32"].engine == "triton"
    assert found["conv2d.forward", "fp32"].engine == "cudnn"
    assert found["flat_adam", "fp32"].engine == "triton"
    assert any("by direction:" in line and "wgrad triton" in line for line in said)
    assert tuning.engine("flat_adam", "fp32", {"n": 15}, CUDA) == "triton"
    known = len(tuning.read(tuning_tables.table_path(CUDA, False)).entries)
    # what is known is not measured again
    assert tune.run(["flat_adam"], ["fp32"], 600.0, False, said.append) == 0
    assert said[-1].startswith("0 entries")
    assert len(tuning.read(tuning_tables.table_path(CUDA, False)).entries) == known
    monkeypatch.setattr(tune, "tune", None)
    tune.run(["conv2d"], ["fp32"], 0.0, False, said.append)
    assert said[-1].startswith("0 entries")


def test_the_tuner_keeps_the_fastest_right_tile(monkeypatch):
    registry.load()
    op = registry.ops("adam_ema")[0]
    small = next(case for case in op.cases if "quick" in case.tags)
    layer = dataclasses.replace(small, name="a layer", tags=frozenset({"layer"}))
    few = {"adam_ema": [{"BLOCK": 512, "PROGRAMS": 4}, {"BLOCK": 1024, "PROGRAMS": 4}]}
    monkeypatch.setitem(
        registry._OPS, op.name, dataclasses.replace(op, cases=[small, layer], candidates=few)
    )
    monkeypatch.setattr(
        aot, "recheck", lambda entry, capability: [types.SimpleNamespace(shared=12345)]
    )
    times = iter([2.0, 1.5, 1.0, 1.2])  # the default, the compiled form's own, the two
    fake_measure(monkeypatch, lambda kernels: next(times))
    said = []
    run = lambda budget: tune.run(["adam_ema"], ["fp32"], budget, False, said.append)
    assert run(-1.0) == 1
    assert "1 lookups left, run again" in said[-1]
    assert run(600.0) == 0
    entry = stored()["adam_ema", "fp32"]
    assert (entry.config, entry.shared) == (few["adam_ema"][0], 12345)
    assert "WRONG" not in said[1]
    assert run(600.0) == 0
    assert said[-1].startswith("0 entries")
    # a wrong tile is named and not timed; where none is faster the default stands, and is kept
    tuning_tables.table_path(CUDA, False).unlink()
    real = tune.check

    def wrong_at_512(*given, **how):
        found, lines = real(*given, **how)
        if tuning.config("adam_ema", "fp32", (("n", 992),), {}, CUDA).get("BLOCK") == 512:
            found = [dataclasses.replace(row, verdict="FAIL", note="off") for row in found]
        return found, lines

    monkeypatch.setattr(tune, "check", wrong_at_512)
    times = iter([1.0] * 3)  # of the default, the compiled form's and the right one
    assert run(600.0) == 0
    assert "stands, 1 configurations WRONG" in said[-2]
    assert not stored()["adam_ema", "fp32"].config
    monkeypatch.setattr(tune, "check", real)
    target = tune.Target("adam_ema", "a layer", "adam_ema", "tf32", (("n", 992),))
    times = iter([1.0] * 4)
    entry, tried = tune.tune(target, CUDA)  # of a type that the operator has not: in fp32
    assert not entry.config  # what is no faster leaves the default
    assert [t["config"] for t in tried][2:] == few["adam_ema"]


def test_a_tuner_without_time_says_what_is_left(monkeypatch):
    tiny_layer(monkeypatch)
    monkeypatch.setattr(tune, "networks", lambda: [("tiny G", nn.Linear(4, 3), False)])
    said = []
    assert tune.run(["conv2d", "flat_adam"], ["fp32"], -1.0, False, said.append) == 1
    assert "lookups left, run again" in said[-1]


def test_flat_adam_is_refused_where_it_is_slower_or_wrong(monkeypatch):
    net = nn.Linear(4, 3)
    fake_measure(monkeypatch, lambda kernels: 2.0 if kernels else 1.0)
    assert tune.tune_flat_adam(net, True, CUDA).engine == "reference"
    fake_measure(monkeypatch, lambda kernels: 0.5 if kernels else 1.0)
    assert tune.tune_flat_adam(net, False, CUDA).engine == "triton"
    monkeypatch.setattr(tune, "relative_l2", lambda a, b: 1e-3)
    assert tune.tune_flat_adam(net, False, CUDA).engine == "reference"


def test_engines_that_are_wrong_or_alone_are_not_chosen(monkeypatch):
    _, layer = tiny_layer(monkeypatch)
    op = registry.ops("conv2d")[0]
    op = dataclasses.replace(op, engines=("cudnn", "triton", "reference"))
    alone = dataclasses.replace(op, engines=("reference", "cudnn"))
    assert tune.tune_engine(alone, layer, "fp32", CUDA) is None
    wrong = types.SimpleNamespace(verdict="FAIL", direction="forward", error=1.0)
    right = types.SimpleNamespace(verdict="pass", direction="forward", error=1e-7)
    monkeypatch.setattr(
        tune,
        "check",
        lambda op, case, kind, engine, *a, **k: ([wrong if engine == "cudnn" else right], None),
    )
    fake_measure(monkeypatch, lambda kernels: 1.0)
    assert tune.tune_engine(op, layer, "fp32", CUDA).engine == "triton"
    monkeypatch.setattr(tune, "check", lambda *a, **k: ([wrong], None))
    assert tune.tune_engine(op, layer, "fp32", CUDA) is None


def test_a_winning_tile_says_the_shared_memory_it_takes(monkeypatch):
    entry = tuning.Entry("conv_forward", "bf16", {"k": 4}, config={"BLOCK_M": 64})
    needs = [types.SimpleNamespace(shared=n) for n in (1024, 65536)]
    monkeypatch.setattr(aot, "recheck", lambda entry, capability: needs)
    assert tune._shared(entry, "sm_90") == 65536
    assert tune._shared(entry, "sm_75") == 0  # not known how much there is
    monkeypatch.setattr(aot, "recheck", lambda entry, capability: [])
    assert tune._shared(entry, "sm_90") == 0


def test_a_tile_that_raises_is_named_and_the_device_asked(monkeypatch):
    transposed, layer = conv_directions.case("D L2", 2, True)
    asked = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *device: asked.append(device))
    monkeypatch.setattr(
        directions.Layer,
        "time",
        lambda self, ops, direction: 1.0 if ops.rest[1] == "cudnn" else 1 / 0,
    )
    stamp = dict.fromkeys(("torch", "triton", "commit", "date"), "")
    none = dict.fromkeys(directions.TILES, ())
    _, found = directions.tune_layer(transposed, layer, "fp32", CUDA, stamp, none)
    assert asked
    assert all(d["engine"] == "cudnn" for d in found.values())
    assert all("division by zero" in d["failed"][0] for d in found.values())
