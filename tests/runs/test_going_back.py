"""Going on from an older checkpoint: what is dropped, when, and that nothing is lost before."""

import json
import os
import shutil

import numpy as np
import pytest
from run_support import assert_same_run, images, in_a_hurry, leftovers, newest, rows, tiny

import fastgan
from fastgan.cli import main as cli
from fastgan.objectives import Adversarial
from fastgan.runs.run_folder import RunFolder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    in_a_hurry(monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of 24 steps with checkpoints of 12, 18 and 24, that tests copy."""
    path = tmp_path_factory.mktemp("made") / "run"
    with tiny(path) as trainer:
        trainer.fit(24)
    (path / "evaluation.json").write_text('{"step": 24}')
    return path


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def content(path):
    """Every file of a run by its name, but the lock and the picture that each stop leaves."""
    return {
        str(p.relative_to(path)): p.read_bytes()
        for p in sorted(path.rglob("*"))
        if p.is_file() and p.name not in ("run.lock", "00000012.png")
    }


def steps(path):
    return RunFolder(path).checkpoints.steps()


def test_a_run_that_went_back_ends_like_a_straight_one(run, made):
    with tiny(run, resume=True, from_step=12) as trainer:
        assert trainer.step == 12
        assert trainer.cut == "checkpoints 18, 24, 3 pictures and rows of then"
        assert [row["step"] for row in rows(run / "metrics.jsonl")] == [5, 10]
        trainer.fit(17)
        assert steps(run) == [12, 17]
        assert not (run / "cut-off").exists()
        assert not (run / "evaluation.json").exists(), "of a step that is gone"
        trainer.fit(24)
    assert_same_run(run, made)
    facts = json.loads((run / "run.json").read_text())
    assert facts["cuts"] == [{"from": 24, "to": 12}]
    assert "from step 24 to 12" in fastgan.reports.page.gone_back(facts)


def test_nothing_is_lost_where_no_new_checkpoint_comes(run, capsys):
    before = content(run)
    with tiny(run, resume=True, from_step=12, callbacks=[Interrupting()]) as trainer:
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(16)
        assert steps(run) == [12]
        assert [row["step"] for row in rows(run / "metrics.jsonl")] == [5, 10, 15]
    assert content(run) == before
    with tiny(run, resume=True) as trainer:
        assert trainer.step == 24
    assert "gone back" not in capsys.readouterr().err


class Interrupting:
    """A second Ctrl-C."""

    def on_step(self, trainer):
        if trainer.step == 15:
            raise KeyboardInterrupt


def test_a_killed_one_goes_on_as_if_it_had_not_gone_back(run, capsys):
    before = content(run)
    killed = tiny(run, resume=True, from_step=12)
    killed.folder.cut.at = None  # as if this process were no more
    killed.close()
    assert steps(run) == [12]
    with tiny(run, resume=True) as trainer:
        assert trainer.step == 24
    assert "had gone back to step 12 and not come to a new checkpoint" in capsys.readouterr().err
    assert content(run) == before


@pytest.mark.parametrize("moment", range(7))
def test_interrupted_at_any_moment_the_run_is_that_of_before(run, monkeypatch, moment):
    """While things are set aside, and while they are brought back."""
    before, replace, calls = content(run), os.replace, []

    class Killed(BaseException):
        pass

    def failing(*args):
        calls.append(args)
        if len(calls) > moment:
            raise Killed
        replace(*args)

    for method in ("begin", "settle"):
        folder = RunFolder(run)
        calls.clear()
        monkeypatch.setattr(os, "replace", failing)
        with pytest.raises(Killed):
            folder.cut.begin(12) if method == "begin" else folder.cut.settle()
        monkeypatch.setattr(os, "replace", replace)
        if method == "begin":
            RunFolder(run).cut.settle()
            assert content(run) == before
            folder.cut.begin(12)
            assert content(run) != before
    RunFolder(run).cut.settle()
    assert content(run) == before
    assert leftovers(run) == []


def test_a_new_checkpoint_that_was_saved_stands(run):
    """Killed between the checkpoint and the removal of what it replaces."""
    with tiny(run, resume=True, from_step=12) as trainer:
        trainer.folder.cut._drop = lambda: None
        trainer.fit(18)
        assert (run / "cut-off").exists()
    with tiny(run, resume=True) as trainer:
        assert trainer.step == 18
    assert not (run / "cut-off").exists()
    assert newest(run)[1][1]["step"] == 18


def test_what_was_changed_later_holds_from_there_on(tmp_path):
    strict = {"objective": Adversarial(latent_shape=(4, 1, 1), r1=5.0)}
    with tiny(tmp_path / "run") as trainer:
        trainer.fit(12)
    with tiny(tmp_path / "run", resume=True, reschedule=True, **strict) as trainer:
        trainer.fit(18)
    with tiny(tmp_path / "run", resume=True, from_step=6, **strict) as trainer:
        assert trainer.rescheduled == "r1 goes on with 5.0 instead of 0.0"
        trainer.fit(8)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["changes"] == [{"step": 6, "what": "r1 goes on with 5.0 instead of 0.0"}]


def test_the_newest_is_no_going_back(run):
    before = content(run)
    with tiny(run, resume=True, from_step=24) as trainer:
        assert trainer.cut is None
    assert content(run) == before


@pytest.mark.parametrize("step", [13, "best"])
def test_a_step_without_a_checkpoint_is_refused_in_one_line(run, step):
    before = content(run)
    with pytest.raises(fastgan.FastganError, match="no checkpoint") as refused:
        tiny(run, resume=True, from_step=step)
    assert "\n" not in str(refused.value)
    assert content(run) == before
    with pytest.raises(fastgan.FastganError, match="needs resume=True"):
        tiny(run, from_step=12)


def test_damaged_notes_are_named(run):
    RunFolder(run).cut.begin(12)
    (run / "cut-off" / "cut.json").write_text("{}")
    with pytest.raises(fastgan.FastganError, match=r"cut\.json is damaged"):
        tiny(run, resume=True)


def test_the_command(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", images(30))
    small = ["--hidden-g", "8", "--hidden-d", "4", "--latent", "4", "--batch-size", "8"]
    flags = [*small, "--data", "images.npy", "--device", "cpu", "--no-progress", "--log-every", "2"]

    def fastgan_train(*args):
        with pytest.raises(SystemExit) as done:
            cli.main(["train", *args])
        return done.value.code or 0, *capfd.readouterr()

    rare = ["--steps", "9", "--checkpoint-every", "3"]
    assert fastgan_train("--recipe", "gan", *flags, *rare, "--out", "run")[0] == 0
    before = content(tmp_path / "run")
    code, out, _ = fastgan_train("--resume", "run", "--from-step", "6", "--dry-run", "--lr", "1e-5")
    assert code == 0
    assert "lr = 1e-05" in out
    assert "network G" in out
    assert content(tmp_path / "run") == before
    code, out, _ = fastgan_train("--resume", "run", "--from-step", "6", "--no-progress")
    assert code == 0
    assert "back to step 6: checkpoint 9, 1 picture and rows of then go with the next" in out
    assert "going on at step 6: gan" in out
    code, _, err = fastgan_train("--resume", "run", "--from-step", "5")
    assert (code, err.count("\n")) == (2, 1)
    assert "no checkpoint of step 5 in run/checkpoints: there are 3, 6, 9" in err
    assert fastgan_train("--recipe", "gan", "--from-step", "5")[0] == 2
