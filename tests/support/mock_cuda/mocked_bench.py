"""The benchmark's rows, verify, the tuner and `fastgan.bench.gpu` on a GPU: run by
tests/graphs/test_mock_cuda.py."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

from fastgan.bench import benchmark
from fastgan.bench.iterations import gate as gates
from fastgan.bench.iterations import rows, suites
from fastgan.cli.measuring.bench import command
from fastgan.kernels import tuning
from fastgan.verify import aot, bounds, registry, report, timing, tune, tuning_tables
from fastgan.verify import runner as verify
from mock_cuda import ROOT

CUDA = torch.device("cuda")
TINY = {suite.name: suite for suite in suites.TINY}
MICRO = dataclasses.replace(suites.dcgan(4, 8, 1, 4, 8, name="micro"), images=64)


@pytest.fixture(autouse=True)
def compiled_is_eager(monkeypatch):
    """Inductor would compile for a GPU: compiled rows run their step as it is written, through the
    same graphs."""
    monkeypatch.setattr(
        torch, "compile", lambda f=None, **options: f if f is not None else lambda g: g
    )


@pytest.fixture(scope="module")
def judges():
    found = {}

    def judge(suite):
        if suite.name not in found:
            found[suite.name] = gates.Gate(suite, suites.arrays(suite), CUDA, steps=(1,))
            found[suite.name].prepare()
        return found[suite.name]

    return judge


def check(spec, suite, judge):
    row = spec.build(suite, suites.arrays(suite), CUDA, dropout=False)
    with row.flags():
        row.step()
        row.step()
    if getattr(row, "_wants_graph", False):
        assert row.active.graph_reason is None
    verdict = judge.judge(row)
    row.close()
    assert verdict.passed, verdict.line()


@pytest.mark.parametrize("key", [spec.key for spec in rows.ROWS])
def test_every_row(key, judges):
    check(rows.BY_KEY[key], MICRO, judges(MICRO))


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(spec.key, marks=[pytest.mark.slow] if spec.key == "11" else [])
        for spec in rows.ABLATION
    ],
)
def test_every_row_of_the_ablation(key, judges):
    check(next(spec for spec in rows.ABLATION if spec.key == key), MICRO, judges(MICRO))


SUITES = [
    ("tiny-r1", "f"),
    ("tiny-r1", "h:reference"),
    ("tiny-wgan-gp", "h:reference"),
    ("tiny-sngan", "f"),
]
LONG = [
    ("tiny-pix2pix", "i"),
    ("tiny-sngan", "i"),
    ("tiny-wgan-gp", "i"),
    ("tiny-r1", "i"),
    ("tiny-dcgan", "i"),
]


@pytest.mark.parametrize(
    ("suite", "key"), [*SUITES, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in LONG)]
)
def test_suites(suite, key, judges):
    check(rows.BY_KEY[key], TINY[suite], judges(TINY[suite]))


def test_the_bench_times_and_weighs(monkeypatch, tmp_path):
    monkeypatch.setattr(
        timing, "ceilings", lambda toy=False: {"copy_gbs": 3000.0, "matmul_tflops": 400.0}
    )
    monkeypatch.setattr("fastgan.bench.iterations.work.ceilings", timing.ceilings)
    bench = benchmark.Bench(CUDA, quick=True, repeats=2, steps=(1,), children=False)
    wanted = [spec for spec in rows.ROWS if spec.key in ("c", "f", "h:reference")]
    result = bench.run([MICRO], wanted)
    assert [entry["status"] for entry in result["suites"][0]["rows"]] == ["ok"] * 3
    assert result["machine"]["device"] == "Mock H100"
    entry = result["suites"][0]["rows"][2]
    assert {"ms", "speedup", "peak_MiB", "roofline"} <= set(entry)


def test_quick_runs_choose_a_gpus_suites():
    assert [suite.name for suite in suites.choose([], CUDA, True)] == [
        "dcgan-64-b128",
        "dcgan-64-b16",
    ]
    assert {spec.letter for spec in rows.choose([], CUDA, True)} == {"a", "c", "f", "g", "i"}
    refused = CliRunner().invoke(command, ["--launches"])
    assert "hide it" in str(refused.exception)


def failed(rows_):
    return [
        f"{r.op} {r.case} {r.type} {r.engine} {r.direction} {r.output}: {r.note}"
        for r in rows_
        if r.verdict == "FAIL"
    ]


def verified(names, wanted=lambda job: True):
    """Failures of the GPU's plan for these operators. PyTorch's own error is a CPU's here, not a
    yardstick for a GPU."""
    registry.load()
    known = [op for op in registry.ops() if op.name in names]
    jobs, _ = verify.plan(known, "quick", CUDA)
    found = [row for job in jobs if wanted(job) for row in verify.execute(job, CUDA)[0]]
    assert found
    return [line for line in failed(found) if not line.endswith("over PyTorch's own")]


def first_case(job):
    """One case an operator and engine, in the type that only a GPU has."""
    op = next(op for op in registry.ops() if op.name == job.op)
    quick = [case.name for case in op.cases if "quick" in case.tags]
    return job.type == "bf16" and job.case == quick[0] and job.engine == "triton"


def test_verify_takes_the_gpus_path():
    assert verified({op.name for op in registry.load().values()}, first_case) == []


def test_pytorchs_engines_are_judged_on_their_own_device():
    own = lambda job: job.engine in bounds.PYTORCH and job.type in ("bf16", "fp32")
    assert verified({"conv2d"}, own) == []


@pytest.mark.slow
def test_verify_quick_of_all_that_no_convolution_of_the_cpu_judges():
    assert verified({name for name in registry.load() if not name.startswith("conv")}) == []


def test_verify_as_a_command():
    result = verify.run(["adam_ema"], "quick")
    assert result.environment["mode"] == "GPU"
    assert not failed(result.rows)
    assert "Mock H100" in report.text(result, False)


def test_the_tuner_writes_a_table(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGAN_CONFIG_DIR", str(tmp_path))
    tuning.forget()
    registry.load()
    op = registry.ops("adam_ema")[0]
    small = next(case for case in op.cases if "quick" in case.tags)
    layer = dataclasses.replace(small, name="layer of its own", tags=frozenset({"layer"}))
    few = {"adam_ema": list(op.candidates["adam_ema"])[:2]}
    monkeypatch.setitem(
        registry._OPS, op.name, dataclasses.replace(op, cases=[small, layer], candidates=few)
    )
    monkeypatch.setattr(aot, "recheck", lambda entry, capability: [])  # compiles, if a tile wins
    said = []
    assert tune.run(["adam_ema"], ["fp32"], 600.0, False, said.append) == 0
    table = tuning_tables.table_path(CUDA, False)
    assert table.is_file(), said
    assert json.loads(table.read_text())["gpu"] == "Mock H100"
    assert "entries in" in said[-1]
    assert not any("WRONG" in line for line in said)
    tuning.forget()


def test_timing_replays_graphs_and_survives_what_cannot_be_captured():
    x = torch.ones(8, device="cuda")
    assert timing.measure([lambda: x * 2], samples=2, sample_ms=0.1).how == "graph"
    assert timing.measure([lambda: x.sum().item()], samples=2, sample_ms=0.1).how == "events"
    torch.rand(1, device="cuda")


def gpu(tmp_path, *arguments, seconds=120):
    return subprocess.run(
        [sys.executable, "-m", "fastgan.bench.gpu", "--out", str(tmp_path), "--toy", *arguments],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@pytest.mark.slow
def test_bench_gpu_measures_and_goes_on(tmp_path):
    first = gpu(tmp_path, "--budget", "60", "--stages", "look")
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    stored = [
        json.loads(line)
        for path in tmp_path.glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert stored
    assert all(row["device"] == "Mock H100" for row in stored)
    assert "Mock H100" in first.stdout
