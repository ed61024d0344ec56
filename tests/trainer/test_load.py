"""A finished run used again: its generator, its images."""

import json
import os
import subprocess
import sys

import own_networks
import pytest
import torch
from run_support import discriminator, generator, images, in_a_hurry, mlp_pair, tiny
from torch import nn

import fastgan
from fastgan.objectives import Adversarial
from fastgan.runs.serialize import rebuild, serialize, serialize_network

LATENT = torch.randn(3, 4, 1, 1, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    in_a_hurry(monkeypatch)


def trained(path, steps=3, **options):
    """The run at `path` after a few steps, and what its averaged generator made of LATENT."""
    torch.manual_seed(1)
    with tiny(path, **options) as trainer:
        trainer.fit(steps)
        with torch.no_grad():
            return trainer.ema["G"](LATENT), trainer.sample(5)


MAKERS = {
    "sequential": generator,
    "kept-arguments": lambda: own_networks.Kept(4, width=3, slope=0.1),
    "kept-module": lambda: own_networks.Kept(4, act=nn.Softsign()),
    "linear": lambda: mlp_pair()["G"],
    "many-layers": lambda: nn.Sequential(
        nn.Conv2d(4, 4, 1, bias=False),
        nn.Upsample(scale_factor=2.0, mode="bilinear"),
        nn.InstanceNorm2d(4, affine=True),
        nn.PReLU(4),
        nn.Conv2d(4, 16, 3, padding="same", padding_mode="reflect", groups=2),
        nn.PixelShuffle(2),
        nn.GroupNorm(2, 4),
        nn.Dropout2d(0.3),
        nn.ConvTranspose2d(4, 1, 3, 2, 1, output_padding=1),
        nn.Hardtanh(-0.9, 0.9),
    ),
    "nested": lambda: nn.Sequential(nn.Sequential(generator()), nn.Identity()),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_networks_are_made_again(kind, tmp_path):
    expected, images = trained(tmp_path / "run", nets={"G": MAKERS[kind](), "D": discriminator()})
    torch.manual_seed(5)
    before = torch.get_rng_state()
    loaded = fastgan.load(tmp_path / "run", trust=True)
    assert torch.equal(torch.get_rng_state(), before), (
        "loading disturbs the caller's random numbers"
    )
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    # the loaded network is contiguous, the trained one channels_last: sums in another order, so a
    # few units in the last place
    torch.testing.assert_close(loaded(LATENT), expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(
        fastgan.sample(tmp_path / "run", 5, device="cpu", trust=True), images, rtol=0, atol=2e-6
    )


NOT_AGAIN = {
    "lost": (
        lambda: own_networks.Lost(4),
        "takes 'width', but the object keeps no attribute of that name",
    ),
    "renamed": (lambda: own_networks.Renamed(0.5), "differs in factor: 1.0 for 0.5"),
    "hidden": (lambda: own_networks.Deep(0.5), "differs in net.1.negative_slope: 0.2 for 0.5"),
    "local": (lambda: local_class()(), "is local to a function"),
    "parametrized": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.ConvTranspose2d(4, 1, 8)), nn.Tanh()
        ),
        "parametrized",
    ),
}


def local_class():
    class Local(nn.Sequential):
        def __init__(self):
            super().__init__(*generator())

    return Local


@pytest.mark.parametrize("kind", NOT_AGAIN)
def test_what_can_t_be_made_again_is_named_with_the_remedy(kind, tmp_path):
    make, why = NOT_AGAIN[kind]
    expected, _ = trained(tmp_path / "run", nets={"G": make(), "D": discriminator()})
    for use in (
        lambda: fastgan.load(tmp_path / "run"),
        lambda: fastgan.sample(tmp_path / "run", device="cpu"),
    ):
        with pytest.raises(fastgan.FastganError) as error:
            use()
        assert why in str(error.value)
        assert "load(path, generator=net)" in str(error.value)
        assert "\n" not in str(error.value)
    loaded = fastgan.load(tmp_path / "run", generator=make())
    torch.testing.assert_close(loaded(LATENT), expected, rtol=0, atol=2e-6)


def test_a_default_that_was_used_is_no_difference():
    assert "spec" in serialize_network(own_networks.Renamed())
    assert "spec" in serialize_network(own_networks.Deep())
    assert "spec" in serialize_network(own_networks.Prepared())
    assert "spec" in serialize_network(own_networks.Measured())


