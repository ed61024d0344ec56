"""Every number of channels through data, training, samples, pictures, pages and exports."""

import sys

import numpy as np
import pytest
from PIL import Image
from run_support import in_a_hurry

import fastgan.data as data
from fastgan.cli import main as cli

SMALL = ["--size", "16", "--base-width", "2", "--latent", "4", "--batch-size", "4"]


@pytest.mark.slow
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_is_trained_can_be_shown_measured_and_given_away(
    channels, labels, tmp_path, monkeypatch, capfd
):
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 4), np.uint8)
    for i, picture in enumerate(pixels):
        file = tmp_path / "set" / f"{'ab'[i % 2] if labels else 'a'}/{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]).save(file)

    def fastgan(*words):
        with pytest.raises(SystemExit) as done:
            cli.main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert not done.value.code, (words, err)
        return out

    recipe = ["--recipe", "cgan" if labels else "dcgan", "--channels", channels, "--device", "cpu"]
    fastgan("data", "set", "--channels", channels, "--preview", "preview.png")
    fastgan("train", *recipe, *SMALL, "--data", "set", "--steps", 2, "--out", "run")
    assert len(list((tmp_path / "run" / "samples").glob("*.png"))) == 2
    fastgan("sample", "run", "--n", 4, "--out", "grid.png")
    fastgan("sample", "run", "--n", 4, "--out", "grid.jpg")
    fastgan("sample", "run", "--n", 4, "--out", "single/")
    again = data.open(tmp_path / "single", channels=channels)
    assert again.fields["image"].shape == (16, 16, channels)
    for command in ("report", "timelapse", "interpolate", "directions"):
        fastgan(command, "run")
    fastgan("invert", "run", "set/a/00.png", "--steps", 2)
    fastgan("export", "run", "--out", "folder")
    fastgan("export", "run", "--format", "web", "--out", "page.html")
    fastgan("train", "--resume", "run", "--steps", 3)
