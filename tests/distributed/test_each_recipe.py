"""Every recipe in two processes: equal weights in both, and the losses of one process."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from test_distributed import start

PROGRAM = Path(__file__).parents[1] / "support" / "each_recipe.py"
OWN = {
    "semi-supervised": "dropout, and the mean of features of a process's images",
    "stylegan2-small": "the deviation over a process's images",
    "progressive": "the deviation over a process's images",
    "text-to-image": "captions that don't match are those of the process's other images",
    "pix2pix": "dropout",
    "tabular": "dropout, and packs are of a process's rows",
    "voice": "the phases are shuffled by each process",
    "inpainting": "the mean over the holes of a process's images",
}
"""Recipes of whose losses a part is each process's own."""


@pytest.mark.long
@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_each_recipe_in_two_processes_logs_what_one_does(tmp_path):
    command = [sys.executable, str(PROGRAM)]
    two = start(2, [*command, str(tmp_path / "two")])
    one = start(1, [*command, str(tmp_path / "one")])
    for process in (*two, *one):
        error = process.communicate(timeout=400)[1].decode()
        assert process.returncode == 0, error[-3000:]
    alone, both = (json.loads((tmp_path / name).read_text()) for name in ("one", "two"))
    assert alone.keys() == both.keys()
    for name, rows in alone.items():
        for step, (want, found) in enumerate(zip(rows, both[name], strict=True)):
            assert want.keys() == found.keys(), name
            for key, value in want.items():
                assert math.isfinite(found[key]), (name, key)
                if name not in OWN:
                    # an update of Adam in between, which makes much of roundings
                    near = 1e-4 if step == 0 else 2e-2
                    assert found[key] == pytest.approx(value, rel=near, abs=near), (name, key, step)
