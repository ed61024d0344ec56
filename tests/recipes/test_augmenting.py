"""--augment, of every recipe: what D sees is changed, and nothing else is in the way."""

import numpy as np
import pytest
import torch
from run_support import in_a_hurry
from tiny_recipes import TINY
from torch import nn

from fastgan import recipes
from fastgan.data import rendered
from fastgan.recipes.training import make_trainer
from fastgan.recipes.translation.base import FromImage

LONG = ("sngan", "wgan-gp", "sagan", "biggan-small", "fastgan", "cyclegan")
"""Seconds each; their objectives are others' too, or have tests of their own."""


def tiny(name, **options):
    cls = recipes.find(name)
    own = {"width": 4} if issubclass(cls, FromImage) else TINY[name]
    few = {"data": "few.npz"} if cls.data == "fashion-mnist" else {}
    shared = {"size": 16, "batch_size": 4, "steps": 3, "device": "cpu", "progress": False}
    return cls(**{**shared, **few, **own, **options})


@pytest.fixture(autouse=True)
def few(tmp_path, monkeypatch):
    """A few images of each kind."""
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), np.uint8)
    np.savez("few.npz", images=images, labels=np.arange(60) % 10)
    for name, (draw, _) in rendered.RENDERED.items():
        monkeypatch.setitem(rendered.RENDERED, name, (draw, 12 if name == "sprites" else 40))


def seen(config):
    """What the first layer of each discriminator is given in as many steps as there are stages."""
    found = []

    def note(one):
        def hook(layer, given):
            if layer is one:  # not its copy in the trial before a stage, which augments nothing
                found.append(given[0])

        return hook

    with make_trainer(config, resume=False, log=None, out=None) as trainer:
        for stage in trainer.stages:
            for name, net in stage.nets.items():
                if name[0] in "DE":
                    first = next(m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
                    first.register_forward_pre_hook(note(first))
        trainer.fit(len(trainer.stages))
    return found


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.long if n in LONG else ())
        for n in recipes.RECIPES
        if recipes.find(n).makes == "images"
    ],
)
def test_every_recipe_shows_its_discriminators_changed_images(name):
    plain = seen(tiny(name, augment="none"))
    changed = seen(tiny(name, augment="color,translation,cutout"))
    assert len(plain) == len(changed) >= 2
    for before, after in zip(plain, changed):
        assert before.shape == after.shape
        assert not torch.equal(before, after)


@pytest.mark.parametrize("name", ["infogan", "inpainting"])
def test_ada_of_a_fixed_strength_too(name):
    for before, after in zip(
        seen(tiny(name, augment="none")), seen(tiny(name, augment="ada", augment_p=0.8))
    ):
        assert not torch.equal(before, after)
