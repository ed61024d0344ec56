"""What measures on a GPU, its clocks and counters stood in for: run by
tests/graphs/test_mock_cuda.py."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
import time
import types

import pytest
import torch

from fastgan.bench import __main__ as bench_main
from fastgan.bench import benchmark, operator_calls, operators
from fastgan.bench.experiments import conv_edges, first_gpu_look
from fastgan.bench.iterations import measure, rows, suites
from fastgan.bench.stages import operator_times
from fastgan.kernels import tuning
from fastgan.verify import tuning_tables
from mock_cuda.gpu_clocks import CUDA, small_sample

pytestmark = pytest.mark.usefixtures("settings_of_its_own")

TINY = {suite.name: suite for suite in suites.TINY}


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
