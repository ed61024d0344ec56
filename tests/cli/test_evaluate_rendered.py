"""`fastgan evaluate` of runs on images that are drawn here."""

import json

import pytest

from fastgan.cli.main import main as cli
from fastgan.data import rendered


def called(*words):
    with pytest.raises(SystemExit) as done:
        cli([*words])
    return done.value.code


@pytest.mark.slow
def test_a_run_on_drawn_images_is_measured_against_them(tmp_path, capsys):
    run = str(tmp_path / "run")
    tiny = ("--size", "16", "--base-width", "2", "--batch-size", "4", "--steps", "1")
    train = ("train", "--recipe", "dcgan", "--data", "faces", *tiny, "--device", "cpu")
    assert not called(*train, "--no-progress", "--out", run)
    assert not called("evaluate", run, "--n", "100"), capsys.readouterr().err
    assert "100 samples against faces" in capsys.readouterr().out


@pytest.mark.slow
def test_codes_are_measured_against_known_factors(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(rendered.RENDERED, "forms", (rendered.forms, 200))
    run = str(tmp_path / "run")
    tiny = ("--size", "16", "--base-width", "2", "--batch-size", "4", "--steps", "1")
    train = ("train", "--recipe", "infogan", "--data", "forms", *tiny, "--device", "cpu")
    assert not called(*train, "--no-progress", "--out", run)
    assert not called("evaluate", run, "--n", "100", "--json"), capsys.readouterr().err
    lines = capsys.readouterr().out
    found = json.loads(lines[lines.index("{") :])["measures"]
    for name in ("gap of the codes", "gap of principal components"):
        assert 0 <= found[name] <= 1
    assert 0.3 < found["error of k-means"] < 0.9
