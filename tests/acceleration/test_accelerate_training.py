"""An accelerated network computes what it computed: values, gradients, second order, buffers, and
everything PyTorch wraps around a module.

On the CPU the accelerated modules run PyTorch's own kernels on the same numbers in the same order,
so equality is exact (torch.equal) unless a bound is given.
"""

from __future__ import annotations

import copy
import os

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from foreign_networks import TutorialDiscriminator, TutorialGenerator, Unet
from test_accelerate import NETWORKS, network, small
from torch import nn
from torch.utils.checkpoint import checkpoint

from fastgan.acceleration import accelerate, report, revert

GANS = [name for name in NETWORKS]


def pair(name, dtype=torch.float32):
    net, x = network(name, dtype)
    return copy.deepcopy(net), accelerate(net), x


def gradients(net, x):
    x = x.clone().requires_grad_()
    y = net(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    grads = torch.autograd.grad((y * weights).sum(), [x, *net.parameters()])
    return [y, *grads, *net.buffers()]


def assert_same(got, expected):
    assert len(got) == len(expected)
    for i, (a, b) in enumerate(zip(got, expected)):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert torch.equal(a, b), (
            f"item {i} differs by {(a.double() - b.double()).abs().max().item()}"
        )


@pytest.mark.parametrize("name", GANS)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_values_gradients_and_buffers(name, mode):
    plain, fast, x = pair(name)
    torch.manual_seed(0)
    plain.train(mode == "train")
    fast.train(mode == "train")
    for _ in range(2):
        assert_same(gradients(fast, x), gradients(plain, x))


@pytest.mark.parametrize("name", ["dcgan-g", "dcgan-d", "unet"])
def test_channels_last(name):
    plain, fast, x = pair(name)
    plain, fast = (
        plain.to(memory_format=torch.channels_last),
        fast.to(memory_format=torch.channels_last),
    )
    x = x.to(memory_format=torch.channels_last)
    assert_same(gradients(fast, x), gradients(plain, x))
    assert fast(x).stride() == plain(x).stride()


@pytest.mark.parametrize(
    "layer",
    [
        nn.ReLU(True),
        nn.ReLU(),
        nn.LeakyReLU(0.2, True),
        nn.LeakyReLU(-0.2),
        nn.Tanh(),
        nn.Sigmoid(),
        nn.SiLU(True),
    ],
)
@pytest.mark.parametrize("norm", [True, False])
def test_every_activation_of_a_run(layer, norm):
    net = small(nn.Conv2d(3, 4, 3), *([nn.BatchNorm2d(4)] if norm else []), copy.deepcopy(layer))
    plain, fast = copy.deepcopy(net), accelerate(net)
    assert report(fast).count("fused") == 1
    x = torch.randn(2, 3, 6, 6)
    assert_same(gradients(fast, x), gradients(plain, x))


def test_an_in_place_activation_still_alters_the_skip():
    plain, fast, x = pair("unet")
    before, inner = x.clone(), {}
    for net in (plain, fast):
        seen = x.clone()
        block = net.model.model[1]  # an inner block: its first LeakyReLU writes over its input
        h = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(5))
        raw = h.clone()
        out = block(h)
        assert torch.equal(h, F.leaky_relu(raw, 0.2))
        assert torch.equal(out[:, :2], h)  # the skip holds the activated tensor
        inner[net] = out
        assert torch.equal(seen, before)
    assert torch.equal(inner[plain], inner[fast])


@pytest.mark.parametrize("name", GANS)
def test_optimizers_made_before_go_on(name):
    net, x = network(name)
    plain = copy.deepcopy(net)
    optimizers = {
        id(n): torch.optim.Adam(n.parameters(), 1e-2, betas=(0.5, 0.999)) for n in (net, plain)
    }
    for step in range(6):
        if step == 2:
            accelerate(net)
        if step == 4:
            revert(net)
        for n in (net, plain):
            torch.manual_seed(step)
            optimizers[id(n)].zero_grad()
            n(x).square().mean().backward()
            optimizers[id(n)].step()
    assert_same([*net.state_dict().values()], [*plain.state_dict().values()])


@pytest.mark.parametrize("name", GANS)
def test_state_dicts_load_both_ways(name):
    net, x = network(name)
    net(x)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    other, _ = network(name)
    fast = accelerate(other)
    with torch.no_grad():
        for p in fast.parameters():
            p.add_(1)
    assert fast.load_state_dict(before) == nn.modules.module._IncompatibleKeys([], [])
    assert_same([*fast.state_dict().values()], [*before.values()])
    fast(x)
    third, _ = network(name)
    third.load_state_dict(fast.state_dict())
    assert_same([*third.state_dict().values()], [*fast.state_dict().values()])
    assert_same([third.eval()(x)], [fast.eval()(x)])


