"""What stands on the screen before the first step."""

import shlex

import pytest

from fastgan.monitor.start import HEALTHY, again, picture_due, screen
from fastgan.ops.loss_table import LOSSES

NOON = 1_700_000_000.0


def shown(run="runs/mine", **changed):
    options = {
        "step": 0,
        "steps": 20_000,
        "seconds": None,
        "sample_every": 500,
        "loss": "hinge",
        "now": NOON,
    }
    return screen(run, **{**options, **changed})


@pytest.mark.parametrize("loss", [*LOSSES, None])
@pytest.mark.parametrize(("steps", "seconds"), [(20_000, None), (None, 1800.0), (500, 5400.0)])
def test_it_is_short_and_fits_a_terminal(loss, steps, seconds):
    lines = shown("runs/a-name-of-some-length", loss=loss, steps=steps, seconds=seconds)
    assert len(lines) <= 8
    assert max(map(len, lines)) <= 80
    assert "0: D won" in "".join(lines) or loss in ("wasserstein", None)


def test_every_loss_says_what_is_healthy():
    assert set(HEALTHY) == set(LOSSES)


def test_commands_stay_whole_and_are_quoted_where_names_are_long_and_odd():
    run = "runs/it's " + 9 * "long and "
    lines = shown(run, seconds=1800.0)
    commands = [line.strip() for line in lines if line.strip().startswith("fastgan ")]
    assert [shlex.split(one)[1:4] for one in commands] == [["ui", run], ["train", "--resume", run]]
    assert commands[1].endswith("--for 30m")
    assert any(shlex.quote(run) + "/samples" in line for line in lines)


def test_a_name_with_escape_codes_reaches_no_terminal():
    assert "\x1b" not in "".join(shown("runs/\x1b[31mred"))


def test_pictures_are_dense_at_first():
    assert [step for step in range(1, 1101) if picture_due(step, 500)] == [50, 100, 200, 500, 1000]
    assert [step for step in range(1, 251) if picture_due(step, 100)] == [50, 100, 200]
    assert [step for step in range(1, 30) if picture_due(step, 7)] == [7, 14, 21, 28]
    assert "at steps 50, 100, 200, then every 500" in "".join(shown())
    assert "at step 200, then every 500" in "".join(shown(step=150))
    assert ", every 500 steps" in "".join(shown(step=800))
    assert "none: these images" in "".join(shown(drawable=False))


def test_the_end_is_said_by_time_or_steps_whichever_is_given():
    assert "20,000 steps; the time left" in "".join(shown())
    assert "30 min, until " in "".join(shown(steps=None, seconds=1800.0))
    assert (
        "steps" not in "".join(shown(steps=None, seconds=1800.0, sample_every=1)).split("time")[1]
    )
    assert "or 500 steps where those are done before" in "".join(shown(steps=500, seconds=60.0))


@pytest.mark.parametrize(
    ("seconds", "typed"), [(90.0, "90s"), (1800.0, "30m"), (7200.0, "2h"), (0.5, "0.5s")]
)
def test_a_run_goes_on_for_as_long_as_it_was_asked_to_train(seconds, typed):
    from fastgan.cli.auto import Duration

    command = again("runs/mine", seconds)
    assert command.endswith(f"--for {typed}")
    assert Duration().convert(typed, None, None) == seconds
    assert again("runs/mine") == "fastgan train --resume runs/mine"
