"""Code of the user's in the loop."""

import traceback

import pytest
from run_support import in_a_hurry, tiny

import fastgan


class Everything(fastgan.Callback):
    def __init__(self):
        self.seen = []

    def on_step(self, trainer):
        self.seen.append(("step", trainer.step))

    def on_log(self, trainer, row):
        self.seen.append(("log", trainer.step, "loss/D" in row))

    def on_checkpoint(self, trainer, path):
        self.seen.append(("checkpoint", trainer.step, path.is_dir()))

    def on_end(self, trainer):
        self.seen.append(("end", trainer.step, trainer.saved_step))


def test_each_method_is_called_when_it_is_said_to_be(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    mine = Everything()
    with tiny(tmp_path / "run", callbacks=[mine, object_with_on_end := Ending()]) as trainer:
        trainer.fit(7)
    steps = [("step", n) for n in range(1, 8)]
    assert [e for e in mine.seen if e[0] == "step"] == steps
    assert [e for e in mine.seen if e[0] == "log"] == [("log", 5, True)]
    assert [e for e in mine.seen if e[0] == "checkpoint"] == [
        ("checkpoint", 6, True),
        ("checkpoint", 7, True),
    ]
    assert mine.seen[-1] == ("end", 7, 7)
    assert object_with_on_end.steps == 7


class Ending:
    def on_end(self, trainer):
        self.steps = trainer.step


def test_a_callback_stops_the_run_and_says_why(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)

    class Patience:
        def on_log(self, trainer, row):
            trainer.stop("enough")

    with tiny(tmp_path / "run", callbacks=[Patience()]) as trainer:
        trainer.fit(20)
        assert (trainer.step, trainer.stopped_by, trainer.saved_step) == (5, "enough", 5)
        trainer.fit(7)
        assert (trainer.step, trainer.stopped_by) == (7, None)


@pytest.mark.parametrize("event", ["on_step", "on_log", "on_checkpoint", "on_end"])
def test_an_error_in_a_callback_is_named_with_its_traceback_and_nothing_is_lost(
    tmp_path, monkeypatch, event
):
    in_a_hurry(monkeypatch)

    def planted(self, *_):
        raise ZeroDivisionError("by mine")

    mine = type("Mine", (), {event: planted})()
    with (
        tiny(tmp_path / "run", callbacks=[mine]) as trainer,
        pytest.raises(
            fastgan.FastganError, match=f"callback Mine.{event} raised Zero.*by mine"
        ) as caught,
    ):
        trainer.fit(8)
    assert "planted" in [f.name for f in traceback.extract_tb(caught.value.__cause__.__traceback__)]
    assert trainer.saved_step == trainer.step


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Ending, "callbacks must be a list"),
        ([Ending], "Ending is no object.*make an object of the class"),
        ([object()], "object is no object with any of on_step"),
        ("on_step", "callbacks must be a list of objects, not a str"),
        ([type("X", (), {"on_step": 3})()], "X.on_step is no method"),
    ],
)
def test_what_is_no_callback_is_refused_before_anything_is_written(tmp_path, wrong, said):
    with pytest.raises(fastgan.FastganError, match=said):
        tiny(tmp_path / "run", callbacks=wrong)
    assert not (tmp_path / "run").exists()
