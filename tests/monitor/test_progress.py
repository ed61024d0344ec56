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


def limited(stream, total, rate, until, seconds=1800.0, start=0):
    """The last line or state of the bar that a run of `rate` steps a second shows at `until`."""
    clock = Clock()
    progress = Progress(total, start=start, stream=stream, seconds=seconds, clock=clock)
    clock.now = until
    row = {"loss/D": 0.5123, "loss/G": 1.234}
    progress.update(start + int(rate * until), 119.0, row)
    shown = stream.getvalue().replace("\r", "\n").splitlines()[-1]
    progress.close()
    return shown


def test_a_run_limited_by_time_counts_time():
    bar = limited(Terminal(), 1_000_000, 2.0, 612.0)
    assert bar.startswith(" 34%|"), "of the time, not of a million steps"
    assert "| 10:12/30:00 [19:48 left, step 1224, loss D 0.512, loss G 1.23" in bar
    line = limited(io.StringIO(), 1_000_000, 2.0, 612.0)
    assert line.startswith("10 min 12 s of 30 min ( 34 %)  step 1224  ")
    assert line.endswith("19 min 48 s left")
    assert "1000000" not in bar + line


def test_of_two_limits_the_one_that_comes_first_counts():
    bar = limited(Terminal(), 2000, 2.0, 612.0)
    assert bar.startswith(" 61%|"), "1224 of 2000 steps"
    assert "| 10:12/30:00 [6:28 left, step 1224/2000" in bar
    line = limited(io.StringIO(), 2000, 2.0, 612.0, start=100)
    assert "of 30 min ( 64 %)  step 1324/2000" in line, "of the steps that were left"
    assert "19:48 left, step 306," in limited(Terminal(), 2000, 0.5, 612.0), "the time is first"


def test_before_the_first_step_the_time_left_is_the_limit():
    assert "[30:00 left, step 0]" in limited(Terminal(), 100, 0.0, 0.0).replace(
        ", loss D 0.512, loss G 1.23, 119 img/s", ""
    )


def test_a_bar_keeps_some_columns_and_the_line_its_width(monkeypatch):
    from fastgan.monitor import progress

    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda _: (80, 24))
    bar = limited(Terminal(), 2000, 1.1, 1750.0)
    assert len(bar) <= 80
    assert bar.endswith("]"), "nothing is cut off in the middle"
    assert bar.index("| 29:10") - bar.index("|") > progress.BAR


def test_braces_in_a_name_are_a_name():
    out = Terminal()
    with Progress(9, stream=out, seconds=9.0, clock=Clock()) as progress:
        progress.update(1, row={"loss/{D}": 1.0})
    assert "loss {D} 1" in out.getvalue()


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
