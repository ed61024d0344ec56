"""What the report says of runs outside any nn.Sequential: torch.fx finds them, nothing is rewritten
and nothing stays behind."""

import copy

import torch
import torch.nn.functional as F
from test_accelerate import fingerprint, network, rows
from torch import nn

from fastgan.acceleration import accelerate, report


class Explicit(nn.Module):
    """A block that calls its children by name, remembers what it saw and counts its calls."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3), nn.InstanceNorm2d(4)
        self.seen, self.last = [], None
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.seen.append(x)
        self.last = x
        self.calls += 1
        h = self.act(self.bn(self.conv(x)))
        return F.leaky_relu(self.bn2(self.conv2(h)), 0.2) + torch.randn(1)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.block, self.bn = Explicit(), nn.BatchNorm2d(4)

    def forward(self, x):
        h = self.block(x)
        return torch.relu(self.bn(h)) if h.sum() > 0 else h


class Skipping(nn.Module):
    """The convolution's output is used twice: no run."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x):
        h = self.conv(x)
        return self.act(self.bn(h)) + h


def found(net):
    return [(row.path, row.module) for row in rows(net, "could fuse")]


def test_runs_that_a_forward_calls_one_by_one_are_named():
    net = nn.Sequential(Explicit())
    expected = [
        ("0.conv, bn, act", "Conv2d > BatchNorm2d > ReLU"),
        ("0.conv2, bn2", "Conv2d > InstanceNorm2d > leaky_relu"),
    ]
    assert found(net) == expected
    accelerate(net)
    assert found(net) == expected
    assert "Explicit.forward calls them one by one" in str(report(net))
    assert [row.path for row in rows(net, "swapped")] == ["0.bn", "0.bn2"]


def test_discovery_leaves_nothing_behind():
    net = Explicit()
    before, state = fingerprint(net), torch.get_rng_state()
    accelerate(net, strict=True)
    report(net)
    assert net.seen == []
    assert net.last is None
    assert float(net.calls) == 0
    assert torch.equal(torch.get_rng_state(), state)
    assert [k for _, _, _, *rest in fingerprint(net) for k in rest] == [
        k for _, _, _, *rest in before for k in rest
    ]
    plain = copy.deepcopy(net)
    torch.manual_seed(0)
    out = net(torch.ones(2, 3, 8, 8))
    torch.manual_seed(0)
    assert torch.equal(out, plain(torch.ones(2, 3, 8, 8)))


def test_a_forward_that_cannot_be_traced_is_said_to_be_so_and_the_others_are_still_found():
    net = Branching()
    (row,) = rows(net, "not traced")
    assert (row.path, row.module) == ("", "Branching")
    assert "torch.fx cannot follow" in row.why
    assert [path for path, _ in found(net)] == ["block.conv, bn, act", "block.conv2, bn2"]


def test_what_somebody_else_sees_or_what_is_left_is_no_run():
    assert found(Skipping()) == [("bn, act", "BatchNorm2d > ReLU")]
    net = Explicit()
    net.bn.register_forward_hook(lambda module, args, out: None)
    assert ("conv, bn, act", "Conv2d > BatchNorm2d > ReLU") not in found(net)
    net = Explicit()
    net.forward = lambda x: x
    assert not found(net)


def test_residual_networks():
    assert [path for path, _ in found(network("sngan-d")[0])][:2] == [
        "block1.conv1, activation",
        "block2.conv1, activation",
    ]
    assert found(network("sngan-g")[0]) == [("bn", "BatchNorm2d > relu"), ("out", "Conv2d > tanh")]
    assert not found(network("unet")[0])