@pytest.mark.parametrize("name", GANS)
def test_deepcopy_trains_alone(name):
    _, fast, x = pair(name)
    if "hook" in name:
        fast(
            x
            # the older hook leaves a non-leaf weight behind, which PyTorch cannot copy before the
            # first call in eval either
        )
        fast.eval()
        with torch.no_grad():
            fast(x)
    twin = copy.deepcopy(fast)
    assert [row.status for row in report(twin).rows] == [row.status for row in report(fast).rows]
    mine = {id(p) for p in fast.parameters()}
    assert not mine & {id(p) for p in twin.parameters()}
    state = [v.clone() for v in fast.state_dict().values()]
    twin.train()(x).sum().backward()
    assert_same([*fast.state_dict().values()], state)
    assert all(p.grad is None for p in fast.parameters())


def test_moving_to_another_type():
    plain, fast, x = pair("dcgan-d")
    assert_same(gradients(fast.double(), x.double()), gradients(plain.double(), x.double()))
    assert fast.to(torch.device("meta")).main[1] is not None


# Second order: R1 and the gradient penalty through the accelerated discriminator.


def r1_gradients(net, x):
    real = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(net(real).sum(), real, create_graph=True)
    penalty = g.square().sum((1, 2, 3)).mean()
    return [
        penalty,
        *torch.autograd.grad(
            penalty, list(net.parameters()), allow_unused=True, materialize_grads=True
        ),
    ]


def penalty_gradients(net, x):
    """WGAN-GP (Gulrajani et al. 2017, equation 3) with the critic's loss."""
    eps = torch.linspace(0, 1, len(x), dtype=x.dtype).view(-1, 1, 1, 1)
    between = (eps * x + (1 - eps) * x.flip(0)).requires_grad_()
    (g,) = torch.autograd.grad(net(between).sum(), between, create_graph=True)
    loss = 10 * (g.flatten(1).norm(dim=1) - 1).square().mean() + net(x).mean()
    return [
        loss,
        *torch.autograd.grad(
            loss, list(net.parameters()), allow_unused=True, materialize_grads=True
        ),
    ]


@pytest.mark.parametrize("name", ["dcgan-d", "patchgan", "sngan-d", "sngan-d-hook"])
@pytest.mark.parametrize("second", [r1_gradients, penalty_gradients])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_double_backward_is_exact(name, second, dtype):
    plain, fast, x = pair(name, dtype)
    expected, got = second(plain, x), second(fast, x)
    # The same formulas; several graph paths into one tensor may be summed in another order: a few
    # roundings of the largest term.
    eps = torch.finfo(dtype).eps
    for a, b in zip(got, expected):
        assert (a - b).abs().max() <= 32 * eps * b.abs().max().clamp_min(1e-3)


def test_double_backward_against_finite_differences():
    net = small(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 2, 2), nn.Sigmoid()
    ).double()
    fast = accelerate(net)
    names = [name for name, _ in fast.named_parameters()]
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64, requires_grad=True)

    def call(x, *values):
        return torch.func.functional_call(fast, dict(zip(names, values)), (x,)).flatten(1).mean(1)

    assert torch.autograd.gradgradcheck(call, (x, *fast.parameters()))


# What people wrap around modules.


