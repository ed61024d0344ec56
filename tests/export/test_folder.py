"""The folder that a generator is taken away in."""

import json

import pytest
import torch
from run_support import in_a_hurry, tiny

import fastgan
from fastgan.cli import main as cli


@pytest.fixture
def run(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    with tiny(tmp_path / "run") as trainer:
        trainer.fit(2)
    return tmp_path / "run"


def export(*argv):
    with pytest.raises(SystemExit) as done:
        cli.main(["export", *map(str, argv)])
    return done.value.code or 0


def test_load_reads_what_export_wrote(run, tmp_path, capsys):
    out = tmp_path / "deep" / "mine"
    assert export(run, "--out", out) == 0
    assert "largest difference to the run's images 0.0e+00" in capsys.readouterr().out
    names = {"model.safetensors", "config.json", "README.md", "samples.png"}
    assert {p.name for p in out.iterdir()} == names
    z = torch.randn(3, 4, 1, 1)
    assert torch.equal(fastgan.load(out)(z), fastgan.load(run)(z))
    config = json.loads((out / "config.json").read_text())
    assert config["inputs"]["z"]["shape"] == [4, 1, 1]
    assert "must not be used" in (out / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["pix2pix", "inpainting", "aging", "video", "cyclegan"])
def test_a_generator_of_images_from_images_takes_held_out_ones(recipe, tmp_path, capsys):
    small = ["--size=16", "--width=2", "--batch-size=2", "--steps=1", "--device=cpu"]
    with pytest.raises(SystemExit):
        cli.main(["train", f"--recipe={recipe}", *small, f"--out={tmp_path / 'run'}"])
    out = tmp_path / "mine"
    assert export(tmp_path / "run", "--out", out) == 0
    assert "largest difference to the run's images 0.0e+00" in capsys.readouterr().out
    assert fastgan.load(out) is not None


def test_bad_input_is_one_line(run, tmp_path, capsys):
    for argv in (["nope", "--out", tmp_path / "x"], [run, "--out", run]):
        assert export(*argv) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_folder_is_one_line(name, run, tmp_path):
    assert export(run, "--out", tmp_path / "out") == 0
    (tmp_path / "out" / name).write_text("[]")
    with pytest.raises(fastgan.FastganError, match=name):
        fastgan.load(tmp_path / "out")
