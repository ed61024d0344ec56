"""Every kind of GAN trains, samples and resumes on one engine: the programs of docs/examples, with
public names only."""

import functools
import importlib.util
import inspect
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fastgan
from fastgan.data import Aligned

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@functools.cache
def example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def pictures(seed, n=40, size=16):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 1), np.uint8)


def attack(module, **options):
    target = module.classifier(4)
    target(torch.zeros(1, 1, 16, 16))  # a lazy layer takes its size
    data = Aligned(image=pictures(0), label=np.arange(40) % 10)
    return module.make_trainer(data, target, width=4, **options)


KINDS = {
    "own_networks": lambda m, **o: m.make_trainer(pictures(0, size=28), width=4, **o),
    "wgan_gp": lambda m, **o: m.make_trainer(pictures(0), size=16, width=16, **o),
    "pix2pix": lambda m, **o: m.make_trainer(pictures(0), pictures(1), width=4, **o),
    "simgan": lambda m, **o: m.make_trainer(
        pictures(0), m.simulated(pictures(1)), size=16, width=4, **o
    ),
    "advgan": attack,
    "pyramid": lambda m, **o: m.make_trainer(pictures(0), steps=4, width=8, **o),
}


def make(kind, **options):
    torch.manual_seed(3)
    quiet = {
        "progress": False,
        "watch": False,
        "batch_size": 8,
        "log_every": 3,
        "checkpoint_every": 100,
        "sample_every": 100,
    }
    return KINDS[kind](example(kind), **{**quiet, **options})


def state_of(trainer):
    tensors = {}
    for kind, nets in (("nets", trainer.nets), ("ema", trainer.ema)):
        tensors |= {
            f"{kind}/{name}/{key}": value.clone()
            for name, net in nets.items()
            for key, value in net.state_dict().items()
        }
    for name, optimizer in trainer.optimizers.items():
        for i, entries in optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer/{name}/{i}/{key}": torch.as_tensor(value).clone()
                for key, value in entries.items()
            }
    return tensors


@pytest.mark.parametrize("kind", KINDS)
def test_kind_trains_samples_and_resumes_exactly(kind, tmp_path):
    straight = make(kind, out=tmp_path / "straight")
    before = state_of(straight)
    straight.fit(7)
    changed = {
        key.split("/")[1]
        for key, value in state_of(straight).items()
        if key in before and not torch.equal(value, before[key])
    }
    trained = {
        name
        for stage in straight.stages[-1:]
        for phase in stage.objective.phases()
        for name in phase.trains
    }
    assert kind == "pyramid" or trained <= changed

    first = make(kind, out=tmp_path / "parts")
    first.fit(5)
    first.close()
    second = make(kind, out=tmp_path / "parts", resume=True)
    assert second.step == 5
    second.fit(7)
    expected, found = state_of(straight), state_of(second)
    assert expected.keys() == found.keys()
    for key in expected:
        assert torch.equal(expected[key], found[key]), key

    images = second.sample(5)
    assert images.shape[0] == 5
    assert images.dtype == torch.float32
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    assert torch.equal(images, straight.sample(5))
    straight.close()
    second.close()


def objectives_in(name):
    module = example(name)
    return [
        c
        for c in vars(module).values()
        if inspect.isclass(c)
        and issubclass(c, fastgan.Objective)
        and c.__module__ == module.__name__
    ]


@pytest.mark.parametrize("name", ["wgan_gp", "pix2pix", "pyramid", "simgan", "advgan"])
def test_objectives_are_short_and_use_public_names_only(name):
    source = (EXAMPLES / f"{name}.py").read_text()
    assert "engine" not in source
    assert not re.search(r"\._[a-z]", source)
    (objective,) = objectives_in(name)
    assert len(inspect.getsource(objective).splitlines()) <= 40


def test_own_loop_runs():
    example("own_loop").main(pictures(0), steps=3, batch_size=8, width=8)


def test_wrong_phase_names_are_refused():
    class Wrong(fastgan.Objective):
        def phases(self):
            return [fastgan.Phase("D", ("critic",), lambda step: {})]

    net = torch.nn.Linear(1, 1)
    with pytest.raises(
        fastgan.FastganError, match="trains 'critic', which is not among the networks: G, D"
    ):
        fastgan.Trainer(net, net, objective=Wrong(), data=pictures(0), progress=False)


class Scores(torch.nn.Module):
    """A discriminator whose registration order tells nothing of the order of its computation."""

    def __init__(self, function=None, gate=False):
        super().__init__()
        nn = torch.nn
        self.act = nn.Sigmoid() if gate else nn.Identity()
        self.first, self.out = nn.Conv2d(1, 4, 4, 2, 1), nn.Conv2d(4, 1, 8)
        self.gate = (
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid())
            if gate
            else None
        )
        self.function = function

    def forward(self, x):
        h = torch.relu(self.first(x))
        h = self.out(h if self.gate is None else self.act(h) * self.gate(h))
        return h if self.function is None else self.function(h)


def training(G, D):
    objective = fastgan.Adversarial(latent_shape=(2, 1, 1))
    return fastgan.Trainer(
        G, D, objective=objective, data=pictures(0), batch_size=8, device="cpu", progress=False
    )


def maker(end):
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(2, 256), torch.nn.Unflatten(1, (1, 16, 16)), end
    )


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (torch.sigmoid, "Sigmoid"),
        (lambda h: torch.sigmoid_(h).flatten(1).double().squeeze(1), "Sigmoid"),
        (lambda h: h.sigmoid().mean((1, 2, 3)), "Sigmoid"),
        (lambda h: h.flatten(1).softmax(1), "Softmax"),
    ],
)
def test_discriminators_that_give_probabilities_are_refused(function, named):
    with pytest.raises(fastgan.FastganError, match=f"discriminator ends in {named}"):
        training(maker(torch.nn.Tanh()), Scores(function))


@pytest.mark.parametrize(
    "function", [None, lambda h: h.flatten(1), lambda h: torch.sigmoid(h) * 4 - 2]
)
def test_sigmoids_elsewhere_in_a_discriminator_are_no_ones_business(function):
    training(maker(torch.nn.Tanh()), Scores(function, gate=True))


@pytest.mark.parametrize("end", [torch.nn.Sigmoid(), torch.nn.ReLU(), torch.nn.Softmax(1)])
def test_generators_that_make_only_the_bright_half_are_refused(end):
    with pytest.raises(
        fastgan.FastganError, match=f"generator ends in {type(end).__name__.title()}"
    ):
        training(maker(end), Scores())


def test_a_generator_of_the_wrong_size_is_named():
    with pytest.raises(fastgan.FastganError, match=r"makes 28x28x1 .* the data are 16x16x1"):
        fastgan.Trainer(
            example("own_networks").generator(width=2),
            torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3)),
            data=pictures(0),
            progress=False,
        )


def test_aligned_streams_stay_aligned():
    images = pictures(0)
    trainer = make("pix2pix")
    batch = trainer.active.batch(0)
    index = [
        int(
            np.argmin(
                [np.abs(images[i, :, :, 0] / 127.5 - 1 - b[0].numpy()).sum() for i in range(40)]
            )
        )
        for b in batch["image"]
    ]
    expected = torch.from_numpy(pictures(1)[index]).permute(0, 3, 1, 2) / 127.5 - 1
    assert torch.allclose(batch["source"], expected, atol=1e-5)
    assert Aligned is fastgan.data.Aligned
