"""The recipe `latent`: an autoencoder, then a GAN on its maps."""

import copy
import json

import numpy as np
import pytest
import torch
from run_support import assert_same_run, in_a_hurry
from tiny_recipes import TINY, flags

import fastgan
from fastgan import recipes
from fastgan.cli import main as cli
from fastgan.models.frozen import autoencoder as models
from fastgan.recipes.latent.judging import reconstruction
from fastgan.recipes.training import make_trainer
from fastgan.trainer.reuse.subject import Subject

FIRST = 3
"""Steps of the first stage."""


@pytest.fixture(autouse=True)
def few(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (120, 16, 16, 3), np.uint8)
    np.savez("few.npz", images=images)


def trainer(out=None, resume=False, **options):
    shared = {"data": "few.npz", "size": 16, "batch_size": 4, "device": "cpu", "progress": False}
    shared |= {"log_every": 2, "sample_every": 4, "checkpoint_every": 2}
    own = {**TINY["latent"], "stage_steps": FIRST, **options}
    config = recipes.find("latent")(**{**shared, **own})
    return make_trainer(config, resume=resume, log=None, out=out)


def state(net):
    return {key: value.clone() for key, value in net.state_dict().items()}


def same(left, right):
    assert left.keys() == right.keys()
    return all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("augment", ["none", "ada"])
def test_a_run_stopped_at_any_step_goes_on_exactly(augment, tmp_path):
    steps = FIRST + 3
    with trainer("straight", augment=augment) as straight:
        straight.fit(steps)
    for stop in range(1, steps):
        out = f"stopped{stop}"
        with trainer(out, augment=augment) as first:
            first.fit(stop)
        with trainer(out, resume=True, augment=augment) as second:
            second.fit(steps)
        assert_same_run("straight", out)


def test_the_second_stage_moves_no_bit_of_the_autoencoder():
    with trainer(r1=1.0, flip=True, lr_g=0.1, lr_d=0.1) as run:
        run.fit(FIRST)
        trained = {name: state(net) for name, net in run.nets.items()}
        blank = state(run.stages[1].nets["G"].body)
        run.fit(FIRST + 5)
        assert run.sequence.index == 1
        for nets in (run.nets, run.active.sampling_nets()):
            assert same(trained["encoder"], state(nets["encoder"]))
            assert same(trained["G"], state(nets["G"].decoder))
            assert not same(blank, state(nets["G"].body))
        assert not run.nets["encoder"].training
        assert not run.nets["G"].decoder.training
        assert run.nets["G"].body.training
        assert {id(p) for p in run.nets["G"].decoder.parameters()}.isdisjoint(
            id(p) for group in run.optimizers["G"].param_groups for p in group["params"]
        )


def test_samples_are_what_the_decoder_makes_of_maps():
    with trainer("run") as run:
        run.fit(FIRST + 2)
        sampled = run.sample(5, seed=7)
    G, encoder = fastgan.load("run"), fastgan.load("run", network="encoder")
    opened = fastgan.trainer.reuse.restoring.open_run("run")
    z = opened.noise(5, seed=7)["z"]
    with torch.no_grad():
        maps = G.make_maps(z)
        images = G.decoder(maps)
        assert torch.equal(images, G(z))
        assert maps.shape[1:] == encoder(images).shape[1:] == (2, 8, 8)
    again = fastgan.sample("run", 5, seed=7)
    torch.testing.assert_close(again, images.add(1).div(2).clamp(0, 1))
    # the trainer's convolutions may be in another layout: a rounding of the last place
    torch.testing.assert_close(again, sampled, rtol=0, atol=3e-7)


def test_maps_have_unit_variance_and_the_checkpoint_says_by_what():
    """The encoder of the second stage divides by what the first one saw of its last batches."""
    with trainer("run", stage_steps=60, batch_size=16, lr_first=1e-3) as run:
        run.fit(60)
        before = run.nets["encoder"]
        run.fit(61)
        encoder, norm = run.nets["encoder"], run.nets["encoder"][-1]
        assert torch.equal(norm.running_var, before[-1].running_var)
        pixels = torch.from_numpy(run.datasets["image"].array("image").copy())
        images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            maps, raw = encoder(images), images
            for layer in [*encoder][:-1]:
                raw = layer(raw)
    for channel in range(maps.shape[1]):
        assert float(maps[:, channel].var()) == pytest.approx(1, abs=0.1)
        assert abs(float(maps[:, channel].mean())) < 0.1
    assert not np.allclose(raw.var((0, 2, 3)), 1, atol=0.2)
    kept = fastgan.load("run", network="encoder")[-1]
    assert torch.equal(kept.running_var, norm.running_var)


