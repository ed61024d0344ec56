"""Every recipe by command, on a few labelled images: trains, samples, goes on."""

import numpy as np
import pytest
import torch
from exact_resume import goes_on_exactly
from run_support import commands, in_a_hurry
from tiny_recipes import TINY, flags

from fastgan import recipes
from fastgan.errors import FastganError
from fastgan.recipes import ImageSpec

SLOW = dict.fromkeys(("sagan", "biggan-small"), pytest.mark.slow)
"""Spectral norm of every layer is set up anew at each opening of a run."""


@pytest.fixture
def fastgan(tmp_path, monkeypatch, capsys):
    """fastgan(args...) -> what it printed; fails where the command fails."""
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)

    call = commands(capsys)

    def run(*args):
        code, out, err = call(*args)
        assert not code, err
        return out

    return run


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=SLOW.get(n, ()) if n != "sagan" else ()) for n in TINY]
)
def test_each_kind_trains_samples_and_goes_on(name, fastgan, tmp_path):
    dice = np.random.default_rng(0)
    images = dice.integers(0, 256, (60, 16, 16, 1), np.uint8)
    np.savez("few.npz", images=images, labels=np.arange(60) % 10)
    few = ["--batch-size=4", "--device=cpu", "--steps=3", "--out=run", "--size=16"]
    if recipes.find(name).data == "fashion-mnist":
        few += ["--data=few.npz"]
    fastgan("train", "--recipe", name, *few, *flags(name))
    fastgan("sample", "run", "--n=4", "--device=cpu")
    assert (tmp_path / "samples.png").stat().st_size > 0
    assert "going on at step 3" in fastgan("train", "--resume=run", "--steps=4")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("*4")]


def semi_supervised(**options):
    return recipes.find("semi-supervised")(**options)


def test_labels_are_few_even_and_not_the_held_out_ones():
    config = semi_supervised(labels=25, held_out=0.1)
    dataset = config.open_data()
    rest, chosen, held_out = config.split(dataset)
    assert len(rest) == 9000
    assert sorted([*rest, *held_out]) == list(range(10_000))
    assert set(chosen) <= set(rest)
    counts = np.bincount(dataset.array("label")[chosen])
    assert counts.tolist() == [3] * 5 + [2] * 5
    assert "label" not in config.streams()["image"].fields


@pytest.mark.parametrize(
    ("labels", "message"), [(9, "less than one for each of 10"), (90_000, "fewer --labels")]
)
def test_labels_that_are_not_there_are_one_line(labels, message):
    config = semi_supervised(labels=labels)
    with pytest.raises(FastganError, match=message):
        config.split(config.open_data())


def test_unlabelled_images_need_some_labels():
    with pytest.raises(FastganError, match="needs labels of some images"):
        semi_supervised().build(ImageSpec(8, 1))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=SLOW.get(name, ()))
        for name in TINY
        if ".latent." in recipes.RECIPES[name]
    ],
)
def test_a_stopped_run_goes_on_exactly(name, tmp_path, monkeypatch):
    """Augmented, and over the border of two stages: progressive's and lapgan's have one step each."""
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 1), np.uint8)
    np.savez("few.npz", images=images, labels=np.arange(60) % 10)
    cls = recipes.find(name)
    options = {"size": 16, "batch_size": 4, "steps": 3, "device": "cpu", "progress": False}
    options["augment"] = "color,translation"
    few = {} if cls.generated else {"data": "few.npz"}
    config = cls(**{**options, **TINY[name], **few})
    goes_on_exactly(config, 2, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stylegan2-small", "projected"])
def test_generators_leave_as_one_file_and_are_accelerated(name, fastgan, tmp_path):
    from fastgan import accelerate, load

    np.save("few.npy", np.random.default_rng(0).integers(0, 256, (60, 16, 16, 1), np.uint8))
    few = ["--data=few.npy", "--batch-size=4", "--device=cpu", "--steps=1", "--out=run"]
    fastgan("train", "--recipe", name, "--size=16", *few, *flags(name))
    told = fastgan("export", "run", "--format=torch", "--out=made.pt2")
    assert "largest difference to the run's images" in told
    G = load("run")
    z = torch.randn(2, *([8, 1, 1] if name == "projected" else [8]))
    with torch.no_grad():
        before = G(z)
        torch.testing.assert_close(accelerate(G)(z), before)
