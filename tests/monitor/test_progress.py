"""Progress on a terminal and in a log file."""

import io

import pytest

from fastgan.monitor.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def run(stream, steps=1000, seconds=10.0, **kwargs):
    clock = Clock()
    progress = Progress(steps, stream=stream, clock=clock, **kwargs)
    for step in range(kwargs.get("start", 0) + 1, steps + 1):
        clock.now = seconds * step / steps
        progress.update(
            step, 1234.0, {"loss/D": 0.5123, "loss/G": 2.0, "D/logit_real": 3.0, "step": step}
        )
    progress.close()
    return stream.getvalue()


def test_a_log_file_gets_plain_lines_at_most_two_a_second_and_the_last_step():
    lines = run(io.StringIO(), label="dcgan").splitlines()
    assert len(lines) <= 2 * 10 + 2
    assert len(lines) > 10
    assert all("\r" not in line and "\x1b" not in line for line in lines)
    assert lines[0].startswith("dcgan: step    1/1000")
    assert "step 1000/1000 (100 %)" in lines[-1]
    assert "1,234 img/s" in lines[-1]
    assert "loss D 0.512" in lines[-1]
    assert "logit" not in lines[-1]
    assert "took 10 s" in lines[-1]


def test_a_long_run_leaves_a_log_that_can_be_read():
    day = run(io.StringIO(), steps=86400, seconds=86400.0).splitlines()
    assert 100 < len(day) < 600
    assert "86400/86400" in day[-1]


def test_the_last_state_is_written_once():
    out = io.StringIO()
    progress = Progress(3, stream=out, clock=Clock())
    progress.update(1)
    progress.update(3, row={"loss/D": 1.0})
    progress.close()
    progress.close()
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["1/3", "3/3"]


def test_a_resumed_run_estimates_from_its_own_steps():
    clock = Clock()
    out = io.StringIO()
    progress = Progress(1000, start=900, stream=out, clock=clock)
    clock.now = 10.0
    progress.update(910)
    assert "1 min 30 s left" in out.getvalue()


def test_a_terminal_gets_a_bar_with_speed_losses_and_time_left():
    out = run(Terminal(), steps=200, seconds=1.0)
    assert "\r" in out
    assert "200/200" in out
    assert "1,234 img/s" in out
    assert "loss D 0.512" in out
    assert out.count("\r") < 20, "refreshed at most twice a second"


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_line_between_is_a_line_of_its_own(stream):
    with Progress(10, stream=stream, clock=Clock()) as progress:
        progress.update(1)
        progress.write("step 1: collapse: something")
        progress.update(2)
    assert "step 1: collapse: something\n" in stream.getvalue()


def test_a_reader_that_went_away_does_not_stop_the_run():
    out = io.StringIO()
    progress = Progress(10, stream=out, clock=Clock())
    out.close()
    progress.update(5)
    progress.write("x")
    progress.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (7620, "2 h 07 min"), (273600, "3 d 4 h")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
