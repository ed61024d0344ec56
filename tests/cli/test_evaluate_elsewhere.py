"""`fastgan evaluate` of what kinds measure besides distances: of the images that `--data` names, of
the checkpoint that `--step` names."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_recipes import flags

from fastgan.cli.main import main as cli
from fastgan.judges import classifier
from fastgan.recipes.latent import judging


@pytest.fixture(autouse=True)
def few(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))
    for holder, name, value in (
        (classifier, "EPOCHS", 1),
        (classifier, "MIN_STEPS", 20),
        (judging, "SAMPLES", 60),
        (judging, "PAIRS", 20),
    ):
        monkeypatch.setattr(holder, name, value)
    dice = np.random.default_rng(0)
    labels = np.arange(240) % 2
    images = dice.integers(0, 128, (240, 16, 16, 1), np.uint8) + 100 * labels[:, None, None, None]
    np.savez("few.npz", images=images.astype(np.uint8), labels=labels)
    np.savez("bare.npz", images=images.astype(np.uint8))
    np.savez("five.npz", images=images.astype(np.uint8), labels=np.arange(240) % 5)
    np.savez("more.npz", images=images[:239].astype(np.uint8), labels=labels[:239])


def command(capsys, *words):
    with pytest.raises(SystemExit) as done:
        cli([*words])
    out, err = capsys.readouterr()
    assert not done.value.code, err
    return out


def trained(capsys, name, steps=2):
    options = ["--data=few.npz", "--size=16", "--batch-size=4", f"--steps={steps}", *flags(name)]
    options += ["--checkpoint-every=1", "--keep=9", "--no-watch", "--no-progress", "--device=cpu"]
    command(capsys, "train", f"--recipe={name}", *options, "--out=run")


def measured(capsys, *more):
    out = command(capsys, "evaluate", "run", "--n=100", "--json", *more)
    return json.loads(out[out.index("{") :])["measures"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["cgan", "sagan", "infogan", "semi-supervised", "lapgan", "stylegan2-small", "latent"]
)
def test_images_that_have_moved_are_named_and_measured_the_same(name, capsys):
    trained(capsys, name)
    before = measured(capsys)
    assert before
    Path("few.npz").rename("moved.npz")
    assert measured(capsys, "--data=moved.npz") == before


@pytest.mark.parametrize("name", ["cgan", "infogan", "semi-supervised"])
def test_images_without_labels_leave_distances(name, capsys):
    trained(capsys, name)
    assert measured(capsys, "--data=bare.npz") == {}


@pytest.mark.parametrize("name", ["cgan", "semi-supervised"])
def test_classes_that_the_run_was_not_told_leave_distances(name, capsys):
    trained(capsys, name)
    assert measured(capsys, "--data=five.npz") == {}


def test_other_images_are_all_held_out(capsys):
    trained(capsys, "semi-supervised")
    assert list(measured(capsys)) == ["error on 48 held-out images"]
    assert list(measured(capsys, "--data=more.npz")) == ["error on 239 other images"]


def test_texts_are_not_needed_for_distances(capsys):
    options = ["--data=shapes", "--size=16", "--batch-size=4", "--steps=1", *flags("text-to-image")]
    options += ["--no-watch", "--no-progress", "--device=cpu", "--out=run"]
    command(capsys, "train", "--recipe=text-to-image", *options)
    np.savez(
        "colours.npz", images=np.random.default_rng(1).integers(0, 256, (240, 16, 16, 3), np.uint8)
    )
    assert measured(capsys, "--data=colours.npz") == {}


def test_a_run_is_found_below_the_home_folder(capsys, monkeypatch, tmp_path):
    trained(capsys, "cgan")
    monkeypatch.setenv("HOME", str(tmp_path))
    out = command(capsys, "evaluate", "~/run", "--n=100", "--json")
    assert json.loads(out[out.index("{") :])["measures"]


def test_measures_are_of_the_step_that_is_named(capsys):
    trained(capsys, "stylegan2-small")
    first, last = (measured(capsys, f"--step={step}") for step in (1, 2))
    assert first["path length in w"] != last["path length in w"]
    assert measured(capsys) == last
