"""Reals and fakes as one batch: equal to two calls, and taken only where that is so."""

import copy
import re

import pytest
import torch
from torch import nn

import fastgan
from fastgan.acceleration import accelerate
from fastgan.distributed.context import DistributedContext
from fastgan.models.dcgan import ConditionalDiscriminator, Discriminator, Generator
from fastgan.models.mlp import Discriminator as Perceptron
from fastgan.models.resnet import Discriminator as Critic
from fastgan.ops.norm.modules import ConditionalBatchNorm2d
from fastgan.ops.norm.sync import SyncBatchNorm
from fastgan.trainer.step import pairing

CPU = torch.device("cpu")
SHAPE = (3, 16, 16)


class ByClass(nn.Module):
    """Class-conditional batch norm, and two outputs in a dict."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 4, 2, 1), ConditionalBatchNorm2d(4, 5)
        nn.init.normal_(self.norm.gamma.weight)

    def forward(self, x, label):
        x = self.norm(self.conv(x), label).relu()
        return {"map": x.mean(1), "score": (x.mean((1, 2, 3)), None)}


class Deviation(nn.Module):
    """The minibatch standard deviation of progressive GANs (Karras et al. 2018) before a layer that
    begins at zero."""

    def __init__(self, group=4):
        super().__init__()
        self.group, self.conv, self.last = group, nn.Conv2d(3, 4, 4, 2, 1), nn.Conv2d(5, 1, 8)
        nn.init.zeros_(self.last.weight)

    def forward(self, x):
        x = nn.functional.leaky_relu(self.conv(x), 0.2)
        y = x.view(min(self.group, len(x)), -1, 1, *x.shape[1:])
        y = (
            (y - y.mean(0))
            .square()
            .mean(0)
            .add(1e-8)
            .sqrt()
            .mean((2, 3, 4), keepdim=True)
            .squeeze(2)
        )
        return self.last(torch.cat([x, y.repeat(len(x) // len(y), 1, 8, 8)], 1))


class Counting(nn.Module):
    """Counts its calls."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(768, 1))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls += 1
        return self.body(x)


