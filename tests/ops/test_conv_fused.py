"""Folding, drop-in modules and fused containers against torch.nn, value by value and gradient by
gradient, in float64."""

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from fastgan.acceleration import accelerate
from fastgan.acceleration.edges import EDGES, chains
from fastgan.errors import FastganError
from fastgan.ops.conv.fold import conv2d_average, fold_average, fold_upsample, upsample_conv2d
from fastgan.ops.conv.modules import Conv2d, ConvTranspose2d
from fastgan.ops.norm import modules as norms


def close(a, b, bound=1e-11):
    assert a.shape == b.shape
    assert ((a - b).norm() / b.norm().clamp_min(1e-30)).item() < bound


@pytest.mark.parametrize("fn", [upsample_conv2d, conv2d_average])
@pytest.mark.parametrize("size", [(4, 6), (5, 3)])
def test_folding_equals_resampling_to_second_order(fn, size):
    torch.manual_seed(0)
    x, w, b = (
        torch.randn(*s, dtype=torch.float64, requires_grad=True)
        for s in ((2, 3, *size), (4, 3, 3, 3), (4,))
    )
    sigma = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    results = []
    for impl in ("auto", "reference"):
        y = fn(x, w, b, scale=sigma, activation="tanh", impl=impl)
        u = torch.ones_like(y)
        first = torch.autograd.grad(y, (x, w, b, sigma), u, create_graph=True)
        results.append(
            [y, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), (x, w, sigma))]
        )
    for a, e in zip(*results):
        close(a, e)


def test_folded_weights_are_summed_before_they_are_rounded():
    w = torch.full(
        (1, 1, 3, 3), 1.0 + 2.0**-9
    )  # rounds to 1 in bf16; four of them do not round to 4
    assert fold_upsample(w).dtype == torch.float32
    assert fold_upsample(w)[0, 0, 1, 1].item() == 4 * w[0, 0, 0, 0].item()
    assert fold_average(w)[0, 0, 1, 1].item() == w[0, 0, 0, 0].item()
    x = torch.ones(1, 1, 4, 4, dtype=torch.bfloat16)
    assert upsample_conv2d(x, w).dtype == torch.bfloat16
    with pytest.raises(FastganError, match="3x3"):
        fold_upsample(torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize(
    ("ours", "torchs", "arguments"),
    [
        (Conv2d, nn.Conv2d, dict(kernel_size=3, padding=1, padding_mode="reflect")),
        (Conv2d, nn.Conv2d, dict(kernel_size=4, stride=2, groups=2)),
        (Conv2d, nn.Conv2d, dict(kernel_size=3, padding="same", padding_mode="circular")),
        (Conv2d, nn.Conv2d, dict(kernel_size=3, padding="same")),
        (ConvTranspose2d, nn.ConvTranspose2d, dict(kernel_size=4, stride=2, padding=1)),
    ],
)
def test_drop_in_modules(ours, torchs, arguments):
    theirs = torchs(4, 6, **arguments).double()
    mine = ours(4, 6, **arguments).double()
    mine.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 4, 6, 7, dtype=torch.float64)
    close(mine(x), theirs(x))
    if ours is ConvTranspose2d:
        close(mine(x, output_size=[13, 15]), theirs(x, output_size=[13, 15]))


def chained(net, edge):
    """The accelerated container, every edge of its chains run in one way on whatever device."""
    accelerate(net).edge = edge
    return net


def generator():
    return nn.Sequential(
        nn.ConvTranspose2d(6, 8, 4, 1, 0, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(True),
        nn.ConvTranspose2d(8, 6, 4, 2, 1),
        nn.BatchNorm2d(6),
        nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(6, 5, 3, 1, 1),
        nn.BatchNorm2d(5, affine=False),
        nn.ReLU(),
        nn.Conv2d(5, 3, 3, 1, 1),
        nn.Tanh(),
    )


def discriminator():
    return nn.Sequential(
        nn.Conv2d(3, 5, 4, 2, 1),
        nn.LeakyReLU(0.2, True),
        nn.Conv2d(5, 6, 4, 2, 1, bias=False),
        nn.BatchNorm2d(6, momentum=None),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.0),
        nn.Conv2d(6, 7, 3, 1, 1),
        nn.AvgPool2d(2),
        nn.BatchNorm2d(7),
        nn.SiLU(),
        nn.Conv2d(7, 1, 2, 1, 0),
    )


