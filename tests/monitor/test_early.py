"""What is plain at the first look is said at the first look, with a remedy that can be typed."""

import json
import shlex

import numpy as np
import pytest
import torch
from run_support import discriminator, generator, images, in_a_hurry, rows, tiny
from torch import nn

import fastgan
from fastgan import recipes
from fastgan.cli import main as cli
from fastgan.cli.options import read_file
from fastgan.monitor import early, remedies
from fastgan.monitor.health import REMEDIES, Health
from fastgan.recipes.config import as_dict, fields_of
from fastgan.runs import changes


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    in_a_hurry(monkeypatch)


RARELY = {"sample_every": 1000, "checkpoint_every": 1000}


class Constant(nn.Module):
    """Ignores its input."""

    def __init__(self):
        super().__init__()
        self.image = nn.Parameter(torch.zeros(1, 1, 8, 8))

    def forward(self, z):
        return torch.tanh(self.image).expand(len(z), -1, -1, -1)


def alerts(path):
    return [(row["step"], row["cause"]) for row in rows(path / "alerts.jsonl")]


def test_a_constant_generator_is_named_at_the_first_look(tmp_path):
    with tiny(tmp_path / "run", nets={"G": Constant(), "D": discriminator()}, **RARELY) as trainer:
        trainer.fit(50)
    assert alerts(tmp_path / "run") == [(50, "collapse")]


@pytest.mark.parametrize(("net", "rate"), [("G", 0.0), ("D", 0.0), ("G", 1e-7), ("D", 1e-7)])
def test_rates_that_change_nothing_are_named_at_the_first_look(tmp_path, net, rate):
    slow = {net: lambda p: torch.optim.SGD(p, rate)}
    with tiny(tmp_path / "run", optimizers=slow, **RARELY) as trainer:
        trainer.fit(50)
    assert alerts(tmp_path / "run") == [(50, "stall")]


def test_a_rate_that_falls_to_0_later_is_named_and_the_end_of_a_schedule_is_not(tmp_path):
    class Stops:
        def on_step(self, trainer):
            if trainer.step == 60:
                trainer.optimizers["D"].param_groups[0]["lr"] = 0.0

    with tiny(tmp_path / "run", callbacks=[Stops()], **RARELY) as trainer:
        trainer.fit(100)
    assert (100, "stall") in alerts(tmp_path / "run")
    ending = {net: {"lr": fastgan.objectives.Linear(1e-3, 0.0, 50)} for net in "GD"}
    with tiny(tmp_path / "ending", schedules=ending, **RARELY) as trainer:
        trainer.fit(100)
    assert alerts(tmp_path / "ending") == []


def test_a_discriminator_that_does_not_look_is_named_at_once():
    watch, found = Health(), []
    for step in (25, 50, 75):
        row = {"D/logit_real": -0.3, "D/logit_fake": -0.3, "D/acc_real": 0.0, "D/acc_fake": 1.0}
        found += watch.observe(step, row)
    assert [(a.step, a.cause) for a in found] == [(25, "stall")]
    assert "does not look at the images" in found[0].evidence


def test_a_critic_that_nothing_holds_is_named():
    watch, found = Health("wasserstein"), []
    for step, margin in enumerate((100.0, 900.0, 3000.0, 9000.0), 1):
        found += watch.observe(25 * step, {"D/logit_real": margin, "D/logit_fake": 0.0})
    assert [(a.step, a.cause) for a in found] == [(100, "discriminator-too-strong")]


def test_a_schedule_that_begins_at_0_is_no_stall(tmp_path):
    warming = {net: {"lr": fastgan.objectives.Linear(0.0, 1e-3, 1000)} for net in "GD"}
    with tiny(tmp_path / "run", schedules=warming, **RARELY) as trainer:
        trainer.fit(50)
    assert alerts(tmp_path / "run") == []