def test_reconstructions_bound_the_samples(monkeypatch):
    """What is said of a run, and L1 and PSNR of a decoder that is known."""
    with trainer("run") as run:
        run.fit(FIRST + 1)
    reals = fastgan.data.open("few.npz", size=16, channels=3)
    found = reconstruction(Subject("run", reals))
    assert set(found) == {"L1 of reconstructions", "their PSNR in dB", "their FD-small"}

    class Grey(torch.nn.Module):
        def forward(self, maps):
            return torch.zeros(len(maps), 3, 16, 16)

    monkeypatch.setattr(
        "fastgan.trainer.reuse.subject.load",
        lambda path, network, **rest: Grey() if network == "G" else torch.nn.Identity(),
    )
    far = reconstruction(Subject("run", reals))
    assert far["L1 of reconstructions"] == pytest.approx(0.25, abs=0.01)
    assert far["their PSNR in dB"] == pytest.approx(10 * np.log10(12), abs=0.2)


def test_every_command_takes_such_a_run(tmp_path, capsys):
    def command(*args):
        with pytest.raises(SystemExit) as done:
            cli.main([str(a) for a in args])
        out, err = capsys.readouterr()
        assert not done.value.code, err
        return out

    few = ["--data=few.npz", "--batch-size=4", "--device=cpu", "--steps=3", "--size=16"]
    few += ["--no-watch", *flags("latent")]
    assert "network encoder" in command("train", "--recipe=latent", *few, "--dry-run")
    command("train", "--recipe=latent", *few, "--out=run")
    found = json.loads(command("evaluate", "run", "--n=100", "--json"))
    assert "their FD-small" in found["measures"]
    told = command("export", "run", "--format=torch", "--out=made.pt2")
    assert "largest difference to the run's images" in told
    command("export", "run", "--format=folder", "--out=made")
    with torch.no_grad():
        assert fastgan.load("made")(torch.randn(2, 8)).shape == (2, 3, 16, 16)
    command("interpolate", "run", "--out=walk.gif", "--frames=2", "--keys=2")
    assert "body.0" in command("directions", "run", "--which=1")
    command("report", "run")


def test_sizes_that_can_not_be_halved_name_the_nearest():
    assert [models.plan(size) for size in (16, 28, 32, 48, 64, 96, 128)] == [
        (8, 1),
        (7, 2),
        (8, 2),
        (6, 3),
        (8, 3),
        (12, 3),
        (16, 3),
    ]
    for size in (8, 33, 100, 256):
        with pytest.raises(fastgan.FastganError, match=f"{size}x{size} images: use --size"):
            models.plan(size)
    for size in (16, 28, 48, 96):
        shape = (size, 3, 4, 2)
        images = models.Decoder(*shape)(models.Encoder(*shape)(torch.rand(2, 3, size, size)))
        assert images.shape == (2, 3, size, size)
        G = models.Generator(*shape, 8, 4)
        maps = G.make_maps(torch.randn(2, 8))
        assert maps.shape[2] == models.plan(size)[0]
        assert models.MapDiscriminator(size, 4, 4)(maps).shape == (2, 1)


def test_frozen_networks_stay_so_in_copies_and_modes():
    encoder = copy.deepcopy(models.FrozenEncoder(16, 3, 2, 4)).train()
    G = copy.deepcopy(models.Generator(16, 3, 2, 4, 8, 4)).train()
    assert not any(m.training for m in [*encoder.modules(), *G.decoder.modules()])
    assert not any(p.requires_grad for p in [*encoder.parameters(), *G.decoder.parameters()])
    assert all(p.requires_grad for p in G.body.parameters())
