"""The stages of the fifteen minutes, their clock stood in for: run by
tests/graphs/test_mock_cuda.py."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import fastgan
from fastgan import recipes
from fastgan.bench import benchmark
from fastgan.bench.iterations import rows, suites
from fastgan.bench.stages import (
    conv_directions,
    iteration_times,
    norm_forms,
    parts,
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
from fastgan.verify import registry, timing
from fastgan.verify.tuner import directions
from mock_cuda.gpu_clocks import CUDA, fake_measure, stored

pytestmark = pytest.mark.usefixtures("settings_of_its_own")


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
    part = parts.Part("norm", "", 60.0)
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
