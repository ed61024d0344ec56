"""Modes of stacked clothes: how many are made, and how evenly."""

import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from fastgan import data
from fastgan.cli.main import group
from fastgan.judges import classifier
from fastgan.metrics import modes


def test_coverage_counts_modes_and_how_evenly_they_come():
    real = torch.arange(1000).repeat(4)
    assert modes.coverage(real, real) == (1000, pytest.approx(0, abs=1e-12))
    half = torch.arange(500).repeat(2)
    count, divergence = modes.coverage(half, real)
    assert count == 500
    assert divergence == pytest.approx(math.log(2))
    count, divergence = modes.coverage(torch.tensor([7, 7, 7, 8]), real)
    assert count == 2
    expected = 0.75 * math.log(0.75 / 0.001) + 0.25 * math.log(0.25 / 0.001)
    assert divergence == pytest.approx(expected)


def test_a_mode_without_reals_does_not_make_it_infinite():
    assert modes.coverage(torch.tensor([1, 1]), torch.zeros(100, dtype=torch.int64))[1] < 5


def test_the_three_kinds_are_the_digits_of_a_mode():
    assert modes.modes_of(torch.tensor([[1, 2, 3], [0, 0, 9]])).tolist() == [123, 9]
    found = data.open("stacked", size=8)
    clothes = data.open("fashion-mnist", size=8)
    known = {image.tobytes(): kind for image, kind in zip(*map(clothes.array, ("image", "label")))}
    for image, mode in zip(found.array("image")[:50], found.array("mode")):
        kinds = [known[np.ascontiguousarray(image[..., c, None]).tobytes()] for c in range(3)]
        assert modes.modes_of(torch.tensor([kinds])).tolist() == [mode]


@pytest.fixture
def few(monkeypatch, tmp_path):
    from fastgan.data import rendered

    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(rendered.RENDERED, "stacked", (rendered.stacked, 300))
    monkeypatch.setattr(modes, "SAMPLES", 200)
    monkeypatch.setattr(classifier, "EPOCHS", 1)
    monkeypatch.setattr(classifier, "MIN_STEPS", 20)


@pytest.mark.slow
def test_evaluate_counts_the_modes_of_a_run(few, tmp_path):
    run = str(tmp_path / "run")
    options = "--recipe gan --data stacked --size 8 --hidden-g 32 --hidden-d 16 --steps 3"
    told = CliRunner().invoke(group, ["train", *options.split(), "--no-progress", "--out", run])
    assert told.exit_code == 0, told.output
    told = CliRunner().invoke(group, ["evaluate", run, "--n", "100", "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.output)["measures"]
    assert 1 <= found["modes in 200 samples"] <= 200
    assert found["modes in 150 reals"] > 75
    assert 0.05 < found["reals whose mode is seen right"] <= 1
    assert (
        0
        < found["divergence of the reals' shares, nats"]
        < found["divergence of their shares, nats"]
    )
