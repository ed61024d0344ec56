"""Layers that normalise: in PyTorch's place, real and fake as groups of one batch, compiled.

Run here on the reference path, and with impl="auto" meaning the kernels by test_norm_kernels.py.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from norm_checks import channels_last, close
from torch import nn

from fastgan.kernels.common import INTERPRET
from fastgan.ops.norm import functional as norm
from fastgan.ops.norm import modules


@pytest.mark.parametrize("momentum", [0.1, None, 0.0])
@pytest.mark.parametrize("grad", [True, False])
def test_grouped_is_two_forwards(momentum, grad):
    torch.manual_seed(0)
    theirs = nn.BatchNorm2d(5, momentum=momentum)
    nn.init.normal_(theirs.weight)
    mine = modules.BatchNorm2d.adopt(copy.deepcopy(theirs))
    assert isinstance(mine, nn.BatchNorm2d)
    assert "BatchNorm" in type(mine).__name__
    for _ in range(2):
        real, fake = (channels_last(torch.randn(3, 5, 4, 3) + m) for m in (0.0, 3.0))
        with torch.set_grad_enabled(grad), modules.grouped(2):
            z = mine(channels_last(torch.cat([real, fake])))
        close(z, torch.cat([theirs(real), theirs(fake)]), 1e-5)
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    assert mine.num_batches_tracked == theirs.num_batches_tracked == 4
    for key, value in theirs.state_dict().items():
        close(mine.state_dict()[key], value, 1e-6)
    theirs.eval()
    mine.eval()
    with modules.grouped(2):
        close(mine(real), theirs(real), 1e-6)


def test_gradient_penalty_of_a_network_equals_pytorchs():
    """Second order through stacked layers: the upstream gradient of a layer depends on the weights
    of the layer itself."""
    torch.manual_seed(0)
    theirs = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3, bias=False),
        nn.InstanceNorm2d(4, affine=True),
        nn.Tanh(),
    )
    mine = copy.deepcopy(theirs)
    modules.BatchNorm2d.adopt(mine[1], "tanh")
    modules.InstanceNorm2d.adopt(mine[4], "tanh")
    mine[2] = mine[5] = nn.Identity()
    x = channels_last(torch.randn(3, 3, 8, 7))
    losses = []
    for network in (mine.to(memory_format=torch.channels_last), theirs):
        leaf = x.clone().requires_grad_()
        out = network(leaf)
        (gx,) = torch.autograd.grad(out.sum(), leaf, create_graph=True)
        loss = gx.square().sum((1, 2, 3)).mean() + out.mean()
        loss.backward()
        losses.append(loss)
    close(losses[0], losses[1], 1e-5)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        close(p.grad, q.grad, 2e-5)


def test_modules_are_drop_in():
    for name in (
        "BatchNorm1d",
        "BatchNorm2d",
        "BatchNorm3d",
        "InstanceNorm1d",
        "InstanceNorm2d",
        "InstanceNorm3d",
    ):
        ours, torchs = getattr(modules, name)(4), getattr(nn, name)(4)
        assert isinstance(ours, type(torchs))
        ours.load_state_dict(torchs.state_dict())
        assert ours.state_dict().keys() == torchs.state_dict().keys()
    free = modules.BatchNorm2d(3, track_running_stats=False).eval()
    x = channels_last(torch.randn(2, 3, 3, 3))
    close(free(x), F.batch_norm(x, None, None, free.weight, free.bias, True), 1e-6)
    conditional = modules.ConditionalBatchNorm2d(3, 5, activation="relu")
    assert conditional(x, torch.tensor([1, 4])).shape == x.shape


def test_unbatched_instance_norm_and_layouts():
    ours = modules.InstanceNorm2d(3)
    ours.activation = "relu"
    x = torch.randn(3, 5, 4)
    close(ours(x), F.relu(F.instance_norm(x[None])[0]), 1e-6)
    rows = torch.randn(4, 7, 3).transpose(1, 2)  # (4, 3, 7), channels innermost
    close(
        norm.batch_norm(rows, None, None, training=True),
        F.batch_norm(rows, None, None, training=True),
        1e-6,
    )


@pytest.mark.skipif(INTERPRET, reason="the kernels run there")
def test_a_cumulative_average_on_a_cpu_is_pytorchs_to_the_bit():
    theirs = nn.BatchNorm2d(5, momentum=None)
    ours = modules.BatchNorm2d.adopt(copy.deepcopy(theirs), "identity", 0.0)
    for seed in range(5):
        x = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(ours(x), theirs(x))
    for mine, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.slow
def test_compiles_as_one_graph():
    torch.manual_seed(0)
    eager = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        modules.BatchNorm2d.adopt(nn.BatchNorm2d(4, momentum=None), "leaky_relu", 0.2),
    )
    eager = eager.to(memory_format=torch.channels_last)
    other = copy.deepcopy(eager)
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    x = channels_last(torch.randn(4, 3, 5, 6))
    for _ in range(2):
        a, b = eager(x), compiled(x)
        close(a, b, 1e-6)
        a.square().sum().backward()
        b.square().sum().backward()
    for p, q in zip(
        [*eager.parameters(), *eager.buffers()],
        [*other.parameters(), *other.buffers()],
        strict=True,
    ):
        close(p, q, 1e-6)
        if p.requires_grad:
            close(p.grad, q.grad, 2e-5)
