"""Runs side by side: what stands in the table, which run is called better, what a reader is told."""

import json
import shutil

import pytest
from click.testing import CliRunner
from PIL import Image
from run_support import in_a_hurry, tiny

from fastgan.cli.main import group
from fastgan.errors import FastganError
from fastgan.reports.compare import compare


def evaluation(kd, error, **changed):
    small = {"name": "small", "error": {"kd": error, "precision": 0.01}}
    found = {"step": 8, "judge": "small", "data": "clothes", "n": 500, "n_reference": 900}
    found |= {"key": "abc", "KD-small": kd, "KD-small floor": 0.0, "precision": 0.5, "small": small}
    return json.dumps(found | changed)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    path = tmp_path_factory.mktemp("compare") / "plain"
    with pytest.MonkeyPatch.context() as patched:
        in_a_hurry(patched)
        with tiny(path, watch=False) as trainer:
            trainer.fit(8)
    return path


@pytest.fixture
def pair(one, tmp_path):
    """Two runs that differ in an option, and in what was measured."""
    runs = [shutil.copytree(one, tmp_path / name) for name in ("plain", "slower")]
    config = runs[1] / "config.toml"
    config.write_text(config.read_text().replace("batch_size = 8", "batch_size = 16"))
    for run, kd in zip(runs, (3.0, 2.0)):
        (run / "evaluation.json").write_text(evaluation(kd, 0.1))
    return runs


def test_a_table_and_a_picture(pair, tmp_path):
    out = tmp_path / "new" / "compare.png"
    shown = CliRunner().invoke(group, ["compare", *map(str, pair), "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    lines = {
        line.split("  ")[0]: line.split("  ", 1)[-1].split() for line in shown.output.splitlines()
    }
    assert lines["KD-small"] == ["3", "2*"]
    assert lines["precision"] == ["0.5", "0.5"]
    assert lines["steps"] == ["8", "8"]
    assert lines["batch_size"] == ["8", "16"]
    assert "seed" not in lines
    assert "floor" not in shown.output
    assert max(map(len, shown.output.splitlines()[:-1])) <= 80
    with Image.open(out) as picture, Image.open(pair[0] / "samples" / "00000008.png") as grid:
        assert picture.width > 3 * min(grid.width, 640)  # real images, and two runs
    found = (
        CliRunner().invoke(group, ["compare", *map(str, pair), "--out", str(out), "--json"]).stdout
    )
    assert json.loads(found)["best"] == {"KD-small": 1}


def test_a_lead_within_the_errors_is_none(pair):
    (pair[1] / "evaluation.json").write_text(evaluation(2.75, 0.1))  # errors of 0.14 together
    assert compare(pair).best == {}
    (pair[1] / "evaluation.json").write_text(evaluation(2.7, 0.1))
    assert compare(pair).best == {"KD-small": 1}


@pytest.mark.parametrize(("field", "value"), [("key", "other"), ("n", 100), ("data", "shoes")])
def test_what_cannot_be_compared_is_said_and_nobody_wins(pair, field, value):
    (pair[1] / "evaluation.json").write_text(evaluation(2.0, 0.1, **{field: value}))
    found = compare(pair)
    assert [note for note in found.notes if f"not comparable: {field} is" in note]
    assert found.best == {}


def test_what_is_missing_or_old_is_said(pair):
    (pair[0] / "evaluation.json").unlink()
    (pair[1] / "evaluation.json").write_text(evaluation(2.0, 0.1, step=6))
    found = compare(pair)
    assert found.measured["KD-small"] == [None, 2.0]
    assert f"plain is not measured yet: fastgan evaluate {pair[0]}" in found.notes
    assert "slower was measured at step 6; its newest checkpoint is of 8" in found.notes


def test_a_kinds_own_measure_is_compared(pair):
    for run, value in zip(pair, (20.5, 21.5)):
        rows = {"samples": {"PSNR": value}, "a copy": {"PSNR": 11.0}}
        (run / "evaluation.json").write_text(json.dumps({"title": "x", "rows": rows, "step": 8}))
    assert compare(pair).measured["samples: PSNR"] == [20.5, 21.5]


def test_a_strangers_folder_harms_nobody(pair):
    evil = {"judge": ["\x1b[2J"], "KD-\x1b[31m": 1e999, "precision": "x", "small": {"error": 3}}
    (pair[1] / "evaluation.json").write_text(json.dumps(evil))
    (pair[1] / "config.toml").write_text('data = "\\u001b[2J"\n')
    (pair[1] / "samples" / "00000008.png").write_bytes(b"no picture")
    found = compare(pair)
    assert "\x1b" not in str(found) + json.dumps(found.as_dict(), allow_nan=False)
    assert [caption for caption, _ in found.pictures][-1] == "slower, step 7"


def test_misuse_is_one_line(pair, tmp_path):
    for wrong, line in (
        ([pair[0]], "two runs or more"),
        ([pair[0], pair[0]], "named twice"),
        ([pair[0], tmp_path / "nothing"], "is not a run"),
    ):
        with pytest.raises(FastganError, match=line):
            compare(wrong)
    for out in ("compare.txt", pair[0] / "samples" / "x.png"):
        made = CliRunner().invoke(group, ["compare", *map(str, pair), "--out", str(out)])
        assert isinstance(made.exception, FastganError)
        assert made.stdout == ""