# Spreads, accuracies and margins of trainings on 500 colour pictures of 64x64, each 50 steps: a
# DCGAN that stays noise, one with R1 of 5, and a healthy one with a rate of 5e-5.
COURSES = {
    "noise": (
        [0.025, 0.037, 0.069, 0.074, 0.062, 0.029],
        [0.906, 0.998, 0.998, 0.999, 1.0, 1.0],
        [2.1, 5.1, 7.0, 8.3, 9.4, 10.4],
    ),
    "r1": (
        [0.027, 0.079, 0.099, 0.151, 0.098, 0.209],
        [0.683, 0.881, 0.905, 0.915, 0.935, 0.913],
        [0.3, 1.2, 1.4, 1.9, 2.1, 2.0],
    ),
    "slow": (
        [0.041, 0.052, 0.060, 0.070, 0.080, 0.145],
        [0.869, 0.972, 0.984, 0.993, 0.998, 0.998],
        [1.3, 2.2, 2.5, 3.4, 4.2, 4.6],
    ),
}


@pytest.mark.parametrize("name", COURSES)
def test_noise_that_is_plain_at_step_250_is_said_then(name):
    watch, found = Health(), []
    reals = torch.rand(32, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for i, (spread, accuracy, margin) in enumerate(zip(*COURSES[name], strict=True), 1):
        row = {"D/logit_real": margin / 2, "D/logit_fake": -margin / 2}
        watch.observe(50 * i, {**row, "D/acc_real": accuracy, "D/acc_fake": accuracy})
        found += watch.observe_samples(50 * i, reals * spread, None, reals)
    assert [(a.step, a.cause) for a in found] == ([(250, "collapse")] if name == "noise" else [])


def test_a_margin_beyond_all_bounds_is_said_before_the_run_diverges():
    watch, found = Health(), []
    for step in (25, 50, 75):
        found += watch.observe(step, {"D/logit_real": 200.0, "D/logit_fake": -95.0})
    assert [(a.step, a.cause) for a in found] == [(50, "discriminator-too-strong")]


def test_looks_are_dense_at_first():
    due = [step for step in range(1, 1001) if early.look_due(step)]
    assert due == [50, 100, 150, 200, 250, 300, 400, 600, 800, 1000]


@pytest.mark.parametrize("recipe", recipes.RECIPES)
@pytest.mark.parametrize("cause", REMEDIES)
def test_remedies_are_options_that_may_change(recipe, cause):
    config = recipes.find(recipe)()
    found = remedies.changes(cause, as_dict(config))
    assert set(found) <= set(changes.options()) & set(fields_of(type(config)))
    assert all(getattr(config, name) != value for name, value in found.items())
    if cause != "stall":
        assert found, "something can be typed"


@pytest.mark.parametrize("recipe", ["dcgan", "gan"])
@pytest.mark.parametrize("cause", REMEDIES)
def test_the_command_that_is_named_runs(tmp_path, monkeypatch, capsys, recipe, cause):
    monkeypatch.chdir(tmp_path)
    np.save("few.npy", images(12))
    own = {"dcgan": ["--base-width", "2"], "gan": ["--hidden-g", "4", "--hidden-d", "4"]}[recipe]
    first = ["--data", "few.npy", "--recipe", recipe, "--latent", "4", *own, "--out", "a run"]
    if cause == "stall" and recipe == "dcgan":
        first += ["--lr-g", "1e-7"]

    def run(*arguments):
        with pytest.raises(SystemExit) as done:
            cli.main([*arguments])
        assert not done.value.code, capsys.readouterr().err

    run("train", *first, "--batch-size", "4", "--device", "cpu", "--steps", "2")
    command = remedies.command(cause, read_file("a run/config.toml"), "a run")
    if command is None:
        assert (cause, recipe) == ("stall", "gan")
        return
    program, *arguments = shlex.split(command)
    assert program == "fastgan"
    run(*arguments, "--steps", "3")
    assert "changed from step 2 on" in capsys.readouterr().out


def test_values_that_are_not_finite_reach_the_alerts(tmp_path):
    with (
        tiny(
            tmp_path / "run",
            optimizers={"D": lambda p: torch.optim.SGD(p, 1e30)},
            nets={"G": generator(), "D": discriminator()},
        ) as trainer,
        pytest.raises(fastgan.FastganError, match="training diverged"),
    ):
        trainer.fit(40)
    ((step, cause),) = alerts(tmp_path / "run")
    assert (step % 5 == 0, cause) == (True, "non-finite")
    assert "not finite" in json.loads((tmp_path / "run" / "alerts.jsonl").read_text())["evidence"]
