"""The first thing a newcomer does, measured rather than admired."""

import os
import subprocess
import sys

import pytest

from fastgan import data
from fastgan.cli.main import main
from fastgan.metrics import evaluate
from fastgan.trainer.reuse.load import samples_of


@pytest.mark.slow
def test_the_demo_draws_nearly_all_classes_and_comes_near_the_reals(tmp_path):
    """The first 600 steps of the demo, 1,000 samples: 9 of 10 classes with 2 % each, at most a quarter of the
    untrained distance."""
    threads = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "fastgan", "demo", "--out", "run", "--steps", "600"]
    done = subprocess.run(
        command, cwd=tmp_path, env=threads, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "samples/" in done.stdout
    images, untrained = samples_of(tmp_path / "run", 1000)
    report = evaluate(images, data.open("fashion-mnist"), n=1000, untrained=untrained)
    print(report)
    assert report.balance is not None
    assert report.balance.classes_seen(0.02) >= 9, report
    assert report.share_of_untrained is not None
    assert report.share_of_untrained <= 0.25, report


def test_a_demo_that_was_killed_at_once_can_be_started_again(tmp_path, capsys):
    """`make demo`, Ctrl-C, `make demo`: what was begun is in nobody's way; other people's folders
    are left alone."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".partial-start").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(SystemExit) as done:
            main(["demo", "--out", str(tmp_path / "run"), "--steps", "1"])
        assert not done.value.code, capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letters.txt").write_text("precious")
    with pytest.raises(SystemExit) as done:
        main(["demo", "--out", str(tmp_path / "mine"), "--steps", "1"])
    assert done.value.code == 2
    assert "is not a demo" in capsys.readouterr().err
    assert (tmp_path / "mine" / "letters.txt").exists()
