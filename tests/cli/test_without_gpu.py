"""Defaults that are others without a GPU."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from run_support import commands, images

from fastgan import recipes
from fastgan.recipes.config import checked
from fastgan.trainer.run_options import on_cpu

DRY = ["train", "--recipe", "sngan", "--data", "images.npy", "--batch-size", 8, "--dry-run"]
DRY += ["--size", 8]
LINE = "no GPU: --width-g 64 --width-d 64 (with one 256, 128)"


@pytest.fixture
def fastgan(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", images(30))
    return commands(capfd)


def test_they_are_taken_and_said(fastgan):
    code, out, err = fastgan(*DRY)
    assert code == 0, err
    assert out.startswith(LINE)
    assert "width_g = 64\nwidth_d = 64\n" in out
    assert recipes.find("sngan")().width_g == 256  # in Python a default is what is written


def test_what_is_given_stays(fastgan):
    out = fastgan(*DRY, "--width-g", 8)[1]
    assert out.startswith("no GPU: --width-d 64 (with one 128)")
    assert "width_g = 8\nwidth_d = 64\n" in out
    Path("mine.toml").write_text("width-g = 9\nwidth_d = 10\n")
    out = fastgan(*DRY, "--config", "mine.toml")[1]
    assert "no GPU" not in out
    assert "width_g = 9\nwidth_d = 10\n" in out


def test_a_gpu_has_the_others(fastgan, monkeypatch):
    from fastgan import devices

    monkeypatch.setattr(devices, "pick_device", lambda name: torch.device("cuda"))
    from fastgan.cli.train import smaller

    assert smaller(recipes.find("sngan"), {}, {}) == {}
    assert smaller(recipes.find("sngan"), {}, {"device": None, "width_g": None}) == {}


def test_a_recipe_can_have_them():
    for name in recipes.RECIPES:
        cls = recipes.find(name)
        for option, value in on_cpu(cls).items():
            assert checked(cls, option, value) == value
            (field,) = (f for f in dataclasses.fields(cls) if f.name == option)
            assert value < field.default, "less, where there is less to compute with"
