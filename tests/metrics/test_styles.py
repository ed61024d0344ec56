"""Path lengths and separability: known answers, and what evaluate says of a run."""

import json
import math

import pytest
import torch
from click.testing import CliRunner

from fastgan.cli.main import group
from fastgan.data import rendered
from fastgan.judges import classifier
from fastgan.latent.walk import slerp
from fastgan.metrics.styles import path_length, separability
from fastgan.recipes.latent import judging


def test_the_path_of_a_linear_generator_is_its_stretch():
    dice = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 300, 5, generator=dice, dtype=torch.double)
    weight = torch.randn(5, 7, generator=dice, dtype=torch.double)
    found = path_length(lambda p: p @ weight, torch.lerp, (a, b))
    assert found == pytest.approx(float(((b - a) @ weight).square().sum(1).mean()), rel=1e-6)


def test_a_step_on_a_great_circle_is_its_angle():
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    found = path_length(lambda p: p, slerp, (a, b))
    assert found == pytest.approx((2 * math.pi / 2) ** 2, rel=1e-3)


def test_a_bend_makes_a_path_longer_than_the_straight_one():
    a, b = torch.zeros(500, 1), torch.ones(500, 1)
    straight = path_length(lambda p: p, torch.lerp, (a, b))
    bent = path_length(lambda p: p.square(), torch.lerp, (a, b))
    assert straight == pytest.approx(1, rel=1e-3)
    assert bent == pytest.approx(4 / 3, rel=0.1)  # the mean of (2 t)^2


def test_separability_is_1_behind_a_plane_and_the_number_of_answers_by_chance():
    dice = torch.Generator().manual_seed(0)
    points = torch.randn(2000, 4, generator=dice)
    apart = (points[:, 0] > 0).long()
    assert separability(points + 3 * torch.eye(4)[0] * (2 * apart[:, None] - 1), apart) < 1.01
    assert separability(points, torch.randint(2, (2000,), generator=dice)) > 1.99
    crossed = ((points[:, 0] > 0) ^ (points[:, 1] > 0)).long()
    assert separability(points, crossed) > 1.95
    four = (points[:, 0] > 0).long() * 2 + (points[:, 1] > 0).long()
    assert 1 < separability(points, four) < 1.3
    wide, ten = torch.randn(2000, 64, generator=dice), torch.randint(10, (2000,), generator=dice)
    assert 9.3 < separability(wide, ten) < 10


@pytest.mark.slow
def test_evaluate_says_it_of_a_run_with_styles(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))
    for name, value in (("EPOCHS", 1), ("MIN_STEPS", 20)):
        monkeypatch.setattr(classifier, name, value)
    monkeypatch.setitem(rendered.RENDERED, "forms", (rendered.forms, 300))
    monkeypatch.setattr(judging, "SAMPLES", 60)
    monkeypatch.setattr(judging, "PAIRS", 20)
    run = str(tmp_path / "run")
    options = (
        "--recipe stylegan2-small --data forms --size 8 --width 8 --most 8 --latent 8 --steps 2"
    )
    for command in (
        ["train", *options.split(), "--batch-size", "8", "--no-progress", "--out", run],
        ["evaluate", run, "--n", "100", "--json"],
    ):
        told = CliRunner().invoke(group, command)
        assert told.exit_code == 0, told.output
    found = json.loads(told.output)["measures"]
    for space in "wz":
        assert found[f"path length in {space}"] > 0
        assert 1 <= found[f"separability of the class in {space}"] <= 4
    assert found["separability of the class in shuffled w"] >= 1