class Packing(nn.Module):
    """Two samples make one (PacGAN)."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(2 * 768, 1)

    def forward(self, x):
        return self.last(x.view(len(x) // 2, -1))


def without_norm():
    return nn.Sequential(
        nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 8), nn.Flatten(0)
    )


def frozen_norm():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3))
    net[1].eval()
    return net


NETWORKS = {
    "dcgan": lambda: accelerate(Discriminator(16, 3, 4)),
    "cumulative": lambda: accelerate(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.ReLU())
    ),
    "on load": lambda: edged("on_load"),
    "moments": lambda: edged("moments"),
    "labelled": lambda: accelerate(ConditionalDiscriminator(16, 3, 4, classes=5)),
    "by class": ByClass,
    "no norm": without_norm,
    "critic": lambda: Critic(16, 3, 8, spectral=False),
    "perceptron": lambda: Perceptron(16, 3, 6, dropout=0.0),
    "frozen norm": frozen_norm,
    "instance": lambda: accelerate(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.ReLU())
    ),
}


def edged(edge):
    net = accelerate(Discriminator(16, 3, 4))
    net.edge = edge
    return net


def halves_of(name, seed=0):
    torch.manual_seed(seed)
    net = NETWORKS[name]()
    real, fake = torch.randn(6, *SHAPE) * 0.5 + 0.3, torch.randn(6, *SHAPE)
    label = (torch.arange(6) % 5,) if name in ("labelled", "by class") else ()
    return net, real, fake, label


def loss_of(both):
    return sum(
        (t.float() * torch.linspace(-1, k, t.numel()).view_as(t)).square().sum()
        for k, t in enumerate(pairing._tensors(both))
    )


def close(found, expected):
    """Up to the rounding of sums of 2 B samples against two of B, 1e-5 relative to the largest
    tensor a layer passes on."""
    largest = max(e.norm() for e in expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert (a - b).norm() <= 1e-5 * max(b.norm(), 0.1 * largest)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_pass_is_two(name):
    """Outputs, gradients and buffers after two rounds; buffers move real first."""
    net, real, fake, label = halves_of(name)
    twin = copy.deepcopy(net)
    assert pairing.why_two(net) is None
    assert pairing.differs(net, real, fake, *label) is None
    for shift in (0.0, 0.5):
        one, two = (
            pairing.one_pass(net, real + shift, fake, *label),
            (twin(real + shift, *label), twin(fake, *label)),
        )
        close(list(pairing._tensors(one)), list(pairing._tensors(two)))
        loss_of(one).backward()
        loss_of(two).backward()
    close([p.grad for p in net.parameters()], [p.grad for p in twin.parameters()])
    mine, theirs = dict(net.named_buffers()), dict(twin.named_buffers())
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(mine[key], value, rtol=1e-5, atol=1e-6)
        if key.endswith("num_batches_tracked") and name != "frozen norm":
            assert mine[key] == 4


def test_statistics_are_those_of_each_half():
    """Halves of very different means: with statistics over both, no output would come near."""
    net = accelerate(nn.Sequential(nn.BatchNorm2d(3, momentum=1.0)))
    real, fake = torch.randn(6, *SHAPE) + 50, torch.randn(6, *SHAPE) * 9
    one, other = pairing.one_pass(net, real, fake)
    for half in (one, other):
        assert half.mean((0, 2, 3)).abs().max() < 1e-4
        assert (half.var((0, 2, 3)) - 1).abs().max() < 1e-2
    torch.testing.assert_close(
        net[0].running_mean, fake.mean((0, 2, 3)), atol=1e-4, rtol=1e-4
    )  # the fake came last


def compiled():
    net = without_norm()
    net.compile()  # nothing is compiled before a call
    return net


def spectral():
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), nn.ReLU())


def hooked():
    net = without_norm()
    net[1].register_forward_hook(lambda *_: None)
    return net


class Mixing(nn.Module):
    def forward(self, x):
        return (x - x.mean(0)).mean((1, 2, 3))


class Drawing(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5).mean((1, 2, 3))


REFUSED = {
    "deviation": (Deviation, "its outputs depend on the other samples"),
    "mixing": (Mixing, "its outputs depend on the other samples"),
    "drawing": (Drawing, "drawn at random"),
    "packing": (Packing, "no rows by sample"),
    "counting": (Counting, "its buffer calls moves with every call"),
    "PyTorch's norm": (
        lambda: Discriminator(16, 3, 4),
        r"BatchNorm2d 3 takes its statistics over the whole batch",
    ),
    "across ranks": (
        lambda: nn.Sequential(SyncBatchNorm(3)),
        "SyncBatchNorm 0 takes its statistics",
    ),
    "spectral": (spectral, "the spectral norm of 0"),
    "spectral, swapped": (lambda: accelerate(spectral()), "the spectral norm of 0"),
    "older spectral": (
        lambda: nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, 4, 3))),
        "the spectral norm of 0",
    ),
    "compiled": (compiled, "it is compiled"),
    "hook": (hooked, "LeakyReLU 1 has a hook"),
    "tracking instance": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True)),
        "its buffer 1.running_mean moves with every call",
    ),
}


def decided(net, objective=None, **options):
    """What `decide` says of D; networks and generators must be as they were."""
    batch = {"image": torch.rand(pairing.SAMPLES, *SHAPE) * 2 - 1}
    nets = {"G": Generator(16, 3, 8, 2), "D": net}
    before = (
        copy.deepcopy({name: n.state_dict() for name, n in nets.items()}),
        torch.get_rng_state(),
    )
    found = pairing.decide(
        objective or fastgan.Adversarial(latent_shape=(8, 1, 1)),
        nets,
        batch,
        seed=3,
        device=CPU,
        **options,
    )
    assert torch.equal(torch.get_rng_state(), before[1])
    for name, state in before[0].items():
        assert all(torch.equal(value, state[key]) for key, value in nets[name].state_dict().items())
        assert all(p.grad is None for p in nets[name].parameters())
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_two_passes_where_one_would_differ(name):
    torch.manual_seed(0)
    make, why = REFUSED[name]
    found = decided(make())
    assert found.keys() == {"D"}
    assert found["D"] is not None
    assert re.search(why, found["D"]), found["D"]


@pytest.mark.parametrize("name", ["dcgan", "no norm", "critic", "perceptron", "instance"])
def test_the_trial_lets_one_pass_be(name):
    torch.manual_seed(0)
    options = (
        {"r1": 1.0} if name == "no norm" else {"gp": 1.0, "n_critic": 3} if name == "critic" else {}
    )
    found = decided(NETWORKS[name](), fastgan.Adversarial("relativistic", (8, 1, 1), **options))
    assert found == {"D": None}


def test_all_ranks_do_as_the_one_that_needs_two():
    class Others(DistributedContext):
        def largest(self, value):
            return 1

    assert decided(without_norm(), ranks=Others()) == {"D": "another process needs two"}


def test_dropout_modules_are_left_out_of_the_trial():
    assert decided(Perceptron(16, 3, 6)) == {"D": None}


def test_a_loss_that_writes_over_its_logits_keeps_two_passes():
    class InPlace(fastgan.Adversarial):
        def d_loss(self, step):
            real, fake = step.pair("D", step.batch["image"], step.fake)
            return {"adv": real.sub_(1).square().mean() + fake.square().mean()}

    assert (
        "the trial raised RuntimeError"
        in decided(without_norm(), InPlace(latent_shape=(8, 1, 1)))["D"]
    )


@pytest.mark.parametrize(
    ("real", "fake", "conditions"),
    [
        (torch.zeros(2, 768), torch.zeros(3, 768), ()),
        (torch.zeros(2, 768), torch.zeros(2, 768), (torch.zeros(5),)),
    ],
)
def test_what_makes_no_batch_is_not_called(real, fake, conditions):
    def never(*_):
        raise AssertionError

    assert pairing.one_pass(never, real, fake, *conditions) is None
