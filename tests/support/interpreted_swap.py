"""Accelerated networks on the Triton kernels, in the interpreter: run by
test_accelerate_interpreted.py with TRITON_INTERPRET=1.

Bounds: PyTorch's float32 kernels and ours sum in another order; 1e-5 relative L2 is the project's
fp32 bound (fastgan/verify/bounds.py), times the few layers that an error passes through.
"""

from __future__ import annotations

import copy

import pytest
import torch
from foreign_networks import SPECTRAL_NORMS, PatchGAN, Unet
from torch import nn

import fastgan.ops
from fastgan.acceleration import accelerate, report, revert
from fastgan.kernels.common import INTERPRET
from fastgan.ops import dispatch
from fastgan.ops.norm.modules import grouped
from fastgan.ops.spectral import modules as swap_spectral
from fastgan.trainer.step import pairing

assert INTERPRET, "run with TRITON_INTERPRET=1"

BOUND = 5e-5


def blocks(*layers):
    torch.manual_seed(1)
    return nn.Sequential(*layers)


NETWORKS = {
    "conv-norm-act": (
        lambda: blocks(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.LeakyReLU(0.2, True)),
        (2, 3, 5, 5),
    ),
    "transposed": (
        lambda: blocks(
            nn.ConvTranspose2d(3, 4, 4, 2, 1),
            nn.BatchNorm2d(4),
            nn.ReLU(True),
            nn.Conv2d(4, 2, 3),
            nn.Tanh(),
        ),
        (2, 3, 3, 3),
    ),
    "linear": (
        lambda: blocks(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)),
        (5, 3),
    ),
    "lone-norm": (lambda: nn.BatchNorm2d(3), (2, 3, 4, 4)),
    "cumulative": (
        lambda: blocks(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.SiLU()),
        (2, 3, 5, 5),
    ),
    "untracked": (
        lambda: blocks(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4, track_running_stats=False, affine=False),
            nn.Sigmoid(),
        ),
        (2, 3, 5, 5),
    ),
    "instance": (
        lambda: blocks(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.ReLU(True)),
        (2, 3, 5, 5),
    ),
    "unet": (lambda: Unet(downs=2, ngf=1), (2, 3, 4, 4)),
    "patchgan": (lambda: PatchGAN(3, ndf=1, n_layers=1), (2, 3, 8, 8)),
}


def pair(name):
    make, shape = NETWORKS[name]
    torch.manual_seed(7)
    net = make()
    for p in net.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    x = torch.randn(shape)
    if x.dim() == 4:
        net, x = (
            net.to(memory_format=torch.channels_last),
            x.contiguous(memory_format=torch.channels_last),
        )
    return copy.deepcopy(net), accelerate(net), x


def close(got, expected, bound=BOUND):
    # A bias in front of a normalisation has gradient zero: rounding is judged against the largest
    # of the tensors.
    largest = max(b.double().norm().item() for b in expected)
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.dtype == b.dtype
        scale = max(b.double().norm().item(), 0.1 * largest)
        assert (a.double() - b.double()).norm() <= bound * scale, (
            f"item {i}: {(a.double() - b.double()).norm() / scale}"
        )


def everything(net, x):
    x = x.clone().requires_grad_()
    y = net(x)
    weights = torch.linspace(-1, 1, y.numel()).view_as(y)
    return [y, *torch.autograd.grad((y * weights).sum(), [x, *net.parameters()]), *net.buffers()]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("impl", ["auto", "reference"])
def test_values_gradients_and_buffers(name, impl):
    plain, fast, x = pair(name)
    assert report(fast).to_dict()["engine"].startswith("triton")
    with dispatch.prefer(impl):
        close(everything(fast, x), everything(plain, x))
        op = "instance_norm" if name == "instance" else "batch_norm"
        assert dispatch.why(op).startswith(f"{op}: {'triton' if impl == 'auto' else 'reference'}")
        fast.eval()
        plain.eval()
        close(everything(fast, x), everything(plain, x))


