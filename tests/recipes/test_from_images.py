"""Recipes whose generator is given an image: each trains, goes on, samples and measures itself; the
mistakes of newcomers get one line."""

import json

import numpy as np
import pytest
from PIL import Image

from fastgan import recipes
from fastgan.cli.main import main
from fastgan.data import rendered
from fastgan.recipes.translation.base import FromImage

FROM_IMAGE = [name for name in recipes.RECIPES if issubclass(recipes.find(name), FromImage)]


def run(*arguments):
    with pytest.raises(SystemExit) as done:
        main([str(a) for a in arguments])
    assert not done.value.code


@pytest.fixture
def few(monkeypatch):
    """Rendered sets of a few images."""
    for name, (draw, _) in rendered.RENDERED.items():
        monkeypatch.setitem(rendered.RENDERED, name, (draw, 12 if name == "sprites" else 40))


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


def own_data(name, pictures):
    return ["--data", pictures] if recipes.find(name).data == "fashion-mnist" else []


@pytest.mark.parametrize("name", FROM_IMAGE)
def test_each_kind_trains_goes_on_samples_and_measures(name, tmp_path, few, pictures, capsys):
    out = tmp_path / "run"
    tiny = ["--size", 16, "--width", 4, "--batch-size", 4, "--log-every", 1]
    run("train", "--recipe", name, "--steps", 2, "--out", out, *tiny, *own_data(name, pictures))
    run("train", "--resume", out, "--steps", 3)
    straight = tmp_path / "straight"
    run(
        *("train", "--recipe", name, "--steps", 3, "--out", straight),
        *(*tiny, *own_data(name, pictures)),
    )
    rows = [
        [
            {k: v for k, v in json.loads(line).items() if k not in ("time", "images_per_s")}
            for line in (folder / "metrics.jsonl").read_text().splitlines()
        ]
        for folder in (out, straight)
    ]
    assert rows[0] == rows[1]
    run("sample", out, "--n", 4, "--out", tmp_path / "grid.png")
    assert Image.open(tmp_path / "grid.png").width > 32
    capsys.readouterr()
    run("evaluate", out, "--n", 4, "--json")
    assert len(json.loads(capsys.readouterr().out)["rows"]) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_IMAGE)
def test_each_kind_runs_without_options(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("train", "--recipe", name, "--steps", 1)
    run("sample", f"runs/{name}", "--n", 2)
