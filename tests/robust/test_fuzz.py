"""A minute of the hour that `make soak` takes: bad files, options, calls, races and full disks,
with a seed that is printed where something fails."""

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import soak  # noqa: E402

SHARE = {"files": 0.05, "options": 0.03, "calls": 0.2, "races": 0.1, "disks": 0.1, "clocks": 0.1}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", SHARE)
def test_a_share_of_the_soak(part, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "soak").mkdir()
    seed = int(os.environ.get("SOAK_SEED", 0))
    tally = soak.Tally(part, seed)
    soak.PARTS[part](tmp_path / "soak", soak.random.Random(f"{seed} {part}"), SHARE[part], tally)
    assert not tally.failures, tally.line()
