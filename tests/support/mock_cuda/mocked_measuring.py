"""What measures and tunes on a GPU, its clocks and counters stood in for: run by
tests/graphs/test_mock_cuda.py."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fastgan
from fastgan import recipes
from fastgan.bench import __main__ as bench_main
from fastgan.bench import benchmark, operator_calls, operators
from fastgan.bench.experiments import conv_edges, first_gpu_look
from fastgan.bench.iterations import measure, rows, suites
from fastgan.bench.stages import (
    conv_directions,
    iteration_times,
    norm_forms,
    operator_times,
    plan,
    proof,
    recipe_runs,
    same_training,
    start_up,
)
from fastgan.bench.store import Store
from fastgan.errors import FastganError
from fastgan.kernels import tuning
from fastgan.recipes.config import ImageSpec
from fastgan.recipes.dcgan import Dcgan
from fastgan.verify import aot, registry, timing, tune, tuning_tables
from fastgan.verify.tuner import directions
from mock_cuda.kernels import LAUNCHED

CUDA = torch.device("cuda")
TINY = {suite.name: suite for suite in suites.TINY}


@pytest.fixture(autouse=True)
def settings_of_its_own(monkeypatch, tmp_path):
    """No table of a test's is another's, and what Inductor would compile runs as it is written."""
    monkeypatch.setenv("FASTGAN_CONFIG_DIR", str(tmp_path / "config"))
    tuning.forget()
    monkeypatch.setattr(
        torch, "compile", lambda f=None, **options: f if f is not None else lambda g: g
    )
    yield
    tuning.forget()


# -- NVML ----------------------------------------------------------------------------------------


class FakeNvml(types.ModuleType):
    """pynvml on a GPU of 400 W at 1755 MHz; `without` names calls that it refuses."""

    NVML_CLOCK_SM = 1

    class NVMLError(Exception):
        pass

    def __init__(self, *without):
        super().__init__("pynvml")
        self.without, self.handles = without, []

    def __getattribute__(self, name):
        if name.startswith("nvml") and name in super().__getattribute__("without"):

            def refused(*given):
                raise FakeNvml.NVMLError(name)

            return refused
        return super().__getattribute__(name)

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):
        self.handles.append(uuid)
        return "by uuid"

    def nvmlDeviceGetHandleByIndex(self, index):
        self.handles.append(index)
        return "by index"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return 400e3 * time.perf_counter()

    def nvmlDeviceGetPowerUsage(self, handle):
        return 400_000

    def nvmlDeviceGetClockInfo(self, handle, kind):
        assert kind == self.NVML_CLOCK_SM
        return 1755


class Sleeps:
    """A row whose step takes five milliseconds."""

    flags = contextlib.nullcontext

    @staticmethod
    def step():
        time.sleep(0.005)


def energy(monkeypatch, *without):
    module = FakeNvml(*without)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    nvml = measure.Nvml(CUDA)
    return module, measure.energy(Sleeps(), CUDA, nvml, 64, 0.2)


@pytest.mark.parametrize(
    "without",
    [
        (),
        ("nvmlDeviceGetHandleByUUID",),
        ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetClockInfo"),
    ],
    ids=["all", "no uuid", "power alone"],
)
def test_energy_of_a_step(without, monkeypatch):
    module, found = energy(monkeypatch, *without)
    wanted = 0 if "nvmlDeviceGetHandleByUUID" in without else "GPU-00000000"
    assert str(module.handles[0]).startswith(str(wanted))
    assert found["watts"] == 400
    assert ("sm_mhz" in found) is ("nvmlDeviceGetClockInfo" not in without)
    # at least 5 ms a step: 2 J, for 64 images; a busy machine sleeps longer
    assert 2.0 / 64 * 1e3 <= found["joules_per_1000_images"] < 1e3


@pytest.mark.parametrize(
    "without", ["nvmlInit", "nvmlDeviceGetPowerUsage nvmlDeviceGetTotalEnergyConsumption", None]
)
def test_without_nvml_there_is_no_energy(without, monkeypatch):
    if without is None:
        monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
        assert measure.energy(Sleeps(), CUDA, measure.Nvml(CUDA), 64, 0.1) == {}
    else:
        assert energy(monkeypatch, *without.split())[1] == {}


# -- whole steps ---------------------------------------------------------------------------------


def test_a_full_bench_weighs_and_profiles_and_starts_rows_anew(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    peaks = {"copy_gbs": 3000.0, "matmul_tflops": 400.0}
    monkeypatch.setattr("fastgan.bench.iterations.work.ceilings", lambda toy=False: peaks)
    monkeypatch.setattr(
        measure, "energy", lambda runner, device, nvml, n, seconds: {"window_s": seconds}
    )
    bench = benchmark.Bench(CUDA, repeats=1, steps=(1,), profile=True)
    suite = TINY["tiny-dcgan"]
    result = bench.run([suite], [rows.BY_KEY["c"]])["suites"][0]
    (row,) = result["rows"]
    assert row["status"] == "ok"
    assert row["window_s"] == 1.5
    assert isinstance(row["kernels"], dict)
    assert row["startup_s"] > 0
    assert row["peak_MiB"] == 1.0  # this process's, not the child's


def test_a_profiler_that_is_not_allowed_costs_no_row(monkeypatch):
    monkeypatch.setattr(
        "fastgan.bench.iterations.work.ceilings",
        lambda toy=False: {"copy_gbs": 3000.0, "matmul_tflops": 400.0},
    )

    def refused(runner, device):
        raise RuntimeError("CUPTI_ERROR_INSUFFICIENT_PRIVILEGES")

    monkeypatch.setattr(measure, "kernels", refused)
    bench = benchmark.Bench(CUDA, quick=True, repeats=1, steps=(1,), profile=True)
    suite = dataclasses.replace(suites.dcgan(4, 8, 1, 4, 8, name="micro"), images=64)
    (row,) = bench.run([suite], [rows.BY_KEY["c"]])["suites"][0]["rows"]
    assert row["status"] == "ok"  # a quick run starts none anew
    assert "INSUFFICIENT_PRIVILEGES" in row["kernels"]["error"]


def test_the_compilers_rows_of_operators_need_a_minute_of_the_budget():
    bench = benchmark.Bench(CUDA, budget=50.0)
    found = bench.kernels(only=("random",))
    assert found
    assert all(entry["error"] == "not run within the budget" for entry in found)


def test_a_gpus_suites_are_its_own(monkeypatch):
    assert suites.choose([], CUDA, False) == list(suites.GPU)
    given = []

    class Bench(benchmark.Bench):
        def run(self, chosen, specs, ablated, *rest):
            given.append((self.device, ablated.name))
            return {"suites": [], "kernels": [], "machine": {}}

    monkeypatch.setattr(benchmark, "Bench", Bench)
    monkeypatch.setattr("fastgan.bench.tables.table", lambda result: "")
    assert bench_main.main(["--suite", "ablation"]) == 0
    assert given == [(CUDA, "dcgan-64-b128")]


# -- operators -----------------------------------------------------------------------------------


def small_sample(name, direction="forward"):
    return next(
        s for s in operator_calls.samples(CUDA, (name,), (), False) if s.direction == direction
    )


def test_an_operators_calls_are_a_graph_for_every_provider():
    entry = operator_times.row(small_sample("affine_act"), compiled=True, toy=True)["entry"]
    done = {row["provider"]: row for row in entry["rows"]}
    assert {"eager", "compile"} < set(done)
    assert {row["how"] for row in done.values()} == {"graph"}
    assert all(row["status"] == "ok" and row["ms"][1] > 0 for row in done.values())
    assert entry["device"] == "cuda"
    assert len([r.key for r in operator_times.rows(False)]) > len(
        [r.key for r in operator_times.rows(True)]
    )


def test_an_operator_that_reads_the_device_is_called_without_a_graph():
    sample = small_sample("affine_act")
    fn = sample.op.fn

    def reads(**given):
        found = fn(**given)
        found.sum().item()
        return found

    sample = dataclasses.replace(sample, op=dataclasses.replace(sample.op, fn=reads))
    made = sample.make(CUDA)
    caller = operator_calls.Caller(sample, "triton", "triton", CUDA, made)
    assert caller.how == "calls"
    caller.step()
    torch.rand(1, device="cuda")  # the generator is free again


def test_the_operators_rows_as_pytest_benchmark_times_them(monkeypatch):
    pytest.importorskip("pytest_benchmark")
    rewriting = [f for f in sys.meta_path if "Rewriting" in type(f).__name__]  # pytest's own
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if f not in rewriting])
    micro = importlib.import_module("fastgan.bench.test_micro")

    class Clock:
        def __init__(self):
            self.extra_info = {}

        def pedantic(self, function, rounds, warmup_rounds):
            self.rounds = rounds
            function()

    clock, sample = Clock(), small_sample("affine_act")
    micro.test_op(clock, sample, "auto")
    assert clock.rounds == 10
    assert clock.group == sample.name
    assert clock.extra_info["provider"] == "triton"


# -- the tuner -----------------------------------------------------------------------------------


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


# -- stages --------------------------------------------------------------------------------------


def test_a_row_of_directions_is_in_the_table(monkeypatch):
    monkeypatch.setattr(conv_directions, "LAYERS", {"G L2": (True, 8, 4, 4)})
    tried = []
    tiles = {d: found[-1:] for d, found in directions.TILES.items()}
    monkeypatch.setattr(conv_directions, "TILES", tiles)
    real = tuning.override
    monkeypatch.setattr(
        directions.tuning, "override", lambda given: tried.append(given) or real(given)
    )
    fake_measure(monkeypatch, lambda kernels: 0.5 if kernels else 1.0)
    found = conv_directions.row("G L2", 2, toy=False)["found"]
    assert {d["engine"] for d in found.values()} == {"triton"}
    assert any(config for given in tried for config in given.values())
    for direction in found:
        assert stored()[f"conv_transpose2d.{direction}", "bf16"].engine == "triton"


def test_a_row_of_whole_steps_is_of_the_gpu(monkeypatch):
    given = []

    class Bench(benchmark.Bench):
        def suite(self, suite, specs, kind, until):
            given.append((self.device, suite.name, [spec.key for spec in specs]))
            return {"rows": []}

    monkeypatch.setattr(iteration_times, "Bench", Bench)
    found = iteration_times.measure("tiny-dcgan", ("a", "i"), True, skip={"a": "it failed before"})
    assert given == [(CUDA, "tiny-dcgan", ["i"])]
    assert found["result"]["machine"]["device"] == "Mock H100"
    assert [row["error"] for row in found["result"]["suites"][0]["rows"]] == ["it failed before"]


def test_a_row_of_norms_forms(monkeypatch):
    once = timing.Timing(1e-3, 1e-3, 1e-3, "graph")
    monkeypatch.setattr(norm_forms, "measure", lambda calls, **how: calls[0]() is None or once)
    found = norm_forms.row((4, 16, 4, 2), "forward", toy=True)
    assert not found["failures"]
    assert found["us"] == dict.fromkeys(found["us"], 1.0)
    assert norm_forms.DEVICE == "cuda"


def test_a_failed_row_is_stored_and_a_lost_device_ends_the_stage(monkeypatch, tmp_path):
    def fails():
        raise RuntimeError("an illegal memory access was encountered")

    stage = types.SimpleNamespace(rows=lambda toy: [plan.StageRow("one", fails, 1.0)])
    monkeypatch.setattr(plan.importlib, "import_module", lambda name: stage)
    part = plan.Part("norm", "", 60.0)
    assert plan.stage(part, str(tmp_path / "a"), True, tmp_path / "state") == 0
    assert "illegal memory access" in Store(str(tmp_path / "a")).latest("norm")[0]["failed"]

    def lost(*device):
        raise RuntimeError("the launch failed before")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    assert plan.stage(part, str(tmp_path / "b"), True, tmp_path / "state") == plan.DEAD
    assert Store(str(tmp_path / "b")).latest("norm")  # stored before


def test_results_are_kept_under_the_gpus_name(tmp_path):
    store = Store(str(tmp_path))
    assert store.path.name == "mock-h100.jsonl"
    assert store.add("norm", "one", False, {"ms": 1.0})["device"] == "Mock H100"


def test_a_proof_and_a_start_on_the_gpu(monkeypatch):
    registry.load()
    found = proof.prove("adam_ema", "quick", "adam_ema fp32")
    assert found["outputs"]
    assert not found["failures"]
    micro = dataclasses.replace(suites.dcgan(4, 8, 1, 4, 8, name="micro"), images=64)
    monkeypatch.setattr(start_up, "timed", lambda runner, steps, device: 1e-3 * steps)
    assert start_up.start(micro, rows.BY_KEY["f"])["ms_beside_others"] == 20.0


def test_a_recipe_without_a_graph_is_no_result(monkeypatch):
    class Stuck:
        device, active = CUDA, types.SimpleNamespace(graph_reason="loss.py reads the device")

        def __init__(self, out):
            self.out = out

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def fit(self, steps):
            Path(self.out).mkdir(exist_ok=True)
            Path(self.out, "metrics.jsonl").write_text('{"step": 1, "loss_g": 1.0}\n')

    monkeypatch.setattr(recipe_runs, "make_trainer", lambda config, resume, log, out: Stuck(out))
    with pytest.raises(FastganError, match="dcgan: steps run without a graph: loss"):
        recipe_runs.train("dcgan", 2)
    steps = []
    monkeypatch.setattr(recipe_runs, "train", lambda name, n: steps.append(n) or {})
    for row in recipe_runs.rows(False):
        row.run()
    assert steps == [recipe_runs.STEPS] * len(recipes.RECIPES)


def test_the_same_training_is_judged_in_full_on_a_gpu(monkeypatch, capsys):
    given = []
    monkeypatch.setattr(same_training, "compare_buffers", lambda steps: {})
    monkeypatch.setattr(same_training, "compare_runs", lambda *form: given.append(form) or {})
    assert same_training.compare()
    assert given == [(5, *same_training.FULL)]
    assert "full form on a GPU" in capsys.readouterr().out
    assert same_training.MARGINS == {"fd": 0.1, "entropy": 0.1}


def test_the_same_training_runs_accelerated_steps_in_a_graph():
    shown = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 1), np.uint8)
    built = Dcgan(base_width=4, latent=4).build(ImageSpec(16, 1))
    active = same_training.begin(built, fastgan.data.open(shown), seed=0, fast=True)
    with same_training.way(True):
        for step in range(2):
            active.train_step(step)
    assert active.graph_reason is None
    active.close()


# -- experiments ---------------------------------------------------------------------------------


def test_edges_that_were_measured_become_entries(monkeypatch, tmp_path, capsys):
    won = {
        "G L2-L3 batch 128": {"compile": 0.1, "separate | auto": 0.3, "moments | triton": 0.2},
        "G L3-L4 batch 128": {"separate | auto": 0.2, "separate | triton": 0.4},
        "D L2-L3 batch 128": {"eager": 0.1},
        "D last batch 128": {"separate | triton": 0.1, "separate | auto": 0.2},
    }
    monkeypatch.setattr(conv_edges, "table", lambda store: won)
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["conv_edges", "--write"])
    for _ in range(2):  # the second time over the first's
        conv_edges.main()
    path = tuning_tables.table_path(CUDA, False)
    assert f"written to {path}" in capsys.readouterr().out
    found = [(e.op, e.shape["ci"], e.engine) for e in tuning.read(path).entries]
    assert sorted(found) == sorted(
        [
            ("conv_edge", 512, "moments"),
            ("conv_edge", 256, "separate"),
            ("conv_transpose2d", 256, "cudnn"),
            ("conv_transpose2d", 128, "cudnn"),
            ("conv2d", 512, "triton"),
        ]
    )
    monkeypatch.setattr(conv_edges, "table", lambda store: {})
    with pytest.raises(SystemExit, match="nothing measured"):
        conv_edges.main()


def test_a_first_look_at_a_layer_in_bf16():
    layer = first_gpu_look.Layer("G L2", 2, toy=True)
    assert layer.dtype is torch.bfloat16
    torch.ones(1, device="cuda")
    first_gpu_look.settle()


def test_operators_entries_have_the_floor_of_the_device(monkeypatch):
    peaks = {"copy_gbs": 3000.0, "matmul_tflops": 400.0}
    monkeypatch.setattr("fastgan.bench.iterations.work.ceilings", lambda toy=False: peaks)
    entry = operators.run(small_sample("affine_act"), CUDA, ("eager", "triton"), repeats=1)
    assert entry["floor_ms"] == pytest.approx(entry["gbytes"] / 3000 * 1e3, rel=0.5)