def test_a_module_of_ones_own_is_imported_with_memory(tmp_path, monkeypatch):
    """Not while networks are made without."""
    code = (
        "import torch\nfrom torch import nn\nTWO = torch.tensor([2.0])\n"
        "class Doubling(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.net = nn.Conv2d(4, 1, 1)\n"
        "    def forward(self, z):\n        return self.net(z).repeat(1, 1, 8, 8) * TWO\n"
    )
    (tmp_path / "doubling_network.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    from doubling_network import Doubling

    expected, _ = trained(tmp_path / "run", nets={"G": Doubling(), "D": discriminator()})
    del sys.modules["doubling_network"]
    loaded = fastgan.load(tmp_path / "run", trust=True)
    torch.testing.assert_close(loaded(LATENT), expected, rtol=0, atol=2e-6)


def test_another_network_another_step_other_weights(tmp_path):
    trained(tmp_path / "run", steps=12)
    run = tmp_path / "run"
    assert [tuple(p.shape) for p in fastgan.load(run, network="D").parameters()] == [
        tuple(p.shape) for p in discriminator().parameters()
    ]
    newest, older = fastgan.load(run)[0].weight, fastgan.load(run, step=6)[0].weight
    live = fastgan.load(run, ema=False)[0].weight
    assert not torch.equal(newest, older)
    assert not torch.equal(newest, live)
    for wrong, named in (({"step": 7}, "there are 0, 6, 12"), ({"network": "Q"}, "there are G, D")):
        with pytest.raises(fastgan.FastganError, match=named):
            fastgan.load(run, **wrong)
    with pytest.raises(fastgan.FastganError, match=r"0\.weight is"):
        fastgan.load(run, generator=generator(7))
    with pytest.raises(fastgan.FastganError, match="is not a run"):
        fastgan.load(tmp_path)


def test_a_class_of_another_script_is_named(tmp_path):
    trained(tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    facts["stages"][0]["nets"]["G"] = {"spec": {"$object": "__main__:Gone", "args": {}}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    with pytest.raises(
        fastgan.FastganError, match=r"can't find __main__:Gone .*load\(path, generator=net\)"
    ):
        fastgan.load(tmp_path / "run", trust=True)


@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", "builtins:eval"])
def test_even_a_run_that_is_trusted_calls_nothing_but_networks(name, tmp_path):
    with pytest.raises(fastgan.FastganError, match="no network, objective or dataclass"):
        rebuild({"$object": name, "args": {"command": f"touch {tmp_path}/harm"}}, {})
    assert os.listdir(tmp_path) == []


def test_objectives_are_made_again():
    objective = Adversarial("hinge", (4, 1, 1), r1=2.0, lazy_r1=4, n_critic=2)
    assert rebuild(json.loads(json.dumps(serialize(objective)))) == objective


def test_samples_are_a_function_of_seed_and_index(tmp_path):
    run = tmp_path / "run"
    trained(run, seed=4)
    many = fastgan.sample(run, 70, seed=9, device="cpu")
    assert many.shape == (70, 1, 8, 8)
    assert many.dtype == torch.float32
    assert 0 <= float(many.min()) < float(many.max()) <= 1
    for n in (1, 5, 64, 66):
        assert torch.equal(fastgan.sample(run, n, seed=9, device="cpu"), many[:n])
    assert not torch.equal(fastgan.sample(run, 5, seed=8, device="cpu"), many[:5])
    assert len({tuple(image.flatten().tolist()) for image in many}) == 70
    assert torch.equal(
        fastgan.sample(run, 3, device="cpu"), fastgan.sample(run, 3, seed=4, device="cpu")
    )


def test_sampling_while_training_disturbs_nothing(tmp_path):
    results = []
    for interrupt in (False, True):
        torch.manual_seed(1)
        with tiny(None) as trainer:
            for step in (2, 5, 9):
                trainer.fit(step)
                if interrupt:
                    trainer.sample(3, seed=step)
                    assert trainer.nets["G"].training
            results.append(
                torch.cat([p.flatten() for p in trainer.nets["G"].parameters()]).detach()
            )
    assert torch.equal(*results)


class Labelled(nn.Module):
    def __init__(self, net, inputs):
        super().__init__()
        self.net, self.inputs, self.label = net, inputs, nn.Embedding(3, inputs)

    def forward(self, x, label):
        return self.net(
            x + self.label(label).view(len(x), *([-1, 1, 1] if x.shape[1] == 4 else [1, 8, 8]))
        )


def test_labels(tmp_path):
    run = tmp_path / "run"
    with tiny(
        run,
        nets={"G": Labelled(generator(), 4), "D": Labelled(discriminator(), 64)},
        objective=Adversarial("hinge", (4, 1, 1), conditional=True),
        data=fastgan.data.open(images(), labels=[i % 3 for i in range(21)]),
    ) as trainer:
        trainer.fit(2)
        expected = trainer.sample(4, labels=[2, 2, 0, 1])
    sample = lambda n, **options: fastgan.sample(run, n, device="cpu", trust=True, **options)
    torch.testing.assert_close(sample(4, labels=[2, 2, 0, 1]), expected, rtol=0, atol=2e-6)
    assert torch.equal(sample(4, labels=2)[:2], sample(4, labels=[2, 2, 0, 1])[:2])
    assert torch.equal(sample(4), sample(4, labels=[0, 1, 2, 0]))
    for wrong in (3, -1, [0, 1]):
        with pytest.raises(fastgan.FastganError, match="label"):
            sample(4, labels=wrong)
    trained(tmp_path / "plain")
    with pytest.raises(fastgan.FastganError, match="2 labels for 4 images"):
        trainer.sample(4, labels=[0, 1])
    with pytest.raises(fastgan.FastganError, match="trained without labels"):
        fastgan.sample(tmp_path / "plain", 4, labels=1, device="cpu")


def test_a_stage_that_is_under_way_is_the_one_that_is_loaded(tmp_path):
    g = generator()
    stages = [
        fastgan.Stage({"G": g, "D": discriminator()}, Adversarial("hinge", (4, 1, 1)), steps=2),
        fastgan.Stage({"G": g, "D": discriminator()}, Adversarial("minimax", (4, 1, 1))),
    ]
    torch.manual_seed(1)
    with tiny(tmp_path / "run", stages=stages) as trainer:
        trainer.fit(4)
        expected = trainer.sample(3)
    torch.testing.assert_close(
        fastgan.sample(tmp_path / "run", 3, device="cpu"), expected, rtol=0, atol=2e-6
    )


def test_a_network_with_spectral_norm_is_made_again_without_importing_the_compiler():
    """Which takes longer than all the rest of a command's start."""
    code = (
        "import sys; from fastgan.models.fastgan import Discriminator; "
        "from fastgan.trainer.reuse import load; "
        "from fastgan.runs.serialize import serialize_network; "
        "assert 'spec' in serialize_network(Discriminator(32, 3, 4)); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
