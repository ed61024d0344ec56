"""The convolution kernels in Triton's interpreter, in a process of its own: run by
test_conv_kernels, or by hand with a name as argument."""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch
import torch.nn as nn
import torch.nn.functional as F

from fastgan.acceleration import accelerate
from fastgan.acceleration.edges import EDGES
from fastgan.kernels.conv.dgrad import conv_dgrad
from fastgan.kernels.conv.forward import conv_forward
from fastgan.kernels.conv.moments import form_gradient, merge_moments
from fastgan.kernels.conv.plan import channels_last, default_wgrad_config, splits_for, tile
from fastgan.kernels.conv.spec import ConvSpec, Fusion
from fastgan.kernels.conv.wgrad import conv_wgrad
from fastgan.ops import no_weight_gradients
from fastgan.ops.conv.functional import conv2d

torch.set_num_threads(1)


def close(a, b, bound=2e-6):
    error = ((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30)).item()
    assert error < bound, error


def spread(v, n):
    return (
        v.double()
        .reshape(-1, v.shape[-1])
        .repeat_interleave(n // v.reshape(-1, v.shape[-1]).shape[0], 0)[:, :, None, None]
    )


def every_direction(spec, n, ci, co, size, groups=1, gather=None, wgrad=None):
    """Forward with moments, dgrad and wgrad with and without transforms, against autograd in
    float64."""
    torch.manual_seed(0)
    x = channels_last(torch.randn(n, ci, *size))
    w = torch.randn(*((ci, co) if spec.transposed else (co, ci)), *spec.kernel)
    s, t = torch.rand(groups, ci) + 0.5, torch.randn(groups, ci)
    how = Fusion("leaky_relu", 0.2, groups=groups)
    x64, w64, s64, t64 = (v.double().requires_grad_() for v in (x, w, s, t))
    rows = lambda v: v.repeat_interleave(n // groups, 0)[:, :, None, None]
    z = F.leaky_relu(x64 * rows(s64) + rows(t64), 0.2)
    if spec.transposed:
        gold = F.conv_transpose2d(z, w64, None, spec.stride, spec.padding, spec.output_padding)
    else:
        gold = F.conv2d(z, w64, None, spec.stride, spec.padding)
    y, partial = conv_forward(x, w, spec, how, s=s, t=t, moments=True, config=gather)
    close(y, gold)
    mean, var = merge_moments(*partial)
    by_group = gold.detach().view(groups, n // groups, co, -1)
    close(mean, by_group.mean((1, 3)), 1e-5)
    close(var, by_group.var((1, 3), unbiased=False), 1e-5)
    dy, a, b = torch.randn(gold.shape), torch.randn(groups, co), torch.randn(groups, co)
    g = dy.double() + spread(a, n) + spread(b, n) * y.double()
    want = torch.autograd.grad(gold, (x64, w64, s64, t64), g)
    for extra, source in (({}, g.float()), ({"y": y, "a": a, "b": b}, dy)):
        dx, sums = conv_dgrad(source, w, spec, size, how, x=x, s=s, t=t, config=gather, **extra)
        dw = conv_wgrad(x, source, spec, how, s=s, t=t, config=wgrad, **extra)
        again = conv_wgrad(x, source, spec, how, s=s, t=t, config=wgrad, **extra)
        assert torch.equal(dw, again)
        for got, expected in zip((dx, dw, *sums), want):
            close(got, expected)


def geometry():
    """Strides that do not divide the kernel, phases of unequal size, wide kernels, one image,
    packed taps of few channels."""
    every_direction(ConvSpec(True, (3, 3), (2, 2), (1, 1)), 1, 9, 5, (4, 3))
    every_direction(ConvSpec(False, (4, 4), (2, 2), (1, 1)), 2, 7, 17, (7, 5), groups=2)
    every_direction(ConvSpec(False, (5, 3), (2, 1), (2, 0)), 1, 3, 9, (7, 6))
    every_direction(ConvSpec(True, (4, 4), (2, 2), (1, 1)), 2, 5, 1, (3, 2), groups=2)


def configurations():
    """Both loop orders with several channel blocks; a reduction of many splits, the last one
    short."""
    spec = ConvSpec(True, (4, 4), (2, 2), (1, 1))
    for order in ("channels", "taps"):
        whole = tile(16, 16, 16, 8, 2, order) | {"SPLIT_K": 1}
        every_direction(spec, 2, 19, 18, (2, 3), gather=whole, wgrad=tile(16, 16, 16, 16, 2))
    config = default_wgrad_config(16, 16, 70, 4) | {"BLOCK_K": 16, "num_warps": 1}
    assert splits_for(1, 70, config, 2) == (5, 16)
    every_direction(ConvSpec(False, (1, 1)), 1, 16, 5, (7, 10), wgrad=config)


def splits():
    """Parts by channels, by rows of taps (some phases have none of a row) and by both; more asked
    than there are."""
    down, up = ConvSpec(False, (4, 4), (2, 2), (1, 1)), ConvSpec(True, (3, 3), (2, 2), (1, 1))
    for order, wanted in (("channels", 5), ("taps", 64)):
        config = tile(16, 32, 16, 4, 2, order) | {"SPLIT_K": wanted}
        every_direction(down, 2, 19, 18, (5, 4), groups=2, gather=config)
        every_direction(up, 1, 18, 19, (2, 3), gather=config)
    x, w = channels_last(torch.randn(1, 33, 3, 3)), torch.randn(5, 33, 4, 4)
    runs = [
        conv_forward(x, w, down, config=tile(16, 16, 16, 4, 2, "taps") | {"SPLIT_K": k})[0]
        for k in (1, 6, 6)
    ]
    assert torch.equal(runs[1], runs[2])
    close(runs[1], runs[0])


def merged_phases():
    """All phases in one pass: several columns of programs, strides of 3, taps that some phases
    lack, phases of unequal size."""
    for spec, shape, channels in (
        (ConvSpec(True, (4, 4), (2, 2), (1, 1)), (3, 2), 5),
        (ConvSpec(True, (5, 3), (2, 3), (2, 0)), (3, 3), 3),
        (ConvSpec(True, (3, 3), (2, 2), (1, 1)), (4, 3), 1),
        (ConvSpec(True, (2, 2), (3, 3)), (2, 2), 2),
    ):
        for merged in (True, False):
            config = tile(16, 16, 16, 4, 2, "taps") | {"MERGED": merged}
            every_direction(spec, 2, 17, channels, shape, groups=2, gather=config)
    config = tile(16, 16, 16, 4, 2, "channels") | {"MERGED": True}
    every_direction(
        ConvSpec(False, (4, 4), (2, 2), (1, 1)), 2, 3, 35, (7, 5), groups=2, gather=config
    )


def gradient_pass():
    torch.manual_seed(0)
    for groups in (1, 2):
        dy, y = torch.randn(4, 5, 3, 7), torch.randn(4, 5, 3, 7)
        mean, dmean, dvar = (torch.randn(groups, 5) for _ in range(3))
        g, sums = form_gradient(
            dy, y, mean, dmean, dvar, act_out="leaky_relu", slope_out=0.3, groups=groups, sums=True
        )
        n = 4 // groups * 21
        want = (
            dy.double()
            + spread(dmean, 4) / n
            + spread(dvar, 4) * 2 / n * (y.double() - spread(mean, 4))
        )
        want = want * torch.where(y > 0, 1.0, 0.3).double()
        close(g, want)
        close(sums, want.sum((0, 2, 3)))


def containers():
    """A fused container on the kernels, every edge, against its children in PyTorch."""
    for edge in EDGES:
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.ConvTranspose2d(5, 9, 4, 1, 0),
            nn.BatchNorm2d(9),
            nn.ReLU(),
            nn.ConvTranspose2d(9, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        )
        x = torch.randn(3, 5, 1, 1, requires_grad=True)
        wanted = [x, *net.parameters()]
        with torch.no_grad():
            u = torch.randn_like(net(x))
        net[1].reset_running_stats()
        want = [torch.autograd.grad(net(x), wanted, u), [b.clone() for b in net.buffers()]]
        net[1].reset_running_stats()
        accelerate(net).edge = edge
        got = [torch.autograd.grad(net(x), wanted, u), list(net.buffers())]
        for (i, a), b in zip(enumerate(got[0]), want[0]):
            assert (
                i == 2 or close(a, b, 2e-5) is None
            )  # the bias before a norm has no gradient but rounding
        for a, b in zip(got[1], want[1]):
            close(a, b, 1e-5)


def switch():
    """The kernels' nodes skip weight gradients under the switch, and still give them in second
    order."""
    torch.manual_seed(0)
    x, w = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(4, 3, 4, 4, requires_grad=True)
    y = conv2d(x, w, None, 2, 1)
    assert "conv_moments" in type(y.grad_fn).__name__.lower()
    with no_weight_gradients():
        (g,) = torch.autograd.grad(y.tanh().sum(), x, create_graph=True)
    g.square().sum().backward()
    (inner,) = torch.autograd.grad(F.conv2d(x, w, None, 2, 1).tanh().sum(), x, create_graph=True)
    (want,) = torch.autograd.grad(inner.square().sum(), w)
    close(w.grad, want, 1e-5)
    w.grad = None
    with no_weight_gradients():
        conv2d(x, w, None, 2, 1).sum().backward()
    assert w.grad is None


if __name__ == "__main__":
    for name in sys.argv[1:]:
        globals()[name]()
