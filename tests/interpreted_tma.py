"""Convolutions by TMA in Triton's interpreter, in a process of its own: run by test_conv_tma, or by hand with a name
as argument."""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import copy
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.kernels import conv_tma, tuning
from fastgan.kernels.conv_padded import grid_of, pad
from fastgan.kernels.conv_plan import channels_last
from fastgan.kernels.conv_spec import ConvSpec
from fastgan.ops import no_weight_gradients
from fastgan.ops.conv import conv2d, conv_transpose2d
from fastgan.ops.conv_fused import conv_moments
from fastgan.swap import accelerate

torch.set_num_threads(1)
TMA = {"conv_way": {"WAY": "tma"}}


def error(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30)).item()


def matrices():
    """Every row of a padded matrix is its pixel, every spare row and column exactly zero, whatever the shift."""
    torch.manual_seed(0)
    for spec, size in (
        (ConvSpec(True, (4, 4), (2, 2), (1, 1)), (3, 5)),
        (ConvSpec(False, (4, 4), (2, 2), (1, 1)), (7, 6)),
        (ConvSpec(False, (3, 3), (1, 1), (1, 1)), (4, 3)),
    ):
        n, c = 4, 6
        x, s, t = channels_last(torch.randn(n, c, *size)), torch.rand(2, c) + 0.5, torch.randn(2, c) + 1
        grid = grid_of(spec, n, size)
        large = not spec.transposed
        step = 2 if large and spec.stride == (2, 2) else 1
        got = pad(x, spec, grid, large, u=s, v=t, act="relu", groups=2)[0]
        spread = lambda v: v.repeat_interleave(2, 0)[:, :, None, None]
        z = torch.relu(x * spread(s) + spread(t))
        z = F.pad(z, (0, grid.width * step - size[1], 0, grid.height * step - size[0]))
        blocks = z.reshape(n, c, grid.height, step, grid.width, step).permute(0, 2, 4, 3, 5, 1)
        torch.testing.assert_close(got, blocks.reshape(grid.rows, -1), rtol=1e-6, atol=1e-6)
        dy, b, a = channels_last(torch.randn(n, c, *size)), torch.randn(2, c), torch.randn(2, c)
        g, sums = pad(dy, spec, grid, large, y=x, u=b, v=a, gradient=True, groups=2, sums=True)
        want = dy + x * spread(b) + spread(a)
        assert error(sums, want.sum((0, 2, 3))) < 1e-6
        assert error(g.float().norm(), want.norm()) < 1e-6, "a spare pixel is not zero"


def containers():
    """A generator and a discriminator whose convolutions all go by TMA, against float64: outputs, gradients, buffers."""
    for edge in ("separate", "moments", "on_load"):
        for transposed in (True, False):
            torch.manual_seed(0)
            make = nn.ConvTranspose2d if transposed else nn.Conv2d
            net = nn.Sequential(
                make(16, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), make(32, 16, 4, 2, 1), nn.LeakyReLU(0.2)
            )
            for p in net.parameters():
                if p.dim() == 4:
                    nn.init.normal_(p, 0, 0.1)
                    p.data = p.data.half().float()
            x = channels_last(torch.randn(2, 16, 2, 3) if transposed else torch.randn(2, 16, 8, 12)).half()
            gold = copy.deepcopy(net).double()
            accelerate(net)
            net.edge, net.impl = edge, "triton"
            xg, xm = x.double().requires_grad_(), x.clone().requires_grad_()
            with tuning.override(TMA), mock.patch.object(conv_tma, "conv_tma_forward", wraps=conv_tma.conv_tma_forward) as went:
                y = net(xm)
            assert went.call_count == 2, (edge, transposed, went.call_count)
            want = gold(xg)
            u = torch.randn(want.shape)
            grads = torch.autograd.grad(y, [xm, *net.parameters()], u.to(y.dtype))
            golds = torch.autograd.grad(want, [xg, *gold.parameters()], u.double())
            # y, z, y', g', dz, g are rounded to fp16 on the way (2^-11 each at most, a third of that in L2)
            assert error(y, want) < 1e-3, (edge, transposed, error(y, want))
            for (name, _), a, b in zip([("x", 0), *net.named_parameters()], grads, golds):
                assert error(a, b) < 5e-3, (edge, transposed, name, error(a, b))
            for a, b in zip(net[1].buffers(), gold[1].buffers()):
                assert error(a, b) < 1e-3 or a.dtype == torch.long