@pytest.mark.parametrize("name", ["dcgan-g", "dcgan-d", "unet", "sngan-g", "unet-instance"])
def test_autocast_decides_the_output_type(name):
    plain, fast, x = pair(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        a, b = fast(x), plain(x)
    assert a.dtype == b.dtype
    assert torch.equal(a, b)
    a.float().sum().backward()
    b.float().sum().backward()
    assert_same([p.grad for p in fast.parameters()], [p.grad for p in plain.parameters()])
    assert all(p.grad.dtype == torch.float32 for p in fast.parameters())


def test_grad_scaler():
    plain, fast, x = pair("dcgan-d")
    for net in (plain, fast):
        optimizer, scaler = (
            torch.optim.SGD(net.parameters(), 0.1),
            torch.amp.GradScaler("cpu", init_scale=1024.0),
        )
        for scale in (1.0, float("inf"), 1.0):
            optimizer.zero_grad()
            scaler.scale(net(x).sum() * scale).backward()
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == 512.0
    assert_same([*fast.parameters()], [*plain.parameters()])


@pytest.mark.parametrize("name", ["dcgan-g", "unet", "sngan-g"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(name, reentrant):
    plain, fast, x = pair(name)
    x = x.requires_grad_()
    for net in (plain, fast):
        checkpoint(net, x, use_reentrant=reentrant).sum().backward()
    assert_same([p.grad for p in fast.parameters()], [p.grad for p in plain.parameters()])
    assert_same(
        [*fast.buffers()], [*plain.buffers()]
    )  # recomputation updates the statistics twice, as ever


def test_activation_checkpointing_of_a_container():
    plain, fast, x = pair("dcgan-d")
    for net in (plain, fast):
        torch.utils.checkpoint.checkpoint_sequential(
            net.main, 4, x.requires_grad_(), use_reentrant=False
        ).sum().backward()
    assert_same([p.grad for p in fast.parameters()], [p.grad for p in plain.parameters()])


@pytest.mark.parametrize("name", ["dcgan-d", "unet", "sngan-d"])
def test_torch_compile(name):
    plain, fast, x = pair(name)
    torch._dynamo.reset()
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    a, b = compiled(x), plain(x)
    a.square().sum().backward()
    b.square().sum().backward()
    # aot_eager decomposes batch norm: other kernels, so roundings of float32 rather than equality.
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for p, q in zip(fast.parameters(), plain.parameters()):
        scale = max(q.grad.abs().max().item(), 1e-3)
        assert (p.grad - q.grad).abs().max() <= 1e-4 * scale
    for p, q in zip(fast.buffers(), plain.buffers()):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_distributed_data_parallel(tmp_path):
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        for name in ("dcgan-d", "unet"):
            plain, fast, x = pair(name)
            wrapped = nn.parallel.DistributedDataParallel(fast)
            wrapped(x).sum().backward()
            plain(x).sum().backward()
            assert_same([p.grad for p in fast.parameters()], [p.grad for p in plain.parameters()])
            accelerate(wrapped)  # the other order
            assert report(wrapped).count("fused") == report(fast).count("fused")
    finally:
        dist.destroy_process_group()


def test_functional_call_and_func_grad():
    plain, fast, x = pair("dcgan-d")
    fast.eval()
    plain.eval()

    def loss(net):
        return lambda parameters: torch.func.functional_call(net, parameters, (x,)).square().sum()

    got = torch.func.grad(loss(fast))(dict(fast.named_parameters()))
    expected = torch.func.grad(loss(plain))(dict(plain.named_parameters()))
    for name in got:
        torch.testing.assert_close(got[name], expected[name])


# Whole training: the two networks that the issue names.


def gan_losses(g, d, steps, z, real):
    opt_g = torch.optim.Adam(g.parameters(), 2e-4, betas=(0.5, 0.999))
    opt_d = torch.optim.Adam(d.parameters(), 2e-4, betas=(0.5, 0.999))
    losses = []
    for _ in range(steps):
        fake = g(z)
        opt_d.zero_grad()
        loss_d = F.softplus(-d(real)).mean() + F.softplus(d(fake.detach())).mean()
        loss_d.backward()
        opt_d.step()
        opt_g.zero_grad()
        loss_g = F.softplus(-d(fake)).mean()
        loss_g.backward()
        opt_g.step()
        losses += [loss_d.item(), loss_g.item()]
    return losses


def test_the_tutorials_dcgan_trains_saves_loads_and_reverts(tmp_path):
    torch.manual_seed(0)
    g, d = TutorialGenerator(nz=8, ngf=4), TutorialDiscriminator(ndf=4)
    plain_g, plain_d = copy.deepcopy(g), copy.deepcopy(d)
    z, real = torch.randn(4, 8, 1, 1), torch.rand(4, 3, 64, 64) * 2 - 1
    accelerate(g)
    accelerate(d)
    assert gan_losses(g, d, 4, z, real) == gan_losses(plain_g, plain_d, 4, z, real)
    torch.save({"g": g.state_dict(), "d": d.state_dict()}, tmp_path / "gan.pt")
    stored = torch.load(tmp_path / "gan.pt", weights_only=True)
    again = TutorialGenerator(nz=8, ngf=4)
    again.load_state_dict(stored["g"])
    assert torch.equal(again.eval()(z), g.eval()(z))
    revert(g)
    assert type(g.main) is nn.Sequential
    assert torch.equal(again(z), g(z))


def test_pix2pix_trains_saves_loads_and_reverts(tmp_path):
    torch.manual_seed(0)
    g = Unet(downs=5, ngf=2)
    plain = copy.deepcopy(g)
    x, y = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    accelerate(g)
    optimizers = [(n, torch.optim.Adam(n.parameters(), 2e-4)) for n in (g, plain)]
    for step in range(3):
        for n, optimizer in optimizers:
            torch.manual_seed(step)  # dropout
            optimizer.zero_grad()
            F.l1_loss(n(x), y).backward()
            optimizer.step()
    assert_same([*g.state_dict().values()], [*plain.state_dict().values()])
    torch.save(g.state_dict(), tmp_path / "unet.pt")
    again = Unet(downs=5, ngf=2)
    again.load_state_dict(torch.load(tmp_path / "unet.pt", weights_only=True))
    revert(g)
    assert torch.equal(again.eval()(x), g.eval()(x))


def test_environment_is_plain():
    assert os.environ.get("TRITON_INTERPRET") != "1", (
        "equality holds for PyTorch's kernels: test_accelerate_interpreted.py has the others"
    )