@pytest.mark.parametrize("name", ["conv-norm-act", "patchgan", "linear", "instance"])
def test_double_backward(name):
    plain, fast, x = pair(name)

    def r1(net):
        real = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(net(real).square().sum(), real, create_graph=True)
        return list(
            torch.autograd.grad(
                g.square().sum(), list(net.parameters()), allow_unused=True, materialize_grads=True
            )
        )

    exact = r1(plain)
    largest = max(g.norm().item() for g in exact)
    for a, b in zip(r1(fast), exact):
        assert (a - b).norm() <= 1e-4 * largest


def test_the_skip_of_a_unet_is_altered_in_place():
    _, fast, _ = pair("unet")
    block = fast.model.model[1]
    h = torch.randn(2, 1, 2, 2).contiguous(memory_format=torch.channels_last)
    raw = h.clone()
    out = block(h)
    assert torch.equal(h, nn.functional.leaky_relu(raw, 0.2))
    assert torch.equal(out[:, :1], h)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_decides_the_output_type(dtype):
    plain, fast, x = pair("conv-norm-act")
    with torch.autocast("cpu", dtype=dtype):
        a, b = fast(x), plain(x)
    assert a.dtype == b.dtype == dtype
    close([a.float()], [b.float()], 1e-2 if dtype == torch.bfloat16 else 2e-3)
    a.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in fast.parameters())


def test_nchw_inputs_take_pytorchs_kernels():
    plain, fast, x = pair("conv-norm-act")
    plain, fast = (
        plain.to(memory_format=torch.contiguous_format),
        fast.to(memory_format=torch.contiguous_format),
    )
    x = x.contiguous()
    assert torch.equal(fast(x), plain(x))


def test_activation_checkpointing():
    plain, fast, x = pair("conv-norm-act")
    for net in (plain, fast):
        torch.utils.checkpoint.checkpoint(
            net, x.requires_grad_(), use_reentrant=False
        ).sum().backward()
    largest = max(p.grad.norm() for p in plain.parameters())
    for p, q in zip(fast.parameters(), plain.parameters()):
        assert (p.grad - q.grad).norm() <= BOUND * largest
    close(list(fast.buffers()), list(plain.buffers()))


def several(net, x, graph):
    """Gradients of many outputs at once, and what a penalty on them sends on."""
    x = x.clone().requires_grad_()
    y = net(x)
    many = torch.stack([torch.ones_like(y), y.detach()])
    wanted = [x, *net.parameters()]
    found = torch.autograd.grad(y, wanted, many, is_grads_batched=True, create_graph=graph)
    if graph:
        found += torch.autograd.grad(
            found[0].square().sum(), wanted, allow_unused=True, materialize_grads=True
        )
    return list(found)


@pytest.mark.parametrize("name", ["conv-norm-act", "instance", "linear", "lone-norm"])
@pytest.mark.parametrize("graph", [False, True])
def test_batched_gradients_take_pytorchs_formulas(name, graph):
    plain, fast, x = pair(name)
    for training in (True, False):
        plain.train(training)
        fast.train(training)
        close(several(fast, x, graph), several(plain, x, graph), 1e-4)


def test_torch_func_transforms_take_pytorchs_formulas():
    for plain, fast, x in (pair("conv-norm-act"), spectral_network("parametrization")):
        plain, fast = plain.eval(), fast.eval()
        loss = lambda net, x=x: (
            lambda parameters: torch.func.functional_call(net, parameters, (x,)).square().sum()
        )
        grads = [torch.func.grad(loss(net))(dict(net.named_parameters())) for net in (fast, plain)]
        close(list(grads[0].values()), list(grads[1].values()))


@pytest.mark.parametrize("name", ["conv-norm-act", "lone-norm"])
def test_grad_scaler_skips_and_goes_on(name):
    plain, fast, x = pair(name)
    for net in (plain, fast):
        optimizer, scaler = (
            torch.optim.SGD(net.parameters(), 0.1),
            torch.amp.GradScaler("cpu", init_scale=1024.0),
        )
        for scale in (1.0, float("inf"), 1.0):
            optimizer.zero_grad()
            scaler.scale(net(x).square().sum() * scale).backward()
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == 512.0
    close(list(fast.parameters()), list(plain.parameters()))