def fallback():
    """What TMA cannot take goes by pointers, whatever the table says."""
    calls = [
        (torch.randn(1, 16, 4, 4), torch.randn(16, 16, 4, 4), dict(stride=2, padding=1)),  # fp32
        (torch.randn(1, 12, 4, 4).half(), torch.randn(16, 12, 4, 4), dict(stride=2, padding=1)),  # channels
        (torch.randn(1, 16, 5, 5).half(), torch.randn(16, 16, 4, 4), dict(stride=1, padding=1)),  # reach
    ]
    with tuning.override(TMA), mock.patch.object(conv_tma, "conv_tma_forward", side_effect=AssertionError("went by TMA")):
        for x, w, how in calls:
            y = conv2d(x, w, None, **how, impl="triton")
            assert error(y, F.conv2d(x.double(), w.to(x.dtype).double(), None, **how)) < 1e-3


def higher_order():
    """Weight gradients are repeatable bit by bit over several splits, obey the switch, and second order is exact."""
    torch.manual_seed(0)
    w = torch.randn(16, 16, 4, 4).half().float().requires_grad_()
    x = channels_last(torch.randn(6, 16, 3, 3).half()).requires_grad_()

    def gradient(x, w, **how):
        with tuning.override(TMA):
            y = conv_transpose2d(x, w, None, 2, 1, impl="triton")
        return y, torch.autograd.grad(y.float().tanh().sum(), [x, w], **how)

    splits = mock.Mock(wraps=conv_tma.splits_for)
    with mock.patch.object(conv_tma, "splits_for", splits), mock.patch.object(conv_tma, "multiprocessors", return_value=64):
        first, again = gradient(x, w)[1], gradient(x, w)[1]
        assert all(torch.equal(a, b) for a, b in zip(first, again))
        tiles, rows, config, processors = splits.call_args.args
        assert splits(tiles, rows, config, processors)[0] > 1
    _, (dx, dw) = gradient(x, w, create_graph=True)
    (again,) = torch.autograd.grad(dx.float().square().sum(), w)
    X, W = x.detach().double().requires_grad_(), w.detach().double().requires_grad_()
    dX, dW = torch.autograd.grad(F.conv_transpose2d(X, W, None, 2, 1).tanh().sum(), [X, W], create_graph=True)
    (want,) = torch.autograd.grad(dX.square().sum(), W)
    assert error(dw, dW) < 1e-3
    assert error(again, want) < 5e-3, error(again, want)
    with no_weight_gradients(), tuning.override(TMA):
        conv_transpose2d(x, w, None, 2, 1, impl="triton").sum().backward()
    assert w.grad is None
    assert x.grad is not None


def foreign_operands():
    """Halves of one tensor, expanded gradients, operands off 16 bytes and a neighbour's tile: by both ways as by PyTorch."""
    torch.manual_seed(0)
    flat = torch.randn(16 * 16 * 9 + 1).half()
    w = flat[1:].view(16, 3, 3, 16).permute(0, 3, 1, 2)  # NHWC, two bytes off
    x = channels_last(torch.randn(4, 16, 3, 4)).half().requires_grad_()
    both = torch.randn(2, 32).requires_grad_()
    bias = torch.randn(32)[::2].requires_grad_()
    found = {}
    for way, impl in (("pointer", "triton"), ("tma", "triton"), ("", "reference")):
        choice = {
            "conv_way": {"WAY": way},
            "conv_tma_forward_epilogue": {"BLOCK_K": 64},
            "conv_tma_dgrad_epilogue": {"BLOCK_K": 64},
        }
        s, t = both.chunk(2, dim=1)
        with tuning.override(choice if way else {}):
            y, mean, var = conv_moments(x, w, s, t, bias=bias, padding=1, act_in="relu", groups=2, impl=impl)
            loss = mean.sum() * 3 + var.sum() + y.float().square().sum()
            found[way] = (y, mean, var, *torch.autograd.grad(loss, [x, both, bias]))
            only = conv_moments(x, w, s, t, padding=1, act_in="relu", groups=2, impl=impl)[1].sum()
            found[way] += torch.autograd.grad(only, [x, both])
    for way in ("pointer", "tma"):
        for i, (a, b) in enumerate(zip(found[way], found[""])):
            assert error(a, b) < 2e-3, (way, i, error(a, b))
    with tuning.override(TMA):
        assert conv2d(x[:0], w, None, 1, 1, impl="triton").shape == (0, 16, 3, 4)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        globals()[name]()
