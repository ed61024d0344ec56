"""Checkpoints written while training goes on: what is written is the state of their step, they come
one after the other, and what fails is said."""

import errno
import threading

import pytest
import torch
from run_support import assert_same_run, in_a_hurry, tiny

import fastgan
from fastgan import files
from fastgan.runs.checkpoint import Checkpoints
from fastgan.runs.writing import CheckpointWriter


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    in_a_hurry(monkeypatch)


class Told:
    """Notes when checkpoints are told of, and that they are whole by then."""

    def __init__(self):
        self.steps = []

    def on_checkpoint(self, trainer, path):
        step = int(path.name.removeprefix("step-"))
        Checkpoints(path.parent).load(step)
        self.steps.append((step, trainer.step))


def behind(out, **changed):
    trainer = tiny(out, **changed)
    trainer.behind = True  # as on a GPU, or with several processes
    return trainer


def test_steps_go_on_meanwhile_and_the_run_is_the_same(tmp_path, monkeypatch):
    make_folder, go = files.make_folder, threading.Event()

    def slow(path, content):
        if path.name == "step-00000006":
            assert go.wait(60)
        make_folder(path, content)

    class Releases:
        """At step 10 the checkpoint of step 6 is still being written."""

        def on_step(self, trainer):
            if trainer.step == 10:
                assert Checkpoints(tmp_path / "a" / "checkpoints").steps() == [0]
                go.set()

    told = Told()
    monkeypatch.setattr(files, "make_folder", slow)
    torch.manual_seed(0)
    with behind(tmp_path / "a", callbacks=[Releases(), told]) as trainer:
        trainer.fit(15)
        assert [step for step, _ in told.steps] == [6, 12, 15], "all are written when fit returns"
        assert told.steps[0][1] > 6
    monkeypatch.setattr(files, "make_folder", make_folder)
    torch.manual_seed(0)
    with tiny(tmp_path / "b") as trainer:
        trainer.fit(15)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    states = [Checkpoints(tmp_path / run / "checkpoints").load(6)[0] for run in "ab"]
    for net, state in states[0]["nets"].items():
        for key, value in state.items():
            assert torch.equal(value, states[1]["nets"][net][key]), (net, key)


def test_a_disk_that_is_full_meanwhile_ends_the_run_and_keeps_what_was_saved(tmp_path, monkeypatch):
    make_folder = files.make_folder

    def full(path, content):
        if path.name == "step-00000012":
            raise fastgan.FastganError(f"can't write {path}: {OSError(errno.ENOSPC, 'full')}")
        make_folder(path, content)

    monkeypatch.setattr(files, "make_folder", full)
    with behind(tmp_path / "run") as trainer, pytest.raises(fastgan.FastganError, match="full"):
        trainer.fit(100)
    assert trainer.step <= 18  # at the next checkpoint at the latest
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [0, 6]
    with tiny(tmp_path / "run", resume=True) as trainer:
        assert trainer.step == 6


def test_a_run_that_ends_by_an_error_waits_for_its_checkpoint(tmp_path, monkeypatch):
    class Fails:
        def on_step(self, trainer):
            if trainer.step == 7:
                raise RuntimeError("the user's own")

    raises = pytest.raises(fastgan.FastganError, match="the user's own")
    with behind(tmp_path / "run", callbacks=[Fails()]) as trainer, raises:
        trainer.fit(20)
    assert 6 in Checkpoints(tmp_path / "run" / "checkpoints").steps()


def test_one_writes_after_the_other_and_failures_are_raised_once(tmp_path):
    writer, order = CheckpointWriter(), []

    def job(name, error=None):
        order.append(name)
        if error:
            raise error
        return tmp_path / name

    writer.write(lambda: job("now"), behind=False)
    assert writer.take() == []
    writer.write(lambda: job("a"), behind=True)
    writer.write(lambda: job("b"), behind=True)
    writer.settle()
    assert order == ["now", "a", "b"]
    assert writer.take() == [tmp_path / "a", tmp_path / "b"]
    writer.write(lambda: job("c", OSError("no")), behind=True)
    with pytest.raises(OSError, match="no"):
        writer.settle()
    assert writer.take() == []
    writer.write(lambda: job("d", OSError("gone")), behind=True)
    with pytest.raises(OSError, match="gone"):
        writer.close()
    writer.close()
