"""Spectral norms of somebody's own making: told by a probe, swapped, put back, or left by name."""

import copy
import io
import pathlib
import sys

import pytest
import torch
from torch import nn

from fastgan.acceleration import accelerate, report, revert
from fastgan.kernels.common import INTERPRET
from fastgan.ops.spectral import home_made, modules

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))
import home_made_norms as norms


def pair(make):
    torch.manual_seed(3)
    theirs = make()
    return theirs, accelerate(copy.deepcopy(theirs))


def everything(net, x):
    """Output, gradient penalty, all gradients and all tensors of one training step."""
    net.zero_grad()
    x = x.clone().requires_grad_()
    y = net(x)
    (gx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (y.square().mean() + gx.square().sum()).backward()
    return [y.detach(), gx.detach(), *(p.grad for p in net.parameters() if p.requires_grad)]


def state(net):
    return list(net.state_dict().items())


def close(got, expected, bound):
    for a, b in zip(got, expected, strict=True):
        a, b = a.double(), b.double()
        assert (a - b).norm() <= bound * max(b.norm().item(), 1e-6)


def kernels_everywhere(monkeypatch):
    """Every norm goes the way it goes on a GPU; without the interpreter by the op's formula."""
    for module in (modules, home_made):
        monkeypatch.setattr(module, "kernels_take", lambda weight: weight.dtype == torch.float32)


def test_each_style_is_told_and_the_others_go_their_way():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    net = accelerate(norms.HomeMadeCritic())
    rows = {r.path: r.status for r in report(net).rows if "spectral" in r.module}
    assert rows == dict.fromkeys(("first", "down", "more.0", "more.2", "theirs", "out"), "swapped")
    holders = [modules.holder_of(m) for m in net.modules() if modules.HOME_MADE in m.__dict__]
    assert [(h.iterations, h.v_first, h.eval) for h in holders] == [
        (1, True, "moves"),
        (1, True, "copies"),
        (1, False, "keeps"),
        (2, True, "moves"),
        (1, True, "copies"),  # of one row: two iterations are one
    ]
    torch.random.set_rng_state(before)
    norms.HomeMadeCritic()
    drawn = torch.random.get_rng_state()
    torch.random.set_rng_state(before)
    accelerate(norms.HomeMadeCritic())
    assert torch.equal(torch.random.get_rng_state(), drawn), "a probe draws from nobody's generator"


@pytest.mark.skipif(INTERPRET, reason="the module's own forward runs on a CPU alone")
def test_on_a_cpu_the_bits_are_its_own():
    theirs, mine = pair(norms.HomeMadeCritic)
    x = torch.randn(2, 3, 8, 8)
    for _ in range(3):
        for a, b in zip(everything(mine, x), everything(theirs, x), strict=True):
            assert torch.equal(a, b)
    for net in (mine.eval(), theirs.eval()):
        net(x)
    for (key, a), (other, b) in zip(state(mine), state(theirs), strict=True):
        assert key == other
        assert torch.equal(a, b), key


@pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"]
)
def test_by_the_operator_values_gradients_and_vectors_are_the_same(layout, monkeypatch):
    """Within the bound of spectral_weights, through six layers; sigmas found together."""
    kernels_everywhere(monkeypatch)
    theirs, mine = pair(norms.HomeMadeCritic)
    calls, real = [], modules.spectral_weights
    monkeypatch.setattr(
        modules,
        "spectral_weights",
        lambda weights, *a, **k: (calls.append(len(weights)), real(weights, *a, **k))[1],
    )
    mine.to(memory_format=layout)  # their own forward takes a view of contiguous weights alone
    x = torch.randn(2, 3, 8, 8)
    for _ in range(3):
        close(everything(mine, x), everything(theirs, x), 5e-5)
        close([v for _, v in state(mine)], [v for _, v in state(theirs)], 1e-5)
    # 6 alone; then by what they share: v before u once, u before v once, v before u twice
    assert calls == [1] * 6 + 2 * [3, 2, 1]
    for net in (mine.eval(), theirs.eval()):
        net(x)
    close([mine(x)], [theirs(x)], 5e-5)
    close([v for _, v in state(mine)], [v for _, v in state(theirs)], 1e-5)


def test_revert_is_complete_copies_and_saved_modules_go_on(monkeypatch):
    kernels_everywhere(monkeypatch)

    def make():
        net = norms.HomeMadeCritic()
        net.theirs = nn.Conv2d(4, 4, 3)  # a module with PyTorch's parametrization can't be saved
        return net

    theirs, mine = pair(make)
    x = torch.randn(2, 3, 8, 8)
    keys = {n: set(m.__dict__) for n, m in theirs.named_modules()}
    with torch.no_grad():
        mine(x), theirs(x)
    saved = io.BytesIO()
    torch.save(mine, saved)
    saved.seek(0)
    for twin in (copy.deepcopy(mine), torch.load(saved, weights_only=False)):
        assert report(twin).count("swapped") == report(mine).count("swapped") == 5
        before = [v.clone() for _, v in state(mine)]
        twin(x)
        assert all(torch.equal(v, w) for (_, v), w in zip(state(mine), before, strict=True))
    accelerate(mine)  # twice is harmless
    revert(mine)
    for (name, a), (_, b) in zip(mine.named_modules(), theirs.named_modules(), strict=True):
        assert type(a) is type(b)
        assert set(a.__dict__) <= keys[name] | {"weight"}, name
        assert not a._forward_pre_hooks
        assert not a._forward_hooks
    theirs.load_state_dict(mine.state_dict())
    assert torch.equal(mine(x), theirs(x))


@pytest.mark.parametrize("name", norms.UNSURE)
def test_what_is_unsure_is_left_by_name_with_the_change_that_makes_it_fast(name):
    make, why = norms.UNSURE[name]
    theirs, mine = pair(lambda: nn.Sequential(make(), nn.Tanh()))
    (row,) = [r for r in report(mine).rows if "spectral" in r.module]
    assert row.status == "left"
    assert row.path == "0"
    assert why in row.why
    assert "`spectral_norm(nn.Conv2d(...))` instead" in row.why
    assert type(mine[0]) is type(theirs[0])
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(mine(x), theirs(x))


def test_a_norm_that_is_taken_off_or_set_otherwise_runs_its_own_forward(monkeypatch):
    kernels_everywhere(monkeypatch)
    theirs, mine = pair(norms.HomeMadeCritic)
    x = torch.randn(2, 3, 8, 8)
    for _ in range(2):
        close([mine(x)], [theirs(x)], 5e-5)
    for net in (mine, theirs):
        net.down.iterations = 3
        net.first._update = lambda: None
        net.first.module.weight = nn.Parameter(net.first.module.weight.detach())
        del net.first.module._parameters["weight_bar"]
    for _ in range(2):
        close([mine(x)], [theirs(x)], 5e-5)
        close([v for _, v in state(mine)], [v for _, v in state(theirs)], 1e-5)
    revert(mine)


def test_ops_without_spectral_leave_them():
    net = accelerate(norms.HomeMadeCritic(), ops="conv")
    assert not any(modules.HOME_MADE in m.__dict__ for m in net.modules())
