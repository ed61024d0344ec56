"""`fastgan evaluate` of runs on images that are drawn here."""

import pytest

from fastgan.cli.main import main as cli


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
