"""Whether a classifier gains from generated images: the arms, and the command."""

import json

import numpy as np
import pytest
import torch
from run_support import in_a_hurry
from tiny_recipes import flags

from fastgan import FastganError
from fastgan.cli.main import main
from fastgan.metrics import supplement as module
from fastgan.metrics.supplement import ONLY, Arm


def stripes(labels, seed, level=0.4):
    """Images of a class: bright in the upper or lower half, in noise."""
    dice = torch.Generator().manual_seed(seed)
    x = torch.rand(len(labels), 1, 8, 8, generator=dice) * level
    for row, label in zip(x, labels):
        row[:, 4 * int(label) : 4 * int(label) + 4] += 0.5
    return x


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr("fastgan.metrics.supplement.STEPS", 12)


def test_good_images_help_and_images_of_the_wrong_class_hurt(short):
    labels = torch.arange(60) % 2
    images, test = stripes(labels, 1), (stripes(labels, 2), labels)

    def arms(generated):
        found = module.supplement(images, labels, test, generated, [2, 5], 2, "told")
        assert [a.labels_per_class for a in found.arms] == [2] * 6 + [5] * 6
        assert str(found).splitlines()[-1] == "  told"
        assert all(len(arm.accuracies) == 2 for arm in found.arms)
        return {arm.name: arm.mean for arm in found.arms[6:]}

    good = arms(lambda told, seed: stripes(told, seed + 10))
    bad = arms(lambda told, seed: stripes(1 - told, seed + 10))
    assert good[ONLY] > 0.9 > 0.1 > bad[ONLY]
    assert good["real"] == bad["real"], "the same labels and the same start"
    assert bad["real + 10x generated"] < 0.5 < good["real + 10x generated"]


def test_mean_and_standard_error():
    arm = Arm("real", 10, (0.5, 0.7, 0.9))
    assert arm.mean == pytest.approx(0.7)
    assert arm.error == pytest.approx(0.2 / 3**0.5)
    assert Arm("real", 10, (0.5,)).error == 0


def test_too_few_images_of_a_class_are_one_line():
    labels = torch.tensor([0, 0, 0, 1])
    with pytest.raises(FastganError, match="class 1 has 1 images to learn from, not 3"):
        module.supplement(torch.rand(4, 1, 8, 8), labels, (None, None), None, [3], 1, "")


def command(capsys, *arguments):
    with pytest.raises(SystemExit) as done:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return done.value.code or 0, out, err


def test_the_command(short, tmp_path, monkeypatch, capsys):
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    labels = np.arange(60) % 2
    pixels = (stripes(torch.tensor(labels), 1).clamp(0, 1) * 255).byte().permute(0, 2, 3, 1)
    images = pixels.numpy().repeat(2, 1).repeat(2, 2)
    np.savez("few.npz", images=images, labels=labels)
    np.savez("other.npz", images=255 - images, labels=labels)
    np.savez("bare.npz", images=images)
    options = ["--batch-size=4", "--device=cpu", "--steps=1", "--size=16", "--data=few.npz"]
    for name, more in (("cgan", flags("cgan")), ("dcgan", flags("dcgan"))):
        assert not command(capsys, "train", "--recipe", name, *options, *more, f"--out={name}")[0]
    few = ["--labels-per-class=3", "--seeds=1"]
    code, out, _ = command(capsys, "supplement", "cgan", *few, "--json")
    found = json.loads(out)
    assert code == 0
    assert len(found["arms"]) == 6
    assert found["tested"] == 12
    assert "test images too" in found["note"]
    code, out, _ = command(capsys, "supplement", "cgan", *few, "--test=other.npz")
    assert code == 0
    assert "none of --test" in out
    for arguments, words in (
        (["dcgan", *few], "label"),
        (["cgan", *few, "--test=bare.npz"], "has no labels"),
        (["cgan", *few, "--test=few.npz"], "is what RUN was trained on"),
        (["cgan", "--labels-per-class=many"], "numbers of at least 1"),
        (["cgan", "--labels-per-class=50", "--seeds=1"], "give fewer --labels-per-class"),
    ):
        code, _, err = command(capsys, "supplement", *arguments)
        assert code == 2
        (line,) = err.strip().splitlines()
        assert words in line
