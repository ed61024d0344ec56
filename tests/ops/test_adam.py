"""Flat parameters; Adam + EMA against torch.optim.Adam and AdamW: bit for bit in PyTorch, within
ulps in the kernel."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter_child import interpreted, parent, run_interpreted
from torch import nn

from fastgan.errors import FastganError
from fastgan.ops.adam import functional as ops
from fastgan.ops.adam.flat_parameters import FlatParameters
from fastgan.ops.adam.functional import adam_ema_
from fastgan.ops.adam.optimizer import FlatAdam, nonfinite

BETAS = [(0.9, 0.999), (0.5, 0.999), (0.0, 0.99)]
DECAYS = [(0.0, False), (0.1, True), (0.1, False)]
EPS = 2.0**-24


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 33, 3),
        nn.BatchNorm2d(33),
        nn.ConvTranspose2d(33, 17, (5, 3)),
        nn.Flatten(),
        nn.Linear(7, 13),
    )


def set_gradients(step, *networks):
    generator = torch.Generator().manual_seed(step)
    for parameters in zip(*(n.parameters() for n in networks)):
        g = torch.randn(parameters[0].shape, generator=generator) * 10.0 ** (step % 3 - 2)
        for p in parameters:
            p.grad = g.clone()


def scalar(value):
    return torch.tensor(value, dtype=torch.float64)


def test_flat_parameters_are_padded_views_that_keep_values_and_layout():
    net = network()
    before = copy.deepcopy(net)
    own = list(net.parameters())
    flat = FlatParameters(net)
    assert all(a is b for a, b in zip(own, net.parameters()))
    assert flat.names == [name for name, _ in net.named_parameters()]
    for p, q, offset in zip(net.parameters(), before.parameters(), flat.offsets):
        assert torch.equal(p, q)
        assert p.data_ptr() == flat.data.data_ptr() + 4 * offset
        assert offset % 32 == 0
        if p.dim() == 4:
            assert p.is_contiguous(memory_format=torch.channels_last)
    assert flat.data.numel() % 32 == 0
    used = torch.zeros_like(flat.data)
    for view in flat.views(used):
        view.fill_(1)
    assert used.sum() == sum(p.numel() for p in own)
    assert not flat.data[used == 0].any()


def test_flat_parameters_follow_state_dicts_and_collect_gradients():
    net, other = network(), network()
    flat = FlatParameters(net)
    other[0].weight.data.add_(1)
    net.load_state_dict(other.state_dict())
    flat.check()
    assert torch.equal(flat.views(flat.data)[flat.names.index("0.weight")], other[0].weight)
    set_gradients(1, net)
    net[0].bias.grad = None
    grad = flat.collect_grads_()
    for p, view in zip(net.parameters(), flat.views(grad)):
        assert torch.equal(view, torch.zeros_like(p) if p.grad is None else p.grad)


def replace_data(net):
    net[0].weight.data = net[0].weight.data.clone()


@pytest.mark.parametrize("break_views", [nn.Module.double, replace_data])
def test_broken_views_are_reported_by_name(break_views):
    net = network()
    adam = FlatAdam(FlatParameters(net))
    break_views(net)
    with pytest.raises(FastganError, match=r"0\.weight .* flat buffer"):
        adam.step()


@pytest.mark.parametrize(
    "parameters",
    [[], [nn.Parameter(torch.zeros(2, dtype=torch.float64))], [nn.Parameter(torch.zeros(2))] * 2],
    ids=["none", "double", "twice"],
)
def test_flat_parameters_refuse(parameters):
    with pytest.raises(FastganError):
        FlatParameters(parameters)


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize(("decay", "decoupled"), DECAYS)
def test_equals_torch_bit_for_bit_over_twenty_steps(betas, decay, decoupled):
    ours, theirs = network(), network()
    adam = FlatAdam(
        FlatParameters(ours),
        1e-3,
        betas,
        weight_decay=decay,
        decoupled_weight_decay=decoupled,
        impl="reference",
    )
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    other = kind(theirs.parameters(), 1e-3, betas, weight_decay=decay, foreach=False)
    for step in range(20):
        set_gradients(step, ours, theirs)
        for optimizer in (adam, other):
            optimizer.param_groups[0]["lr"] = 1e-3 * (1 + step % 5)
            optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters()):
        assert torch.equal(p, q)
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(adam.state[p][key], other.state[q][key])


def test_state_dicts_load_into_torch_and_back():
    ours, theirs = network(), network()
    adam, other = (
        FlatAdam(FlatParameters(ours), betas=(0.5, 0.9)),
        torch.optim.Adam(theirs.parameters(), foreach=False),
    )
    for step in range(3):
        set_gradients(step, ours)
        adam.step()
    theirs.load_state_dict(ours.state_dict())
    other.load_state_dict(copy.deepcopy(adam.state_dict()))
    back_net = copy.deepcopy(network())
    for step in range(3, 6):
        set_gradients(step, ours, theirs)
        adam.step()
        other.step()
    back_net.load_state_dict(theirs.state_dict())
    back = FlatAdam(FlatParameters(back_net))
    back.load_state_dict(other.state_dict())
    for step in range(6, 8):
        set_gradients(step, ours, back_net)
        adam.step()
        back.step()
    assert back.steps == 8
    for p, q in zip(ours.parameters(), back_net.parameters()):
        assert torch.equal(p, q)


def test_states_that_do_not_fit_are_refused():
    net = network()
    adam, flat_net = torch.optim.Adam(net.parameters(), amsgrad=True), network()
    set_gradients(0, net)
    adam.step()
    flat = FlatAdam(FlatParameters(flat_net))
    with pytest.raises(FastganError, match="amsgrad"):
        flat.load_state_dict(adam.state_dict())
    adam = torch.optim.Adam(net.parameters())
    adam.step()
    state = adam.state_dict()
    state["state"][0]["step"] = torch.tensor(7.0)
    with pytest.raises(FastganError, match="steps"):
        flat.load_state_dict(state)
    with pytest.raises(FastganError, match="one flat buffer"):
        flat.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    with pytest.raises(FastganError, match="betas"):
        FlatAdam(FlatParameters(network()), betas=(0.9, 1.0))


def test_a_stale_backward_still_raises():
    net = nn.Linear(3, 2)
    adam = FlatAdam(FlatParameters(net))
    x = torch.randn(4, 3, requires_grad=True)
    loss = net(x).square().sum()
    loss.backward(retain_graph=True)
    adam.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_lr_may_be_a_device_tensor_and_grads_may_be_given():
    ours, theirs = network(), network()
    lr = torch.tensor(2e-3, dtype=torch.float64)
    adam, other = (
        FlatAdam(FlatParameters(ours), lr, impl="reference"),
        torch.optim.Adam(theirs.parameters(), 2e-3, foreach=False),
    )
    for step in range(3):
        set_gradients(step, ours, theirs)
        grads = [p.grad for p in ours.parameters()]
        for p in ours.parameters():
            p.grad = None
        lr.fill_(2e-3 * (step + 1))
        other.param_groups[0]["lr"] = 2e-3 * (step + 1)
        adam.step(grads=grads)
        other.step()
    for p, q in zip(ours.parameters(), theirs.parameters()):
        assert torch.equal(p, q)


def run(impl, n=160, steps=3, dtype=torch.float32, **more):
    generator = torch.Generator().manual_seed(n)
    draw = lambda scale: torch.randn(n, generator=generator) * scale
    state = dict(
        param=draw(0.02), exp_avg=draw(0.01), exp_avg_sq=draw(0.01).square(), ema=draw(0.02)
    )
    state = {name: t.to(dtype) for name, t in state.items()} | {
        "low": draw(1.0).half(),
        "step": torch.tensor(4.0),
    }
    if dtype == torch.float64:
        state["low"] = None
    for step in range(steps):
        hyper = dict(lr=1e-3 * (step + 1), beta1=0.5, beta2=0.999, eps=1e-8, ema_decay=0.9)
        hyper = {name: scalar(value) for name, value in hyper.items()}
        adam_ema_(grad=draw(0.1).to(dtype), impl=impl, **state, **{**hyper, **more})
    return state


def test_ema_low_copy_and_unscale():
    state = run("reference", steps=1)
    scaled = run("reference", steps=1, scale=torch.tensor(64.0))
    start = run("reference", steps=0)
    assert torch.equal(state["low"], state["param"].half())
    assert torch.allclose(state["ema"], 0.9 * start["ema"] + 0.1 * state["param"], atol=1e-9)
    assert not torch.equal(state["param"], scaled["param"])
    assert state["step"] == 5


@pytest.mark.parametrize(("decay", "decoupled"), DECAYS)
def test_a_non_finite_step_leaves_every_bit(decay, decoupled):
    start = run("reference", steps=0)
    state = {name: t.clone() for name, t in start.items()}
    grad = torch.full_like(start["param"], float("nan"))
    hyper = dict(
        lr=1e-3,
        beta1=0.5,
        beta2=0.9,
        eps=1e-8,
        ema_decay=0.9,
        weight_decay=decay,
        decoupled=decoupled,
    )
    adam_ema_(grad=grad, found_inf=nonfinite(grad), **state, **hyper)
    for name, t in start.items():
        assert torch.equal(state[name], t), name
    assert torch.equal(
        run("reference", found_inf=torch.tensor(0.0))["param"], run("reference")["param"]
    )


def test_nonfinite():
    assert nonfinite(torch.tensor([1.0, -2.0])) == 0
    for bad in (float("inf"), -float("inf"), float("nan")):
        assert nonfinite(torch.tensor([1.0, bad, 2.0])) == 1


def test_the_host_reads_nothing():
    class NoReads(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func is not torch.ops.aten._local_scalar_dense.default
            return func(*args, **(kwargs or {}))

    net = network()
    adam = FlatAdam(FlatParameters(net), weight_decay=0.1, ema_decay=0.9)
    set_gradients(0, net)
    with NoReads():
        adam.step(scale=torch.tensor(2.0), found_inf=torch.tensor(0.0))


def test_unequal_buffers_are_refused():
    x = torch.zeros(32)
    with pytest.raises(FastganError, match="exp_avg"):
        adam_ema_(x, x, x[:16], x, step=torch.tensor(0.0), lr=1e-3, beta1=0.5, beta2=0.9, eps=1e-8)
    with pytest.raises(FastganError, match="ema"):
        adam_ema_(x, x, x, x, x, step=torch.tensor(0.0), lr=1e-3, beta1=0.5, beta2=0.9, eps=1e-8)


@parent
@pytest.mark.slow
def test_in_the_interpreter():
    run_interpreted(__file__)


@interpreted
@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([1, 31, 32, 992, 1024, 1056, 2080]),
    st.sampled_from(BETAS),
    st.sampled_from([(None, False), *DECAYS]),
    st.sampled_from([None, 0.0, 1.0]),
    st.sampled_from([None, 128.0]),
)
def test_kernel_is_the_reference_within_ulps(n, betas, decay, found, scale):
    more = dict(beta1=scalar(betas[0]), beta2=scalar(betas[1]), decoupled=decay[1])
    more |= {} if decay[0] is None else {"weight_decay": scalar(decay[0])}
    more |= {} if found is None else {"found_inf": torch.tensor(found)}
    more |= {} if scale is None else {"scale": torch.tensor(scale)}
    got, want = run("triton", n, steps=1, **more), run("reference", n, steps=1, **more)
    assert got["step"] == want["step"]
    if found:
        start = run("reference", n, steps=0)
        assert all(torch.equal(got[name], t) for name, t in start.items())
        return
    # The interpreter rounds the product of a fused multiply-add, so a moment whose terms cancel may
    # lose an ulp of the larger.
    size = want["exp_avg"].abs().max() + want["param"].abs().max()
    for name in ("param", "exp_avg", "exp_avg_sq", "ema"):
        assert (
            (got[name] - want[name]).abs() <= 4 * EPS * (want[name].abs() + 0.1 * size)
        ).all(), name
    assert (
        (got["low"].float() - want["low"].float()).abs() <= 2**-10 * want["low"].float().abs()
    ).all()


@interpreted
def test_kernel_against_float64_over_twenty_steps():
    gold, got, own = (
        run("reference", steps=20, dtype=torch.float64),
        run("triton", steps=20),
        run("reference", steps=20),
    )
    for name in ("param", "exp_avg", "exp_avg_sq", "ema"):
        error, theirs = (
            (x[name].double() - gold[name]).norm() / gold[name].norm() for x in (got, own)
        )
        assert error < 2 * max(theirs, EPS), name
    assert got["step"] == 24


@interpreted
def test_kernel_counts_steps_and_rewinds_its_ticket():
    from fastgan.kernels import tuning

    ticket = torch.zeros(1, dtype=torch.int32)
    with tuning.override({"adam_ema": {"BLOCK": 64, "PROGRAMS": 3}}):
        few = run("triton", n=1056, ticket=ticket)
    assert few["step"] == 7
    assert ticket == 0
    for name, t in run("triton", n=1056).items():
        assert torch.equal(few[name], t), name


@interpreted
def test_kernel_drives_the_optimizer():
    ours, theirs = network(), network()
    adam = FlatAdam(
        FlatParameters(ours), 1e-3, (0.5, 0.999), ema_decay=0.9, low_precision=torch.float16
    )
    other = torch.optim.Adam(theirs.parameters(), 1e-3, (0.5, 0.999), foreach=False)
    for step in range(3):
        set_gradients(step, ours, theirs)
        adam.step()
        other.step()
    for p, q in zip(ours.parameters(), theirs.parameters()):
        # each of three updates, at most lr, is off by ulps of itself and may flip the parameter's
        # last bit
        assert (p - q).abs().max() <= 3 * (1e-3 * 16 * EPS + 2 * EPS * q.abs().max())
    assert torch.equal(adam.low, adam.flat.data.half())


def uneven():
    """Sizes with and without whole vectors, a piece that ends inside BLOCK, and a parameter of
    several pieces."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 33, 3), nn.Conv2d(32, 40, 3), nn.BatchNorm2d(64), nn.Linear(7, 13)
    )
    return net.to(memory_format=torch.channels_last)


