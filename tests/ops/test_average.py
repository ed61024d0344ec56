"""Averages in one pass: torch.lerp's numbers, and the engine's averages through it."""

import pytest
import torch
from interpreter_child import interpreted, parent, run_interpreted
from torch import nn

from fastgan.errors import FastganError
from fastgan.ops import average as ops
from fastgan.trainer.optimization.optimizers import Ema

EPS = 2.0**-24


def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 33, 3), nn.BatchNorm2d(33), nn.Flatten(), nn.Linear(7, 13))
    return net.to(memory_format=torch.channels_last)


def moved(net):
    with torch.no_grad():
        for i, value in enumerate([*net.parameters(), *net.buffers()]):
            if value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(i)))
    return net


def formula(net, share):
    """Sub, multiply, add: what the average was computed by before, a rounding each."""
    ema = Ema({"G": net}, 0.9)
    moved(net)
    expected = {
        k: v + (net.state_dict()[k] - v) * share
        for k, v in ema.nets["G"].state_dict().items()
        if v.is_floating_point()
    }
    return ema, expected


def check(share):
    net = network()
    ema, expected = formula(net, torch.tensor(share))
    live, before = net.state_dict(), {k: v.clone() for k, v in ema.nets["G"].state_dict().items()}
    ema.update(torch.tensor(share))
    for key, value in expected.items():
        # the product is not rounded, or the sum is taken from the other end: a rounding of the
        # largest of the terms apart
        size = torch.maximum(before[key].abs(), live[key].abs()) + (live[key] - before[key]).abs()
        assert ((ema.nets["G"].state_dict()[key] - value).abs() <= 2 * EPS * size).all(), key
    return ema


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 1.0])
def test_averages_are_the_three_passes_within_a_rounding(share):
    check(share)


def test_both_ends_are_exact():
    a, b = torch.randn(99), torch.randn(99)
    for share, end in ((0.0, a.clone()), (1.0, b)):
        average = a.clone()
        ops.average_([average], [b], torch.tensor(share))
        assert torch.equal(average, end)


def test_unequal_shapes_are_refused():
    with pytest.raises(FastganError, match=r"\(4,\) can't have shape \(3,\)"):
        ops.average_([torch.zeros(3)], [torch.zeros(4)], torch.tensor(0.5))


def test_what_the_kernel_can_walk():
    x = torch.zeros(4, 3, 2, 2)
    nhwc = x.to(memory_format=torch.channels_last)
    assert ops._walkable(x, x.clone())
    assert ops._walkable(nhwc, nhwc.clone())
    assert not ops._walkable(x, nhwc)
    assert not ops._walkable(x[:, :, 0], x[:, :, 0])
    assert not ops._walkable(torch.zeros(1).expand(3), torch.zeros(1).expand(3))
    assert not ops._walkable(x.double(), x.double())


@parent
@pytest.mark.slow
def test_in_the_interpreter():
    run_interpreted(__file__)


@interpreted
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_kernel_keeps_a_networks_averages(monkeypatch, share):
    calls = []
    launch = ops.kernel.average_
    monkeypatch.setattr(ops.kernel, "average_", lambda *a: calls.append(a) or launch(*a))
    check(share)
    assert len(calls) == 1


class OwnNorm(nn.Module):
    """A batch norm of one's own, with buffers by names of one's own."""

    def __init__(self):
        super().__init__()
        self.register_buffer("stored_mean", torch.zeros(3))
        self.register_buffer("stored_var2", torch.ones(3))
        self.register_buffer("meaning", torch.zeros(3))
        self.register_buffer("u", torch.zeros(3))


def test_statistics_of_a_norm_of_ones_own_are_averaged_and_other_buffers_copied():
    net = OwnNorm()
    ema = Ema({"G": net}, 0.9)
    for buffer in net.buffers():
        buffer.add_(1.0)
    ema.update(torch.tensor(0.25))
    mine = ema.nets["G"]
    assert torch.equal(mine.stored_mean, torch.full((3,), 0.25))
    assert torch.equal(mine.stored_var2, torch.full((3,), 1.25))
    assert torch.equal(mine.meaning, torch.ones(3))
    assert torch.equal(mine.u, torch.ones(3))


@interpreted
def test_kernel_leaves_what_was_taken_over():
    net = network()
    ema = Ema({"G": net}, 0.9)
    ema._rows = ops.average_rows(ema._averaged, ema._live)
    taken = ema.take_over(list(net.parameters()))
    assert ema._rows is None  # the table named them
    before = [t.clone() for t in taken]
    moved(net)
    ema.update(torch.tensor(0.5))
    assert all(torch.equal(t, b) for t, b in zip(taken, before, strict=True))
    assert not torch.equal(ema.nets["G"][1].running_mean, torch.zeros(33))


@interpreted
def test_kernel_is_a_registered_op():
    averages, live = [torch.rand(33), torch.rand(5)], [torch.rand(33), torch.rand(5)]
    rows = ops.average_rows(averages, live)
    # the addresses in `rows` are these tensors': nothing else may be run on copies
    torch.library.opcheck(
        ops._average_,
        (averages, live, torch.tensor(0.5), rows),
        test_utils=("test_schema", "test_faketensor"),
    )
