"""What several recipes measure of samples, by generators whose answer is known."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fastgan.data import Dataset
from fastgan.recipes.latent.judging import LEAST, called_real, class_accuracy

CLASSES = ["dark", "light"]
KINDS = {"image": "image", "label": "label"}


def reals(count=1000):
    """Noise of two levels, 8x8, and the level as the class."""
    dice = np.random.default_rng(0)
    label = np.arange(count) % 2
    level = np.where(label, 160, 60)[:, None, None, None]
    images = (level + dice.integers(-50, 50, (count, 8, 8, 1))).astype(np.uint8)
    arrays = {"image": images, "label": label.astype(np.int64)}
    return Dataset("levels", arrays, KINDS, classes=CLASSES)


@dataclass
class Made:
    """As a Subject whose generator is a function of the labels asked for."""

    reals: Dataset
    generator: object
    seed: int = 0
    labelled: bool = True

    def sample(self, n, labels=None):
        return self.generator(torch.zeros(n, dtype=torch.long) if labels is None else labels)


def noise(labels):
    dice = torch.Generator().manual_seed(1)
    level = torch.where(labels > 0, 160.0, 60.0)[:, None, None, None]
    return (level + torch.rand(len(labels), 1, 8, 8, generator=dice) * 100 - 50) / 255


class Judge:
    """In place of a fitted network: the class is the level, features are level and spread."""

    names, accuracy = CLASSES, 1.0

    def features(self, images):
        return torch.stack([images.mean((1, 2, 3)), images.std((1, 2, 3))], 1) * 10

    def predict(self, images):
        return (images.mean((1, 2, 3)) > 110 / 255).long()


@pytest.fixture(autouse=True)
def judge(monkeypatch):
    monkeypatch.setattr("fastgan.judges.instruments.fitted", lambda data, images: Judge())


def test_one_image_a_class_has_the_right_classes_and_is_far_from_each():
    right = class_accuracy(Made(reals(), noise))
    one = class_accuracy(Made(reals(), flat))
    wrong = class_accuracy(Made(reals(), lambda labels: noise(1 - labels)))
    told, distance = "samples of the class they were told (1000)", "KD-small within classes"
    assert right[told] == one[told] == 1
    assert wrong[told] == 0
    assert abs(right[distance]) < one[distance] / 20
    assert abs(right[distance]) < wrong[distance] / 20


def flat(labels):
    return noise(labels).mean((2, 3), keepdim=True).expand(-1, 1, 8, 8)


@pytest.mark.parametrize(("light", "counts"), [(LEAST - 1, False), (LEAST, True)])
def test_a_class_of_few_reals_is_left_out_of_the_distance(light, counts):
    """Asked for light images, the generator makes dark ones."""
    data = reals()
    label = data.array("label")
    kept = np.concatenate([np.flatnonzero(label == 0), np.flatnonzero(label == 1)[:light]])
    found = class_accuracy(Made(data.take(kept), lambda labels: noise(0 * labels)))
    assert (found["KD-small within classes"] > 1) == counts


def test_samples_like_reals_pass_for_real_and_grey_ones_do_not():
    data = reals(240)
    data = data.take(np.flatnonzero(data.array("label") == 0))
    assert called_real(Made(data, noise))["samples called real"] > 0.3
    found = called_real(Made(data, lambda labels: torch.full((len(labels), 1, 8, 8), 0.5)))
    assert found == {"samples called real": 0.0, "held-out reals called real": 1.0}
