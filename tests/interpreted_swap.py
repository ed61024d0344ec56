"""Accelerated networks on the Triton kernels, in the interpreter: run by test_swap_interpreted.py with TRITON_INTERPRET=1.

Bounds: PyTorch's float32 kernels and ours sum in another order; 1e-5 relative L2 is the project's fp32 bound (fastgan/verify/bounds.py),
times the few layers that an error passes through.
"""

from __future__ import annotations

import copy

import pytest
import torch
from foreign_networks import PatchGAN, TutorialDiscriminator, TutorialGenerator, Unet
from torch import nn

from fastgan.kernels._common import INTERPRET
from fastgan.ops import dispatch
from fastgan.swap import accelerate, report, revert

assert INTERPRET, "run with TRITON_INTERPRET=1"

BOUND = 5e-5


def blocks(*layers):
    torch.manual_seed(1)
    return nn.Sequential(*layers)


NETWORKS = {
    "conv-norm-act": (lambda: blocks(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.LeakyReLU(0.2, True)), (2, 3, 5, 5)),
    "transposed": (lambda: blocks(nn.ConvTranspose2d(3, 4, 4, 2, 1), nn.BatchNorm2d(4), nn.ReLU(True), nn.Conv2d(4, 2, 3), nn.Tanh()), (2, 3, 3, 3)),
    "linear": (lambda: blocks(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)), (5, 3)),
    "lone-norm": (lambda: nn.BatchNorm2d(3), (2, 3, 4, 4)),
    "cumulative": (lambda: blocks(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.SiLU()), (2, 3, 5, 5)),
    "untracked": (lambda: blocks(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False, affine=False), nn.Sigmoid()), (2, 3, 5, 5)),
    "instance": (lambda: blocks(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.ReLU(True)), (2, 3, 5, 5)),
    "unet": (lambda: Unet(downs=3, ngf=2), (2, 3, 8, 8)),
    "patchgan": (lambda: PatchGAN(3, ndf=2, n_layers=1), (2, 3, 8, 8)),
}


def pair(name):
    make, shape = NETWORKS[name]
    torch.manual_seed(7)
    net = make()
    for p in net.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    x = torch.randn(shape)
    if x.dim() == 4:
        net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    return copy.deepcopy(net), accelerate(net), x


def close(got, expected, bound=BOUND):
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.dtype == b.dtype
        # A bias in front of a normalisation has gradient zero: judged against the largest term, as rounding is.
        scale = b.double().norm().clamp_min(1e-2)
        assert (a.double() - b.double()).norm() <= bound * scale, f"item {i}: {(a.double() - b.double()).norm() / scale}"


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
        return list(torch.autograd.grad(g.square().sum(), list(net.parameters()), allow_unused=True, materialize_grads=True))

    exact = r1(copy.deepcopy(plain).double()) if False else r1(plain)
    largest = max(g.norm().item() for g in exact)
    for a, b in zip(r1(fast), exact):
        assert (a - b).norm() <= 1e-4 * largest


def test_the_skip_of_a_unet_is_altered_in_place():
    _, fast, _ = pair("unet")
    block = fast.model.model[1]
    h = torch.randn(2, 2, 4, 4).contiguous(memory_format=torch.channels_last)
    raw = h.clone()
    out = block(h)
    assert torch.equal(h, nn.functional.leaky_relu(raw, 0.2))
    assert torch.equal(out[:, :2], h)


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
    plain, fast = plain.to(memory_format=torch.contiguous_format), fast.to(memory_format=torch.contiguous_format)
    x = x.contiguous()
    assert torch.equal(fast(x), plain(x))


def test_activation_checkpointing_and_functional_call():
    plain, fast, x = pair("conv-norm-act")
    for net in (plain, fast):
        torch.utils.checkpoint.checkpoint(net, x.requires_grad_(), use_reentrant=False).sum().backward()
    largest = max(p.grad.norm() for p in plain.parameters())
    for p, q in zip(fast.parameters(), plain.parameters()):
        assert (p.grad - q.grad).norm() <= BOUND * largest
    close(list(fast.buffers()), list(plain.buffers()))


def test_torch_compile():
    plain, fast, x = pair("conv-norm-act")
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    close([compiled(x)], [plain(x)])
    close(list(fast.buffers()), list(plain.buffers()))


def test_training_steps_agree():
    torch.manual_seed(0)
    g, d = TutorialGenerator(nz=3, ngf=1), TutorialDiscriminator(ndf=1)
    plain_g, plain_d = copy.deepcopy(g), copy.deepcopy(d)
    z = torch.randn(2, 3, 1, 1)
    accelerate(g.to(memory_format=torch.channels_last))
    accelerate(d.to(memory_format=torch.channels_last))
    a = d(g(z)).sum()
    b = plain_d(plain_g(z)).sum()
    a.backward()
    b.backward()
    largest = max(p.grad.norm() for p in plain_g.parameters())
    for p, q in zip(g.parameters(), plain_g.parameters()):
        assert (p.grad - q.grad).norm() <= 1e-3 * largest  # ten normalised layers, two values a channel at the narrow end
    revert(g)
    close(list(g.buffers()), list(plain_g.buffers()))