def test_torch_compile():
    plain, fast, x = pair("conv-norm-act")
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    close([compiled(x)], [plain(x)])
    close(list(fast.buffers()), list(plain.buffers()))


def generator():
    return blocks(
        nn.ConvTranspose2d(3, 4, 2, 1, 0, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(True),
        nn.ConvTranspose2d(4, 3, 4, 2, 1, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(True),
        nn.ConvTranspose2d(3, 3, 4, 2, 1, bias=False),
        nn.Tanh(),
    )


def test_a_training_step_agrees():
    g, d = generator(), PatchGAN(3, ndf=2, n_layers=1)
    plain_g, plain_d = copy.deepcopy(g), copy.deepcopy(d)
    accelerate(g.to(memory_format=torch.channels_last))
    accelerate(d.to(memory_format=torch.channels_last))
    z = torch.randn(4, 3, 1, 1)
    for nets in ((g, d), (plain_g, plain_d)):
        nets[1](nets[0](z)).square().mean().backward()
    for fast, plain in ((g, plain_g), (d, plain_d)):
        largest = max(p.grad.norm() for p in plain.parameters())
        for p, q in zip(fast.parameters(), plain.parameters()):
            assert (
                p.grad - q.grad
            ).norm() <= 2e-4 * largest  # six layers, four of them normalised, forward and back
    revert(g)
    close(list(g.buffers()), list(plain_g.buffers()))


def spectral_network(kind):
    torch.manual_seed(4)
    wrap = SPECTRAL_NORMS[kind]
    net = nn.Sequential(
        wrap(nn.Conv2d(2, 3, 3)),
        nn.LeakyReLU(0.1, True),
        wrap(nn.ConvTranspose2d(3, 2, 2)),
        nn.ReLU(),
        nn.Flatten(),
        wrap(nn.Linear(32, 1)),
    )
    return copy.deepcopy(net), accelerate(net), torch.randn(2, 2, 5, 5)


def launches(monkeypatch):
    calls = []
    real = swap_spectral.spectral_weights
    monkeypatch.setattr(
        swap_spectral,
        "spectral_weights",
        lambda weights, *args, **kw: (calls.append(len(weights)), real(weights, *args, **kw))[1],
    )
    return calls


@pytest.mark.parametrize("kind", ["parametrization", "hook"])
def test_spectral_norms_iterate_together_and_as_pytorchs(kind, monkeypatch):
    plain, fast, x = spectral_network(kind)
    calls = launches(monkeypatch)
    for _ in range(3):  # two forwards before a backward, as D(real) and D(fake)
        plain.zero_grad()
        fast.zero_grad()
        a = [fast(x), fast(x * 2)]
        b = [plain(x), plain(x * 2)]
        a[0].sum().sub(a[1].sum()).backward()
        b[0].sum().sub(b[1].sum()).backward()
        close(
            [*a, *(p.grad for p in fast.parameters()), *fast.buffers()],
            [*b, *(p.grad for p in plain.parameters()), *plain.buffers()],
        )
    assert calls == [1] * 3 + [3] * 5  # the first forward tells what the others find together
    fast.eval()
    plain.eval()
    with torch.no_grad():  # PyTorch cannot copy the weight with a graph that its hook leaves behind
        close([fast(x), *fast.buffers()], [plain(x), *plain.buffers()])
    twin = copy.deepcopy(fast.train())
    close([twin(x), *twin.buffers()], [plain.train()(x), *plain.buffers()])
    assert calls == [1] * 3 + [3] * 7
    close([v for v in revert(twin)(x)], [v for v in plain(x)])
    assert not any("_fastgan" in key for m in twin.modules() for key in m.__dict__)


@pytest.mark.parametrize("kind", ["parametrization", "hook"])
def test_a_spectral_layer_used_twice_alone_or_not_at_all(kind, monkeypatch):
    plain, fast, x = spectral_network(kind)
    calls = launches(monkeypatch)
    close([fast[0](x), *fast.buffers()], [plain[0](x), *plain.buffers()])  # alone
    assert calls == [1]

    class Odd(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net, self.skip = net, True

        def forward(self, x):
            h = self.net[0](x) + self.net[0](x * 2)
            return h.sum() if self.skip else self.net[2](h).sum()

    revert(fast)
    odd, plain_odd = accelerate(Odd(fast)), Odd(plain)
    for skip in (True, False, True):
        odd.skip = plain_odd.skip = skip
        close(
            [odd(x), *odd.net[5].buffers()], [plain_odd(x), *plain_odd.net[5].buffers()]
        )  # never called: never moved


@pytest.mark.parametrize("kind", ["parametrization", "hook"])
def test_double_backward_through_spectral_norm(kind):
    plain, fast, x = spectral_network(kind)
    got = []
    for net in (fast, plain):
        real = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(net(real).square().sum(), real, create_graph=True)
        got.append(
            torch.autograd.grad(
                g.square().sum(), list(net.parameters()), allow_unused=True, materialize_grads=True
            )
        )
    close(*got, 1e-4)


@pytest.mark.parametrize("follow", [nn.ReLU(True), lambda x: x.add_(1), nn.LeakyReLU(0.2, True)])
def test_what_follows_may_write_over_a_norms_output(follow):
    plain, fast, x = pair("lone-norm")
    grads = []
    for net in (fast, plain):
        leaf = x.clone().requires_grad_()
        follow(net(leaf)).pow(3).sum().backward()  # the square's sum is constant behind a norm
        grads.append(leaf.grad)
    close(grads[:1], grads[1:])


@pytest.mark.parametrize("name", ["conv_transpose2d", "conv2d"])
def test_what_follows_may_write_over_a_convolutions_output(name):
    """The kernels' result is no view: nothing has to stand between it and an in-place layer."""
    w = torch.randn(3, 3, 4, 4, requires_grad=True)
    y = getattr(fastgan.ops, name)(
        torch.randn(1, 3, 4, 4, requires_grad=True), w, None, 2, 1, impl="triton"
    )
    assert y._base is None
    torch.relu_(y).sum().backward()


def test_choices_of_the_fused_container_are_taken():
    plain, fast, x = pair("transposed")
    fast.edge = "on_load+g"
    close(everything(fast, x), everything(plain, x))
    assert [row.engine for row in report(fast).rows] == ["triton, on_load+g", "triton"]


def test_groups_have_statistics_of_their_own():
    plain, fast, x = pair("conv-norm-act")
    with grouped(2):
        together = fast(x)
    apart = torch.cat([plain(part) for part in x.chunk(2)])
    close([together], [apart])
    close(list(fast.buffers()), list(plain.buffers()))


@pytest.mark.parametrize("edge", [None, "moments", "on_load+g"])
def test_one_pass_of_pair_is_two(edge):
    """Outputs, gradients and buffers of D on real | fake as one batch, through fused chains; the
    fakes' statistics differ."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 3, 3, 2),
        nn.BatchNorm2d(3),
        nn.ReLU(),
    ]
    net = accelerate(nn.Sequential(*layers, nn.Conv2d(3, 1, 2))).to(
        memory_format=torch.channels_last
    )
    net.edge = edge
    twin = copy.deepcopy(net)
    assert pairing.why_two(net) is None
    real, fake = (
        torch.randn(3, 3, 8, 8).add(k).contiguous(memory_format=torch.channels_last) for k in (1, 0)
    )
    one, two = pairing.one_pass(net, real, fake), (twin(real), twin(fake))
    for both in (one, two):
        (both[0].square().sum() - 3 * both[1].sum()).backward()
    close(one, two)
    close([p.grad for p in net.parameters()], [p.grad for p in twin.parameters()])
    close(list(net.buffers()), list(twin.buffers()))
    assert edge is not None or dispatch.why("batch_norm").startswith("batch_norm: triton")