NETS = {"G": (generator, (4, 6, 1, 1)), "D": (discriminator, (3, 3, 16, 16))}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("name", NETS)
def test_container_equals_its_children(name, edge, training):
    make, shape = NETS[name]
    torch.manual_seed(1)
    want = make().double()
    for m in want:
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
            if m.affine:
                nn.init.normal_(m.weight, 1, 0.3)
                nn.init.normal_(m.bias)
    want.train(training)
    got = chained(copy.deepcopy(want), edge)
    assert list(got.state_dict()) == list(want.state_dict())
    results = []
    for net in (want, got):
        torch.manual_seed(2)
        x = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        y = net(x)
        first = torch.autograd.grad(y.square().sum(), [x, *net.parameters()], create_graph=True)
        second = torch.autograd.grad(
            first[0].square().sum(), list(net.parameters()), allow_unused=True
        )
        results.append(
            [
                y,
                *first,
                *(
                    torch.zeros_like(p) if g is None else g
                    for g, p in zip(second, net.parameters())
                ),
                *net.buffers(),
            ]
        )
    for a, b in zip(*results):
        # a bias before a norm has gradient 0 in exact arithmetic: both sides hold rounding alone
        if b.double().norm() > 1e-9:
            close(a.double(), b.double(), 1e-9)
    chosen = [e.choice for e in got.report()]
    assert (
        chosen
        == {
            "G": {
                "separate": ["separate"] * 3,
                "moments": ["moments"] * 3,
                "on_load": ["on_load"] * 3,
                "on_load+g": ["on_load+g"] * 3,
            },
            "D": {
                "separate": ["separate"] * 2,
                "moments": ["moments"] * 2,
                "on_load": ["moments", "on_load"],
                "on_load+g": ["moments", "on_load+g"],
            },
        }[name][edge]
    )
    assert all(e.saved > 0 for e in got.report())


def test_grouped_statistics_of_our_norm():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 4, 2, 1), norms.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3, 1, 1)
    ).double()
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    want = copy.deepcopy(net)
    y = torch.cat([want(x[:2]), want(x[2:])])
    for edge in EDGES:
        fused = chained(copy.deepcopy(net), edge)
        with norms.grouped(2):
            close(fused(x), y)
        for a, b in zip(fused.buffers(), want.buffers()):
            close(a.double(), b.double())


def test_whatever_is_not_plain_runs_child_by_child():
    torch.manual_seed(0)
    x = torch.randn(4, 6, 1, 1)
    net = generator()
    want = copy.deepcopy(net)(x)
    fused = chained(copy.deepcopy(net), "on_load")
    seen = []
    fused[4].register_forward_hook(lambda m, i, o: seen.append(o.shape))
    assert torch.allclose(fused(x), want, atol=1e-5)
    assert seen == [(4, 6, 8, 8)]
    assert [e.choice for e in fused.report()] == ["moments", "on_load"]
    fused[4]._forward_hooks.clear()
    fused(x)
    image = torch.randn(1, 2, 6, 6)
    for other in (
        nn.Conv2d(2, 4, 5, 1, 2),
        nn.Conv2d(2, 4, 3, 1, 1, groups=2),
    ):  # same class, another geometry
        again = chained(
            nn.Sequential(nn.Conv2d(2, 4, 3, 1, 1), nn.AvgPool2d(2), nn.Tanh()), "moments"
        )
        again(image)
        again[0] = other
        assert torch.equal(again(image), nn.Sequential(*again)(image))
    fused[3] = nn.utils.parametrizations.spectral_norm(fused[3])
    fused(x)
    assert not fused.report()
    accelerate(fused)(x)
    assert [(e.producer, e.choice) for e in fused.report()] == [("0", "moments"), ("7", "on_load")]
    with pytest.raises(ValueError, match="more than 1 value"):
        chained(
            nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 1, 1)),
            "on_load",
        )(torch.ones(1, 2, 2, 2))
    with pytest.raises(FastganError, match="edge"):
        chained(generator(), "both")(x)


def test_leading_in_place_activation_still_alters_its_input():
    net = chained(
        nn.Sequential(nn.LeakyReLU(0.2, True), nn.Conv2d(2, 3, 4, 2, 1), nn.BatchNorm2d(3)),
        "moments",
    )
    x = -torch.ones(2, 2, 4, 4)
    net(x)
    assert x[0, 0, 0, 0].item() == pytest.approx(-0.2)


def test_chains_take_only_what_they_cover():
    mixed = [
        nn.Conv2d(3, 4, 3, dilation=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, 1, 1, padding_mode="reflect"),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(4, 4, 3, 1, 1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(4, 4, 5, 1, 2),
        nn.Conv2d(4, 4, 3, 1, 1),
        nn.InstanceNorm2d(4),
    ]
    net = accelerate(nn.Sequential(*mixed))
    children = tuple(net)
    plan = net._fastgan_plan
    assert [(run.start, run.stop, run.fold, chains(children, run)) for run in plan.runs] == [
        (0, 3, "", False),
        (3, 4, "", False),
        (4, 5, "", False),
        (5, 7, "", True),
        (7, 9, "", False),
        (9, 10, "", True),
        (10, 12, "", False),
    ]


def test_autocast_gives_what_the_children_give():
    torch.manual_seed(0)
    net = generator()
    x = torch.randn(4, 6, 1, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        want = copy.deepcopy(net)(x)
        for edge in EDGES:
            got = chained(copy.deepcopy(net), edge)(x)
            assert got.dtype == want.dtype
            assert ((got - want).norm() / want.norm()).item() < 0.05
            assert F.mse_loss(got.float(), want.float()).isfinite()


@pytest.mark.parametrize("edge", ["separate", "on_load"])
@pytest.mark.filterwarnings("ignore:Dynamo detected a call")
def test_compiles_in_one_graph(edge):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.ConvTranspose2d(3, 5, 4, 2, 1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.ConvTranspose2d(5, 2, 4, 2, 1),
    )
    x = torch.randn(2, 3, 4, 4)
    want = copy.deepcopy(net)(x)
    got = torch.compile(chained(net, edge), backend="aot_eager", fullgraph=True)(x)
    assert torch.allclose(got, want, atol=1e-5)
    got.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
