"""Samples measured while a run trains: the numbers in its rows, the best checkpoint, exact resume."""

import pytest
import torch
from click.testing import CliRunner
from run_support import assert_same_run, images, in_a_hurry, newest, rows, tiny
from torch.nn.functional import avg_pool2d

import fastgan
from fastgan.cli.main import group
from fastgan.errors import FastganError
from fastgan.judges import efficientnet, instruments
from fastgan.runs.checkpoint import Checkpoints

EVERY = {"evaluate_every": 2, "log_every": 3, "checkpoint_every": 100, "keep": 1, "watch": False}


@pytest.fixture(autouse=True)
def judge(monkeypatch):
    """Block means instead of a fitted network."""
    in_a_hurry(monkeypatch)
    monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package_here")
    see = lambda x: avg_pool2d(x, 2).flatten(1)
    pick = lambda data, device: instruments.Instrument("small", "key", see)
    monkeypatch.setattr(instruments, "pick", pick)


def trained(out, **options):
    torch.manual_seed(0)
    return tiny(out, data=images(count=60), **EVERY | options)


def test_rows_tell_the_distance_and_training_is_the_same(tmp_path):
    with trained(tmp_path / "plain", evaluate_every=0) as plain:
        plain.fit(8)
    with trained(tmp_path / "measured") as measured:
        measured.fit(8)
        said = measured.quality.best
    (mine, _), (others, _) = newest(tmp_path / "plain"), newest(tmp_path / "measured")
    assert mine == others
    found = rows(tmp_path / "measured" / "metrics.jsonl")
    assert [row["step"] for row in found] == [3, 6]
    bare = [{k: v for k, v in row.items() if not k.startswith("evaluation/")} for row in found]
    assert bare == rows(tmp_path / "plain" / "metrics.jsonl")
    for name in ("KD-small", "FD-small", "precision", "recall", "density", "coverage"):
        assert [f"evaluation/{name}" in row for row in found] == [True, True]
    assert said["judge"] == "small"


def test_the_best_checkpoint_stays_and_can_be_asked_for(tmp_path, monkeypatch):
    """Distances as planned: the second measurement is the best one."""
    planned = iter((0.0, 3.0, 1.0, 2.0, 4.0))
    see = lambda x: avg_pool2d(x, 2).flatten(1) * 0 + torch.rand(len(x), 16) * 0.1 + next(planned)
    pick = lambda data, device: instruments.Instrument("small", "key", see)
    monkeypatch.setattr(instruments, "pick", pick)
    run = tmp_path / "run"
    with trained(run) as trainer:
        trainer.fit(4)
        assert Checkpoints(run / "checkpoints").steps() == [0, 4]
        trainer.fit(9)
        last = trainer.nets["G"].state_dict()
    assert Checkpoints(run / "checkpoints").steps() == [4, 9]
    best, fourth = (fastgan.load(run, step=at, ema=False).state_dict() for at in ("best", 4))
    assert all(torch.equal(best[name], fourth[name]) for name in last)
    assert not all(torch.equal(best[name], last[name]) for name in last)
    out = str(tmp_path / "best.png")
    made = CliRunner().invoke(
        group, ["sample", str(run), "--step", "best", "--n", "4", "--out", out]
    )
    assert made.exit_code == 0, made.output
    with trained(run, resume=True, evaluate_every=0) as later:
        later.fit(12)
    assert Checkpoints(run / "checkpoints").steps() == [4, 12]


def test_a_stopped_run_measures_as_one_that_never_stopped(tmp_path):
    with trained(tmp_path / "whole") as whole:
        whole.fit(10)
    for until in (5, 10):  # a measurement at 4 waits for the row at 6
        with trained(tmp_path / "parts", resume=until == 10) as part:
            part.fit(until)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_what_cannot_be_measured_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(FastganError, match="21 images are too few to measure against"):
        tiny(tmp_path / "run", **EVERY)
    assert not (tmp_path / "run").exists()
    with tiny(tmp_path / "run") as trainer:
        trainer.fit(1)
    with pytest.raises(FastganError, match=r"no checkpoint 'best' .* --evaluate-every"):
        fastgan.load(tmp_path / "run", step="best")