@interpreted
@pytest.mark.parametrize("found", [None, 0.0, 1.0])
def test_kernel_reads_gradients_where_they_lie(found):
    """bf16 and fp32, whole vectors or not, in another layout, missing: the same bits as from one
    flat fp32 gradient."""
    ours, theirs = uneven(), uneven()
    options = dict(
        lr=1e-3, betas=(0.5, 0.999), weight_decay=0.1, ema_decay=0.9, low_precision=torch.bfloat16
    )
    adam, other = (FlatAdam(FlatParameters(net), **options) for net in (ours, theirs))
    found = None if found is None else torch.tensor(found)
    for step in range(2):
        set_gradients(step, ours)
        for i, (p, q) in enumerate(zip(ours.parameters(), theirs.parameters(), strict=True)):
            p.grad_dtype = None
            p.grad = (
                p.grad.to(memory_format=torch.channels_last) if p.dim() == 4 and i else p.grad
            )  # the first: another layout
            p.grad = None if i == 5 and step else p.grad.bfloat16() if i % 2 == 0 else p.grad
            q.grad = None if p.grad is None else p.grad.float()
        adam.step(found_inf=found)
        adam_ema_(
            other.flat.data,
            other.flat.collect_grads_(),
            other.exp_avg,
            other.exp_avg_sq,
            other.ema,
            other.low,
            step=other.steps,
            lr=scalar(1e-3),
            beta1=scalar(0.5),
            beta2=scalar(0.999),
            eps=scalar(1e-8),
            weight_decay=scalar(0.1),
            ema_decay=scalar(0.9),
            found_inf=found,
        )
    assert adam._pieces[0].shape[0] > len(list(ours.parameters()))
    for name in ("exp_avg", "exp_avg_sq", "ema", "low", "steps"):
        assert torch.equal(getattr(adam, name), getattr(other, name)), name
    assert torch.equal(adam.flat.data, other.flat.data)
    assert not torch.equal(adam.flat.data, FlatParameters(uneven()).data) or found


