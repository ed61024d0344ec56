"""The first thing a newcomer does, measured rather than admired."""

import os
import subprocess
import sys

import pytest

from fastgan.metrics import evaluate


@pytest.mark.slow
def test_the_demo_draws_nearly_all_classes_and_comes_near_the_reals(tmp_path):
    """1,000 samples: at least 9 of 10 classes with 2 % each, at most a quarter of the untrained generator's distance."""
    threads = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "fastgan", "demo", "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, env=threads, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "samples/" in done.stdout
    report = evaluate(tmp_path / "run", n=1000)
    print(report)
    assert report.balance is not None
    assert report.balance.classes_seen(0.02) >= 9, report
    assert report.share_of_untrained is not None
    assert report.share_of_untrained <= 0.25, report
