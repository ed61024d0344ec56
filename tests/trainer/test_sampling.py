"""Which images a run makes: by seed, by class, nearer to the middle."""

import numpy as np
import pytest
import torch
from run_support import discriminator, generator, images, in_a_hurry, tiny
from torch import nn

import fastgan
from fastgan.cli.sample import captions_of, seeds_of
from fastgan.data import Dataset
from fastgan.models.dcgan import ConditionalDiscriminator, ConditionalGenerator
from fastgan.monitor.pictures import formats
from fastgan.objectives import Adversarial, Noise
from fastgan.trainer import sampling
from fastgan.trainer.reuse.restoring import open_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A plain run, and one with the classes cat, dog and 1."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        in_a_hurry(patch)
        with tiny(folder / "plain", nets={"G": generator(), "D": discriminator()}) as trainer:
            trainer.fit(1)
        arrays = {"image": images(), "label": np.arange(21) % 3}
        kinds = {"image": "image", "label": "label"}
        data = Dataset("animals", arrays, kinds, classes=["cat", "dog", "1"])
        nets = {"G": ConditionalGenerator(8, 1, 4, 2, 3), "D": ConditionalDiscriminator(8, 1, 2, 3)}
        objective = Adversarial(latent_shape=(4, 1, 1), conditional=True)
        with tiny(folder / "classes", nets=nets, data=data, objective=objective) as trainer:
            trainer.fit(1)
    return folder


def test_seeds_give_the_first_image_of_each(runs):
    found = fastgan.sample(runs / "plain", seeds=[3, 70, 3], device="cpu")
    for image, seed in zip(found, (3, 70, 3)):
        torch.testing.assert_close(image, fastgan.sample(runs / "plain", 1, seed=seed)[0])
    assert not torch.equal(found[0], found[1])


def test_labels_by_name_and_number(runs):
    """A name goes before a number: class 2 is called 1."""
    by_number = fastgan.sample(runs / "classes", 3, labels=[0, 1, 2])
    by_name = fastgan.sample(runs / "classes", 3, labels=["cat", "dog", "1"])
    assert torch.equal(by_number, by_name)
    assert torch.equal(by_number, fastgan.sample(runs / "classes", 3, labels=["0", "dog", "2"]))
    for label in ("bird", "3", 3, -1, 0.5):
        with pytest.raises(fastgan.FastganError, match=r"no label .*0 to 2 \(cat, dog, 1\)"):
            fastgan.sample(runs / "classes", 1, labels=label)


def test_truncation_brings_latents_nearer(runs):
    noise = {
        "z": Noise((2000,)),
        "u": Noise((50,), "uniform"),
        "c": Noise((), "categorical", classes=3),
    }
    drawn = sampling.noise_of_seeds(noise, [0])
    cut = sampling.truncated(noise, drawn, 0.7)
    assert cut["z"].abs().max() <= 0.7
    assert torch.equal(cut["z"].argsort(), drawn["z"].argsort()), "the order of numbers stays"
    # the standard deviation of a normal distribution cut at 0.7
    assert abs(float(cut["z"].std()) - 0.3911) < 0.02
    torch.testing.assert_close(cut["u"], drawn["u"] * 0.7)
    assert torch.equal(cut["c"], drawn["c"])
    plain = fastgan.sample(runs / "plain", 2)
    assert not torch.equal(plain, fastgan.sample(runs / "plain", 2, truncation=0.5))
    torch.testing.assert_close(plain, fastgan.sample(runs / "plain", 2, truncation=9.0))


def test_seeds_of_a_text():
    assert seeds_of("1,5-9, 3") == [1, 5, 6, 7, 8, 9, 3]
    for bad in ("", "1,", "-3", "a", "5-", "3-1", "1.5"):
        with pytest.raises(fastgan.FastganError):
            seeds_of(bad)


def test_captions():
    classes = ["cat", "dog", "bird"]
    assert captions_of(7, {"classes": classes}, None, None) == (classes, 3)
    assert captions_of(2, {"classes": classes}, None, None) == (["cat", "dog"], 2)
    assert captions_of(2, {"classes": classes}, ["dog", "dog"], None) == (["dog"], 1)
    assert captions_of(2, {"classes": None}, None, [4, 9]) == (["seed 4", "seed 9"], None)
    assert captions_of(4, {"classes": classes}, ["dog", "0"] * 2, [4, 4, 9, 9]) == (
        ["4 dog", "4 cat", "9 dog", "9 cat"],
        2,
    )
    assert captions_of(64, {"classes": None}, None, None) == ([], None)


def test_a_labelled_grid_has_a_caption_for_each_column_or_each_image():
    cells = np.zeros((4, 1, 8, 8), np.uint8)
    heads = formats.labelled_grid(cells, ["cat", "a very long name of a class"], columns=2)
    each = formats.labelled_grid(cells, ["a", "b", "c", "d"], columns=2)
    assert heads.width == each.width
    assert each.height > heads.height
    dark = np.asarray(heads)[:18].min(axis=2) < 128
    assert dark[:, : heads.width // 2].any()
    assert dark[:, heads.width // 2 :].any()
    with pytest.raises(fastgan.FastganError, match="3 captions for 4 images"):
        formats.labelled_grid(cells, ["a", "b", "c"], columns=2)


def test_a_network_that_fails_is_one_line(runs):
    run = open_run(runs / "plain")
    run.nets["G"] = nn.Linear(3, 3)
    with pytest.raises(fastgan.FastganError, match="make no images"):
        run.images(1)