@interpreted
def test_kernel_finds_captured_gradients_by_a_table_that_is_filled_before_the_replay(monkeypatch):
    """Within a capture nothing may come from the host: each graph has its own addresses."""
    net = nn.Linear(32, 4)
    adam = FlatAdam(FlatParameters(net), 1e-3)
    net.weight.grad_dtype = None
    seen = []
    monkeypatch.setattr(ops, "_adam_ema_", lambda *a: seen.append(a))
    net.weight.grad, net.bias.grad = torch.ones(4, 32), torch.ones(4)
    adam.step()
    eager = seen.pop()[-2]
    assert eager[0].tolist() == [net.weight.grad.data_ptr(), 4]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    net.weight.grad = torch.ones(4, 32).bfloat16()
    adam.step()
    captured = seen.pop()[-2]
    assert captured.data_ptr() != eager.data_ptr()
    monkeypatch.undo()
    adam.sync_hyper()
    assert captured.tolist() == [
        [net.weight.grad.data_ptr(), 2],
        [adam.flat.grad_views[1].data_ptr(), 4],
    ]


@interpreted
def test_kernel_is_a_registered_op():
    z = lambda: torch.rand(64)
    scalars = [scalar(v) for v in (1e-3, 0.5, 0.9, 1e-8)]
    arguments = (
        z(),
        [z()],
        z(),
        z(),
        z(),
        z().half(),
        torch.tensor(1.0),
        torch.zeros(1, dtype=torch.int32),
        *scalars,
    )
    torch.library.opcheck(ops._adam_ema_, (*arguments, None, scalar(0.9), None, None, False))


@interpreted
def test_kernel_refuses_float64_masters():
    with pytest.raises(FastganError, match="float32"):
        run("triton", dtype=torch.float64)
