"""Every recipe's step in a graph, with the losses that a CPU has: run by
tests/graphs/test_mock_cuda.py."""

from __future__ import annotations

import json

import numpy as np
import pytest
from run_support import in_a_hurry
from stand_ins import Eye
from tiny_recipes import MEDIA, tiny

from fastgan import recipes
from fastgan.data import rendered
from fastgan.recipes.training import make_trainer
from fastgan.recipes.translation.base import FromImage

FROM_IMAGE = [name for name in recipes.RECIPES if issubclass(recipes.find(name), FromImage)]
STEPS = {"progressive": 3}
QUICK = ("gan", "dcgan", "cgan", "semi-supervised", "r3gan")
"""Whose own engines' kernels the interpreter runs within a minute."""


@pytest.fixture(autouse=True)
def few(monkeypatch, tmp_path):
    in_a_hurry(monkeypatch)
    monkeypatch.setattr("fastgan.models.frozen.projected.eye", Eye)
    monkeypatch.chdir(tmp_path)
    for name, (draw, _) in rendered.RENDERED.items():
        monkeypatch.setitem(rendered.RENDERED, name, (draw, 12 if name == "sprites" else 40))
    shown = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8)
    np.savez("few.npz", images=shown, labels=np.arange(40) % 10)


def trained(name, device, impl, out, **more):
    """The rows of metrics of a few steps, and why they run without a graph."""
    kind = recipes.find(name)
    options = {"width": 4, **more} if name in FROM_IMAGE else tiny(name)
    options = options if name in MEDIA else {"size": 16, **options}
    if kind.data == "fashion-mnist":
        options["data"] = "few.npz"
    steps = STEPS.get(name, 2)
    config = kind(
        **options,
        batch_size=4,
        steps=steps,
        device=device,
        precision="fp32",
        impl=impl,
        progress=False,
        log_every=1,
        watch=False,
        out=str(out),
    )
    with make_trainer(config, resume=False, log=None, out=str(out)) as trainer:
        trainer.fit(steps)
        reason = trainer.active.graph_reason
    lines = (out / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k.startswith("loss")} for row in rows], reason


@pytest.mark.parametrize(
    ("name", "impl"),
    [
        *((name, "reference") for name in recipes.RECIPES),
        *(pytest.param(name, "auto", marks=pytest.mark.slow) for name in QUICK),
    ],
)
def test_every_recipe_is_captured_and_loses_what_a_cpu_loses(name, impl, tmp_path):
    captured_and_alike(name, impl, tmp_path)


def test_fourier_transforms_are_captured(tmp_path):
    captured_and_alike("inpainting", "reference", tmp_path, fourier=1)


@pytest.mark.parametrize("wish", [{}, {"crop": 16, "size": 32}])
def test_images_as_by_a_camera_and_parts_of_them_are_made_in_the_graph(wish, tmp_path):
    captured_and_alike("super-resolution", "reference", tmp_path, degradation="camera", **wish)


def captured_and_alike(name, impl, tmp_path, **more):
    found, reason = trained(name, "cuda", impl, tmp_path / "gpu", **more)
    assert reason is None
    wanted, _ = trained(name, "cpu", "reference", tmp_path / "cpu", **more)
    assert len(found) == len(wanted)
    for row, other in zip(found, wanted, strict=True):
        assert row.keys() == other.keys()
        for key, value in row.items():
            assert value == pytest.approx(other[key], rel=1e-3, abs=1e-3), key
