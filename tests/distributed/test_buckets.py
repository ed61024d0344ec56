"""Gradients averaged in buckets: the means of plain averaging, begun while backward still runs."""

import sys

import pytest
import torch
from test_distributed import start
from torch import nn

from fastgan.distributed import buckets
from fastgan.distributed.context import DistributedContext
from fastgan.ops.adam.flat_parameters import FlatParameters

LAYERS = 5


class Done:
    def wait(self):
        pass


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(8, 8, bias=i % 2 == 0) for i in range(LAYERS)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh())))


def made(net, flat, size):
    parameters = list(net.parameters())
    ranks = DistributedContext(0, 2)
    return buckets.GradientBuckets(parameters, ranks, FlatParameters(net) if flat else None, size)


@pytest.fixture
def reduced(monkeypatch):
    """Sizes of what was reduced: twice this process's, as if there were two of it."""
    seen = []

    def all_reduce(value, async_op):
        assert async_op
        seen.append(value.numel())
        value.mul_(2)
        return Done()

    monkeypatch.setattr(buckets.dist, "all_reduce", all_reduce)
    return seen


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("size", [1, 600, 10**9])
def test_means_are_the_gradients_and_buckets_begin_during_backward(flat, size, reduced):
    net, x = network(), torch.randn(4, 8)
    alone = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    given = made(net, flat, size)
    begun_before = []
    net[0].register_full_backward_pre_hook(lambda *_: begun_before.append(len(reduced)))
    x.requires_grad_()
    with given.during_backward():
        net(x).square().sum().backward()
    assert len(reduced) == len(given.buckets)  # none was left for after
    given.finish()
    for p, g in zip(net.parameters(), alone, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=0, atol=0)
    if size == 10**9:
        assert len(reduced) == 1
    else:
        assert 0 < begun_before[0] < len(reduced), "begun before the first layer's gradients"
    assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in net.parameters())


@pytest.mark.parametrize("flat", [False, True])
def test_the_order_is_the_buckets_own_and_what_has_no_gradient_counts_as_zero(flat, reduced):
    net, x = network(), torch.randn(4, 8)
    given = made(net, flat, 1)
    sizes = [bucket.buffer.numel() for bucket in given.buckets]
    with given.during_backward():
        net[:3](x).sum().backward()  # the last layers have none: all wait for them
    assert reduced == []
    given.finish()
    assert reduced == sizes
    assert all(p.grad.abs().sum() == 0 for p in net[3:].parameters())
    assert net[0].weight.grad.abs().sum() > 0
    # a second backward, whose graph was built before: as D's of the fake that G's phase uses again
    for p in net.parameters():
        p.grad = None
    with given.during_backward():
        net(x).sum().backward()
    given.finish()
    assert reduced == 2 * sizes


def test_layouts_and_types_are_the_parameters_own(reduced):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3).bfloat16())
    net[0].to(memory_format=torch.channels_last)
    given = buckets.GradientBuckets(list(net.parameters()), DistributedContext(0, 2))
    assert [bucket.buffer.dtype for bucket in given.buckets] == [torch.bfloat16, torch.float32]
    with given.during_backward():
        net[0](torch.ones(1, 3, 8, 8)).sum().backward()
    given.finish()
    assert net[0].weight.grad.is_contiguous(memory_format=torch.channels_last)
    assert net[0].weight.grad.stride() == net[0].weight.stride()


def test_a_backward_that_fails_leaves_no_hook():
    net = network()
    given = made(net, False, 1)
    with pytest.raises(ValueError, match="lost"), given.during_backward():
        raise ValueError("lost")
    net(torch.ones(1, 8)).sum().backward()  # reduces nothing: there is no process group


AVERAGING = """
import sys, torch, torch.distributed as dist
from torch import nn
from fastgan.distributed import context as ranks
from fastgan.distributed.buckets import GradientBuckets
from fastgan.ops.adam.optimizer import FlatAdam; from fastgan.ops.adam.flat_parameters import FlatParameters
torch.set_num_threads(1)
joined = ranks.join(torch.device("cpu"))
for flat in (False, True):
    torch.manual_seed(0)
    net = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
    options = {"lr": 0.1, "betas": (0.5, 0.9)}
    adam = FlatAdam(FlatParameters(net), **options, impl="reference") if flat else torch.optim.Adam(net.parameters(), **options)
    buckets = GradientBuckets(list(net.parameters()), joined, adam.flat if flat else None, size=16)
    x = torch.randn(4, 3)
    for step in range(3):
        adam.zero_grad()
        with buckets.during_backward():
            net[(joined.rank + step) % 2](x).square().sum().backward()
        buckets.finish()
        alone = [torch.autograd.grad(part(x).square().sum(), part.weight)[0] / 2 for part in net]
        for part, half in zip(net, alone):
            assert torch.allclose(part.weight.grad, half), (flat, step)
        adam.step()
    for p in net.parameters():
        other = p.data.clone()
        dist.broadcast(other, 0)
        assert torch.equal(p.data, other), "the ranks drifted apart"
"""


@pytest.mark.slow
def test_a_gradient_that_only_one_process_has_is_averaged_with_zero():
    started = start(2, [sys.executable, "-c", AVERAGING])
    errors = [p.communicate(timeout=90)[1].decode() for p in started]
    assert all(p.returncode == 0 for p in started), "\n".join(errors)[-3000:]


CAPTURED = """
import sys, numpy as np, torch
from torch import nn
import fastgan
from fastgan.graphs.backends import RecordedGraph
from fastgan.trainer import session
torch.set_num_threads(1)
images = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 1), np.uint8)

def train(recorded):
    session.graph_backend = lambda *_: RecordedGraph if recorded else None
    torch.manual_seed(0)
    G = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    D = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    with fastgan.Trainer(
        G, D, objective=fastgan.Adversarial(latent_shape=(6,), r1=0.1), data=images, batch_size=8,
        progress=False, watch=False, sync_bn=True, device="cpu", precision="fp32", impl="reference",
    ) as trainer:
        trainer.fit(12)
        if recorded:
            assert trainer.active.graph_reason is None, trainer.active.graph_reason
        return [p.detach().clone() for net in trainer.nets.values() for p in net.parameters()]

for one, other in zip(train(False), train(True), strict=True):
    assert torch.equal(one, other)
"""


@pytest.mark.slow
def test_captured_steps_reduce_inside_the_graph():
    """Recorded as a CUDA graph records: replayed collectives give the bits of eager steps."""
    started = start(2, [sys.executable, "-c", CAPTURED])
    errors = [p.communicate(timeout=90)[1].decode() for p in started]
    assert all(p.returncode == 0 for p in started), "\n".join(errors)[-3000:]
