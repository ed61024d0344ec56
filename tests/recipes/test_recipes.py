"""Recipes: the published networks, options from defaults, file and flags, and a short run of
each."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import fastgan
from fastgan import recipes
from fastgan.models import dcgan, mlp, resnet
from fastgan.recipes import ImageSpec
from fastgan.recipes.config import merge
from fastgan.recipes.training import make_trainer
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


TINY = {
    "gan": {"hidden_g": 8, "hidden_d": 8, "batch_size": 4},
    "dcgan": {"base_width": 2, "latent": 8},
    "cgan": {"base_width": 2, "latent": 8},
    "sngan": {"width_g": 2, "width_d": 2, "latent": 8, "n_critic": 2},
    "wgan-gp": {"width": 2, "latent": 8, "n_critic": 2},
}


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_each_recipe_trains_and_loads(name, tmp_path):
    config = recipes.find(name)(size=16, log_every=1, **{"batch_size": 4, **TINY[name]})
    trainer = make_trainer(
        dataclasses.replace(config, data=Labelled(16), progress=False),
        resume=False,
        log=None,
        out=str(tmp_path / "run"),
    )
    trainer.fit(2)
    trainer.close()
    images = fastgan.sample(tmp_path / "run", 3, seed=1)
    assert images.shape == (3, 3, 16, 16)
    assert fastgan.load(tmp_path / "run").training is False
    (first, second) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert '"loss/D"' in first
    assert '"step": 2' in second


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
    "wgan-gp": {"width": 8, "batch_size": 4, "size": 16, "n_critic": 1},
}
"""Widths, batch, pixels and updates of D; everything else is the recipe's own. gan, the one of SGD,
is tried whole."""


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_defaults_train(name):
    """Three seeds stay finite on the bundled data: 200 steps of gan, which used to diverge by step
    90, 60 of the others."""
    for seed in range(3):
        options = {"seed": seed, "log_every": 10, "device": "cpu", "progress": False}
        config = recipes.find(name)(**options, **REDUCED.get(name, {}))
        with make_trainer(config, resume=False, log=None, out=None) as trainer:
            trainer.fit(200 if name == "gan" else 60)


def test_the_original_gans_discriminator_learns_at_half_the_rate():
    """Its loss is half the sum of two (goodfeli/adversarial), ours is the sum."""
    config = recipes.find("gan")()
    schedules = config.build(ImageSpec(8, 1)).schedules
    assert [schedules[name]["lr"](0) for name in "GD"] == [0.1, 0.05]
    assert [schedules[name]["lr"](10**9) for name in "GD"] == [1e-6, 0.5e-6]
