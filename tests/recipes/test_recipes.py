"""Recipes: the published networks, options from defaults, file and flags, and a short run of
each."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_recipes import TINY
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import fastgan
from fastgan import recipes
from fastgan.models import dcgan, mlp, resnet
from fastgan.models import fastgan as light
from fastgan.recipes import ImageSpec
from fastgan.recipes.config import merge
from fastgan.recipes.training import make_trainer
from fastgan.recipes.translation.base import FromImage
from fastgan.trainer.optimization.scheduled_options import ScheduledOptions


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_dcgan64_is_the_tutorials():
    assert count(dcgan.Generator(64, 3)) == 3_576_704
    assert count(dcgan.Discriminator(64, 3)) == 2_765_568


@pytest.mark.parametrize("size", [28, 32, 48, 64, 96, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_dcgan_fits_sizes_from_28_to_256(size, channels):
    G, D = dcgan.Generator(size, channels, 10, 2), dcgan.Discriminator(size, channels, 2)
    images = G(torch.randn(2, 10, 1, 1))
    assert images.shape == (2, channels, size, size)
    assert D(images).shape == (2, 1, 1, 1)


def test_dcgan_names_the_nearest_sizes():
    with pytest.raises(fastgan.FastganError, match=r"100x100 images: use --size 96 or 112"):
        dcgan.Generator(100)


def test_sngan_costs_what_the_paper_networks_cost():
    """1615.1 and 268.9 million multiply-adds an image (forward), CIFAR-10."""
    with FlopCounterMode(display=False) as g:
        resnet.Generator().eval()(torch.randn(1, 128))
    with FlopCounterMode(display=False) as d:
        resnet.Discriminator(spectral=False)(torch.randn(1, 3, 32, 32))
    assert g.get_total_flops() / 2e6 == pytest.approx(1615.1, abs=0.1)
    assert d.get_total_flops() / 2e6 == pytest.approx(268.9, abs=0.1)


def test_sngan_normalises_every_layer_of_d_and_none_of_g():
    D, G = resnet.Discriminator(16, 3, 4), resnet.Generator(16, 3, 8, 4)
    for layer in D.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            assert torch.nn.utils.parametrize.is_parametrized(layer, "weight")
    assert not any(torch.nn.utils.parametrize.is_parametrized(m) for m in G.modules())


def test_goodfellows_networks():
    G, D = mlp.Generator(), mlp.Discriminator()
    assert count(G) == 100 * 1200 + 1200 + 1200 * 1200 + 1200 + 1200 * 784 + 784
    assert count(D) == (784 * 240 + 240) * 5 + (240 * 240 + 240) * 5 + 241
    assert D(G(torch.rand(3, 100))).shape == (3, 1)


def test_maxout_is_the_largest_of_its_pieces():
    layer = mlp.Maxout(3, 4, 5)
    x = torch.randn(2, 3)
    pieces = (x @ layer.linear.weight.T + layer.linear.bias).view(2, 4, 5)
    assert torch.equal(layer(x), pieces.max(2).values)


class Labelled(torch.utils.data.Dataset):
    def __init__(self, size):
        self.images = np.random.default_rng(0).integers(0, 256, (30, size, size, 3), np.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], i % 3


FROM_NOISE = [n for n in recipes.RECIPES if not issubclass(recipes.find(n), FromImage)]
FROM_NOISE = [n for n in FROM_NOISE if recipes.find(n).makes == "images"]
"""The others are in test_from_images.py, test_tabular.py, test_voice.py and test_molecule.py."""


@pytest.mark.parametrize("name", FROM_NOISE)
def test_each_recipe_trains_and_loads(name, tmp_path):
    config = recipes.find(name)(log_every=1, steps=3, **{"size": 16, "batch_size": 4, **TINY[name]})
    source = config.data if config.generated else Labelled(config.size)
    trainer = make_trainer(
        dataclasses.replace(config, data=source, progress=False),
        resume=False,
        log=None,
        out=str(tmp_path / "run"),
    )
    trainer.fit(3)
    trainer.close()
    images = fastgan.sample(tmp_path / "run", 3, seed=1)
    assert images.shape == (3, 3, config.size, config.size)
    assert fastgan.load(tmp_path / "run").training is False
    last = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1]
    assert '"loss/D"' in last
    assert '"step": 3' in last


def test_fastgan_fits_its_sizes_and_excites_large_maps_by_small_ones():
    for size in (32, 64, 128, 256):
        G, D = light.Generator(size, 1, 8, 2).eval(), light.Discriminator(size, 1, 2).eval()
        made = G(torch.randn(2, 8, 1, 1))
        logits, features = D(made, True)
        assert made.shape == (2, 1, size, size)
        assert logits.shape == (2, 1, 5, 5)
        assert torch.equal(D(made), logits)
        assert light.Decoder(1, 2)(features).shape == (2, 1, 32, 32)
    assert sorted(map(int, G.excite)) == [64, 128, 256]
    gate = G.excite["256"](torch.zeros(1, 8, 16, 16), torch.ones(1, 4, 4, 4))
    assert gate.flatten().tolist() == [0.5] * 64
    with pytest.raises(fastgan.FastganError, match="not 48: use --size 32"):
        light.Generator(48)


def test_fastgans_discriminator_learns_to_draw_reals():
    config = recipes.find("fastgan")(width=2, latent=8, size=32, batch_size=4, log_every=1)
    data = np.full((8, 32, 32, 3), 230, np.uint8)
    config = dataclasses.replace(config, data=data, augment="none", lr=5e-3)
    with make_trainer(config, resume=False, log=None, out=None) as trainer:
        trainer.show_progress = False
        found = []
        for steps in (1, 15):
            trainer.fit(steps)
            with torch.no_grad():
                real = torch.full((4, 3, 32, 32), 230 / 127.5 - 1)
                drawn = trainer.nets["R"](trainer.nets["D"](real, True)[1])
            found.append(float((drawn - real).abs().mean()))
        assert trainer.stages[0].objective.augment == "none"
    assert found[1] < 0.6 * found[0]


def test_cgan_needs_labels():
    with pytest.raises(fastgan.FastganError, match="cgan needs labels"):
        recipes.find("cgan")().build(ImageSpec(16, 1, 0))


def test_cgan_listens_to_the_label():
    G = dcgan.ConditionalGenerator(16, 1, 8, 2, classes=3).eval()
    z = torch.randn(1, 8, 1, 1).expand(3, -1, -1, -1)
    images = G(z, torch.arange(3))
    assert (images[0] - images[1]).abs().max() > 0
    one_hot = dcgan.one_hot(torch.tensor([2, 0]), 3, torch.zeros(()))
    assert one_hot[:, :, 0, 0].tolist() == [[0, 0, 1], [1, 0, 0]]


def test_unknown_recipes_and_options_name_the_nearest():
    with pytest.raises(fastgan.FastganError, match="unknown recipe 'dcgna': did you mean 'dcgan'"):
        recipes.find("dcgna")
    with pytest.raises(
        fastgan.FastganError,
        match=r"my.toml: unknown option 'base_widht'; did you mean 'base_width'",
    ):
        merge(recipes.find("dcgan"), {"base_widht": 3}, "my.toml")
    with pytest.raises(fastgan.FastganError, match="steps must be a whole number, not 'many'"):
        merge(recipes.find("dcgan"), {"steps": "many"}, "my.toml")
    with pytest.raises(fastgan.FastganError, match=r"loss must be one of .*, not 'nice'"):
        merge(recipes.find("dcgan"), {"loss": "nice"}, "my.toml")


def test_averages_of_unknown_networks_are_refused():
    nets = dcgan.Generator(16, 3, 8, 2), dcgan.Discriminator(16, 3, 2)
    with pytest.raises(
        fastgan.FastganError, match="ema names 'X', which is not among the networks: G, D"
    ):
        fastgan.Trainer(
            *nets,
            data=Labelled(16),
            latent_shape=(8, 1, 1),
            batch_size=4,
            ema=["X"],
            progress=False,
        )


def test_schedules_reach_the_optimisers():
    built = recipes.find("gan")(lr=0.1, momentum_steps=100).build(ImageSpec(8, 1))
    optimizer = built.optimizers["G"](list(built.nets["G"].parameters()))
    ScheduledOptions({"G": built.schedules["G"]}, {"G": optimizer}).apply(50)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 1.000004**50)
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.6)


REDUCED = {
    "dcgan": {"base_width": 8, "batch_size": 8, "size": 16},
    "cgan": {"base_width": 8, "batch_size": 8, "size": 16},
    "sngan": {"width_g": 8, "width_d": 8, "batch_size": 4, "size": 16, "n_critic": 1},
    "fastgan": {"width": 2, "batch_size": 4, "size": 32},
    "wgan-gp": {"width": 8, "batch_size": 4, "size": 16, "n_critic": 1},
    "infogan": {"base_width": 4, "batch_size": 8, "size": 16},
    "sagan": {"width": 4, "batch_size": 4, "size": 16},
    "biggan-small": {"width": 4, "batch_size": 4, "size": 16, "n_critic": 1},
    "progressive": {"width": 4, "most": 8, "batch_size": 8, "size": 16, "stage_steps": 15},
    "lapgan": {"width": 4, "hidden": 16, "batch_size": 8, "size": 16},
    "latent": {"width": 4, "base": 8, "batch_size": 8, "size": 16, "stage_steps": 20},
    "text-to-image": {"width": 4, "batch_size": 8, "size": 8},
    "r3gan": {"width": 4, "batch_size": 8, "size": 16},
    "projected": {"width": 1, "heads": 4, "seen": 32, "batch_size": 4, "size": 32},
    "stylegan2-small": {"width": 4, "most": 8, "batch_size": 4, "size": 16},
    "semi-supervised": {"width": 16, "hidden": 32, "size": 8},
}
"""Widths, batch, pixels and updates of D; everything else is the recipe's own. gan, the one of SGD,
is tried whole."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2))])
@pytest.mark.parametrize("name", FROM_NOISE)
def test_defaults_train(name, seed):
    """A run on the bundled data stays finite: 120 steps of gan, which used to diverge by step 90,
    60 of the others."""
    options = {"seed": seed, "log_every": 10, "device": "cpu", "progress": False}
    config = recipes.find(name)(**options, **REDUCED.get(name, {}))
    with make_trainer(config, resume=False, log=None, out=None) as trainer:
        trainer.fit(120 if name == "gan" else 60)


def test_the_original_gans_discriminator_learns_at_half_the_rate():
    """Its loss is half the sum of two (goodfeli/adversarial), ours is the sum."""
    config = recipes.find("gan")()
    schedules = config.build(ImageSpec(8, 1)).schedules
    assert [schedules[name]["lr"](0) for name in "GD"] == [0.1, 0.05]
    assert [schedules[name]["lr"](10**9) for name in "GD"] == [1e-6, 0.5e-6]
