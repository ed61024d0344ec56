"""The mock itself: it says `cuda` where CUDA would, and refuses what CUDA refuses. Run by
tests/graphs/test_mock_cuda.py."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

CUDA = torch.device("cuda", 0)


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).to("cuda")


class Recorded:
    """A function captured as torch.cuda.graph does it."""

    def __init__(self, function, mode="thread_local", stream=None):
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode=mode, stream=stream):
            self.result = function()


@pytest.fixture(autouse=True)
def default_stream():
    """A failed capture leaves its stream the current one; the next test begins anew."""
    yield
    from mock_cuda import streams

    streams._here.stream = streams.DEFAULT
    streams.GENERATOR.stuck = False
    torch.cuda.synchronize()


def test_tensors_say_where_they_lie():
    x = torch.ones(2, device="cuda")
    assert x.is_cuda
    assert not x.is_cpu
    assert x.device == CUDA
    for y in (
        x * 2,
        x[:1],
        x.t(),
        torch.zeros_like(x),
        x.new_zeros(3),
        copy.deepcopy(x),
        nn.Parameter(x),
        x.sum(),
    ):
        assert y.is_cuda
    for y in (x.cpu(), torch.ones(2), x.to("cpu")):
        assert not y.is_cuda
    host = torch.ones(2)
    moved = host.to("cuda")
    moved.add_(1)
    assert host.tolist() == [1, 1]  # a copy, as it is on a GPU
    assert small_net()[0].weight.device == CUDA
    net = small_net()
    net(torch.ones(1, 3, device="cuda")).sum().backward()
    assert net[0].weight.grad.is_cuda


def test_mixed_devices_are_refused():
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(2, device="cuda") + torch.ones(2)
    with pytest.raises(TypeError, match="numpy"):
        torch.ones(2, device="cuda").numpy()
    assert (torch.ones(2, device="cuda") + torch.tensor(1.0)).tolist() == [
        2,
        2,
    ]  # a number of the host may take part


def test_triton_refuses_host_memory():
    import triton
    import triton.language as tl

    @triton.jit
    def double(x_ptr, n: tl.constexpr):
        at = tl.arange(0, n)
        tl.store(x_ptr + at, 2 * tl.load(x_ptr + at))

    x = torch.arange(4.0, device="cuda")
    double[(1,)](x, 4)
    assert x.tolist() == [0, 2, 4, 6]
    with pytest.raises(ValueError, match="cpu tensor"):
        double[(1,)](torch.arange(4.0), 4)


def test_bf16_is_rounded_to_nearest_even():
    import triton
    import triton.language as tl

    @triton.jit
    def cast(x_ptr, y_ptr, n: tl.constexpr):
        at = tl.arange(0, n)
        tl.store(y_ptr + at, tl.load(x_ptr + at).to(tl.bfloat16))

    x = torch.randn(256, device="cuda") * torch.logspace(-30, 30, 256, device="cuda")
    y = torch.empty(256, device="cuda", dtype=torch.bfloat16)
    cast[(1,)](x, y, 256)
    assert torch.equal(y, x.to(torch.bfloat16))


def test_a_graph_runs_nothing_until_it_is_replayed():
    x = torch.zeros(2, device="cuda")
    recorded = Recorded(lambda: x.add_(1).mul(2))
    assert x.tolist() == [0, 0]
    recorded.graph.replay()
    recorded.graph.replay()
    assert x.tolist() == [2, 2]
    assert recorded.result.tolist() == [4, 4]


def test_random_numbers_of_a_graph_are_the_devices_and_go_on():
    torch.cuda.manual_seed(3)
    eager = [torch.rand(4, device="cuda").tolist() for _ in range(2)]
    torch.cuda.manual_seed(3)
    recorded = Recorded(lambda: torch.rand(4, device="cuda"))
    for wanted in eager:
        recorded.graph.replay()
        assert recorded.result.tolist() == wanted
    before = torch.get_rng_state()
    torch.rand(1, device="cuda")
    assert torch.equal(before, torch.get_rng_state())


READS = {
    "item": lambda x: x.sum().item(),
    "if": lambda x: 1 if x.sum() > 0 else 0,
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "copy": lambda x: torch.empty(2).copy_(x),
    "from the host": lambda x: x.copy_(torch.ones(2)),
    "made on the host": lambda x: torch.tensor([1.0, 2.0], device="cuda"),
    "made on the host for a tensor": lambda x: x.new_tensor(2.0),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "synchronize": lambda x: torch.cuda.synchronize(),
    "stream": lambda x: torch.cuda.current_stream().synchronize(),
    "event": lambda x: torch.cuda.current_stream().record_event().synchronize(),
    "pinned": lambda x: torch.empty(2, pin_memory=True),
    "seed": lambda x: torch.cuda.manual_seed(0),
    "generator's state": lambda x: torch.cuda.get_rng_state(),
}


@pytest.mark.parametrize("what", READS)
def test_a_capture_refuses(what):
    x = torch.ones(2, device="cuda")
    before = torch.cuda.get_rng_state()
    with pytest.raises(RuntimeError) as error:
        Recorded(lambda: (x.add_(1), READS[what](x)))
    assert "capturing" in str(error.value) or "capture" in str(error.value)
    assert not torch.cuda.is_current_stream_capturing()
    torch.cuda.synchronize()
    assert x.tolist() == [1, 1]  # nothing of it ran
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_after_a_failure_all_that_follows_in_the_capture_fails_and_the_stream_stays():
    x = torch.ones(2, device="cuda")
    seen = []

    def swallows():
        try:
            x.sum().item()
        except RuntimeError:
            seen.append("first")
        try:
            x.add_(1)
        except RuntimeError as error:
            seen.append(str(error))

    before = torch.cuda.current_stream()
    with pytest.raises(RuntimeError, match="previous error during capture"):
        Recorded(swallows)
    assert seen[0] == "first"
    assert "previous error" in seen[1]
    assert torch.cuda.current_stream() is not before  # torch.cuda.graph's own way out
    with pytest.raises(RuntimeError, match="outside graph capture"):
        torch.rand(1, device="cuda")
    generator = torch.cuda.default_generators[0]
    generator.graphsafe_set_state(torch.Generator("cuda").graphsafe_get_state())
    torch.rand(1, device="cuda")


OPTIMIZERS = (
    "Adam",
    "AdamW",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Adagrad",
    "Adadelta",
    "Adamax",
    "ASGD",
    "Rprop",
    "SGD",
)


def test_a_generator_of_ones_own_draws_on_its_device():
    drawn = [
        torch.randn(3, device="cuda", generator=torch.Generator("cuda").manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert drawn[0].is_cuda
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    with pytest.raises(RuntimeError, match="Expected a 'cuda' device type"):
        torch.randn(3, device="cuda", generator=torch.Generator())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers_that_count_on_the_host_are_refused(name):
    net = small_net()
    optimizer = getattr(torch.optim, name)(net.parameters(), lr=1e-3)
    x = torch.ones(2, 3, device="cuda")

    def step():
        optimizer.zero_grad()
        net(x).sum().backward()
        optimizer.step()

    step()
    if "capturable" not in optimizer.param_groups[0]:
        Recorded(step).graph.replay()
        return
    with pytest.raises(RuntimeError, match="capturable is False"):
        Recorded(step)
    torch.cuda.stream(None)


def test_fused_alone_is_not_capturable_and_capturable_is():
    for options, allowed in (
        ({"fused": True}, False),
        ({"fused": True, "capturable": True}, True),
        ({"capturable": True}, True),
    ):
        net = small_net()
        optimizer = torch.optim.Adam(net.parameters(), **options)
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        if allowed:
            Recorded(optimizer.step)
        else:
            with pytest.raises(RuntimeError, match="capturable is False"):
                Recorded(optimizer.step)
            default = torch.cuda.default_stream()
            torch.cuda.stream(default).__enter__()


def test_a_stream_that_does_not_wait_is_found():
    side = torch.cuda.Stream()
    x = torch.zeros(4, device="cuda")
    with pytest.raises(RuntimeError, match="another stream"), torch.cuda.stream(side):
        x + 1
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        y = x + 1
    with pytest.raises(RuntimeError, match="another stream"):
        y * 2
    torch.cuda.current_stream().wait_stream(side)
    assert (y * 2).tolist() == [2, 2, 2, 2]
    with torch.cuda.stream(side):
        z = x + 1
    torch.cuda.synchronize()
    assert z.sum() == 4


def test_writing_what_another_stream_still_reads_is_found():
    side, x = torch.cuda.Stream(), torch.zeros(4, device="cuda")
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        x + 1
    with pytest.raises(RuntimeError, match="another stream"):
        x.fill_(3)


def test_pinned_memory_is_not_the_hosts_while_a_copy_reads_it():
    slot, device = torch.empty(4, pin_memory=True), torch.empty(4, device="cuda")
    assert slot.is_pinned()
    slot.numpy()[:] = 1
    device.copy_(slot, non_blocking=True)
    event = torch.cuda.current_stream().record_event()
    with pytest.raises(RuntimeError, match="pinned"):
        slot.numpy()
    event.synchronize()
    slot.numpy()[:] = 2
    assert device.tolist() == [1, 1, 1, 1]


def test_a_capture_holds_what_joined_it():
    side, x = torch.cuda.Stream(), torch.zeros(2, device="cuda")

    def forked(join):
        here = torch.cuda.current_stream()
        side.wait_stream(here)
        with torch.cuda.stream(side):
            x.add_(1)
        if join:
            here.wait_stream(side)

    recorded = Recorded(lambda: forked(True))
    recorded.graph.replay()
    assert x.tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="unjoined"):
        Recorded(lambda: forked(False))


def test_memory_for_an_uncaptured_stream_breaks_a_capture():
    side = torch.cuda.Stream()

    def elsewhere():
        with torch.cuda.stream(side):
            return torch.zeros(2, device="cuda")

    for mode, breaks in (("global", True), ("thread_local", True), ("relaxed", False)):
        if breaks:
            with pytest.raises(RuntimeError, match="captur"):
                Recorded(elsewhere, mode)
            torch.cuda.stream(torch.cuda.default_stream()).__enter__()
        else:
            Recorded(elsewhere, mode)


def test_capture_needs_a_stream_of_its_own_and_a_fresh_graph():
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="non-default"):
        graph.capture_begin()
    with pytest.raises(RuntimeError, match="without a preceding"):
        graph.replay()
    recorded = Recorded(lambda: torch.zeros(1, device="cuda"))
    with pytest.raises(RuntimeError, match="already owns"), torch.cuda.graph(recorded.graph):
        pass
