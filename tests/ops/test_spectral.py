"""Spectral norm: PyTorch's values, buffers and gradients for both of its forms, by formulas here
and by the kernels in a child process."""

import copy

import pytest
import torch
from interpreter_child import interpreted, parent, run_child
from spectral_support import close
from torch import nn
from torch.nn.utils import parametrize, remove_spectral_norm
from torch.nn.utils import spectral_norm as hook_form
from torch.nn.utils.parametrizations import spectral_norm as new_form
from torch.utils.checkpoint import checkpoint

from fastgan.acceleration import accelerate, revert
from fastgan.errors import FastganError
from fastgan.ops.norm.modules import grouped
from fastgan.ops.spectral import functional as spectral
from fastgan.ops.spectral import modules as swap_spectral

FORMS = pytest.mark.parametrize("form", [new_form, hook_form], ids=["parametrization", "hook"])


@parent
@pytest.mark.slow
def test_kernels_in_the_interpreter():
    run_child(__file__)


class Critic(nn.Module):
    def __init__(self, form, twice=False):
        super().__init__()
        self.conv = form(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"))
        self.up = form(nn.ConvTranspose2d(4, 3, 4, 2, 1))
        self.embed = form(nn.Embedding(3, 3))
        self.linear = form(nn.Linear(3, 3))
        self.plain = nn.Linear(3, 1)
        self.twice = twice

    def forward(self, x, label):
        h = torch.tanh(self.up(torch.tanh(self.conv(x)))).mean((2, 3))
        h = torch.tanh(self.linear(h)) + self.embed(label)
        if self.twice:
            h = torch.tanh(self.linear(h))
        return self.plain(h)


def state_close(a, b):
    assert list(a.state_dict()) == list(b.state_dict())
    for key, value in b.state_dict().items():
        close(a.state_dict()[key], value)


def with_penalty(network, x, label):
    leaf = x.clone().requires_grad_()
    out = network(leaf, label)
    (gx,) = torch.autograd.grad(out.sum(), leaf, create_graph=True)
    (out.square().mean() + gx.square().sum()).backward()
    return out, gx


@FORMS
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"]
)
def test_a_network_trains_as_pytorchs(form, twice, layout):
    torch.manual_seed(0)
    theirs = Critic(form, twice).to(memory_format=layout)
    mine = copy.deepcopy(theirs)
    accelerate(mine)
    x, label = torch.randn(2, 3, 5, 4), torch.tensor([0, 2])
    for _ in range(3):  # the first forward tells which layers the others find together
        for network in (mine, theirs):
            network.zero_grad()
        for a, b in zip(with_penalty(mine, x, label), with_penalty(theirs, x, label)):
            close(a, b)
        for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
            close(p.grad, q.grad, 1e-5)
        state_close(mine, theirs)
    mine.eval()
    theirs.eval()
    close(mine(x, label), theirs(x, label))
    state_close(mine, theirs)
    mine.train()
    if form is hook_form:  # leaves a weight with a graph on its layer, which no copy takes
        mine.requires_grad_(False)(x, label)
        theirs(x, label)
        mine.requires_grad_(True)
    copied = copy.deepcopy(mine)
    before = {key: value.clone() for key, value in mine.state_dict().items()}
    copied(x, label)
    assert all(torch.equal(mine.state_dict()[key], value) for key, value in before.items())
    revert(mine)
    theirs.load_state_dict(mine.state_dict())
    close(mine(x, label), theirs.train()(x, label))


@interpreted
@FORMS
def test_one_forward_of_several_groups_is_refused(form):
    network = accelerate(Critic(form))
    with grouped(2), pytest.raises(FastganError, match="one sigma a forward"):
        network(torch.ones(2, 3, 4, 4), torch.tensor([0, 1]))


@FORMS
def test_no_grad_training_forward_still_iterates(form):
    torch.manual_seed(0)
    theirs = Critic(form)
    mine = accelerate(copy.deepcopy(theirs))
    with torch.no_grad():
        for _ in range(2):
            close(
                mine(torch.ones(1, 3, 4, 4), torch.tensor([1])),
                theirs(torch.ones(1, 3, 4, 4), torch.tensor([1])),
            )
    state_close(mine, theirs)


@pytest.mark.parametrize("gone", [[0], [2], [0, 2], [0, 2, 4]])
@FORMS
def test_a_norm_may_be_removed_from_an_accelerated_network(form, gone):
    def make():  # no copy: a copy shares the class that removing takes the weight from
        torch.manual_seed(0)
        return nn.Sequential(
            form(nn.Conv2d(3, 4, 3)),
            nn.ReLU(),
            form(nn.Conv2d(4, 4, 3)),
            nn.ReLU(),
            form(nn.Conv2d(4, 2, 1)),
        )

    theirs, mine, x = make(), accelerate(make()), torch.randn(2, 3, 6, 6)
    for _ in range(2):
        close(mine(x), theirs(x))
    for network in (mine, theirs):
        for at in gone:
            if form is new_form:
                parametrize.remove_parametrizations(network[at], "weight")
            else:
                remove_spectral_norm(network[at])
    for _ in range(2):
        close(mine(x), theirs(x))
    state_close(mine, theirs)
    assert type(revert(mine)) is nn.Sequential
    close(mine(x), theirs(x))


def test_a_list_of_other_lengths_is_refused():
    with pytest.raises(FastganError, match="as many of each"):
        spectral.spectral_sigma([torch.ones(2, 2)], [], [])


class Pair(nn.Module):
    """G and D in one module whose forward is G's alone."""

    def __init__(self, form):
        super().__init__()
        conv = lambda a, b: form(nn.Conv2d(a, b, 3, padding=1))
        self.nets = nn.ModuleDict(
            {
                "G": nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 3)),
                "D": nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 1)),
            }
        )

    def forward(self, x):
        return self.nets["G"](x)


@interpreted
@FORMS
def test_a_container_that_calls_one_network_finds_the_others_sigmas_together_too(form, monkeypatch):
    torch.manual_seed(0)
    theirs = Pair(form)
    mine, x = accelerate(copy.deepcopy(theirs)), torch.randn(2, 3, 4, 4)
    calls, real = [], swap_spectral.spectral_weights
    counted = lambda weights, *args, **kw: (calls.append(len(weights)), real(weights, *args, **kw))[
        1
    ]
    monkeypatch.setattr(swap_spectral, "spectral_weights", counted)
    for _ in range(3):
        close(mine(x), theirs(x))
        close(mine.nets["D"](x), theirs.nets["D"](x))
        state_close(mine, theirs)  # D's vectors rest while G runs
    assert calls == [1] * 4 + [2] * 4


@interpreted
@FORMS
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_layers_save_in_backward_what_they_saved_in_forward(form, reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = form(nn.Conv2d(3, 4, 3))
            self.rest = nn.Sequential(form(nn.Conv2d(4, 4, 3)), nn.Tanh(), form(nn.Conv2d(4, 1, 1)))

        def forward(self, x):
            return checkpoint(self.rest, self.first(x), use_reentrant=reentrant)

    torch.manual_seed(0)
    network = accelerate(Checkpointed())
    for _ in range(3):
        network.zero_grad()
        network(torch.randn(2, 3, 6, 6, requires_grad=True)).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@interpreted
@FORMS
def test_transforms_and_batched_gradients_take_pytorchs_formula(form):
    torch.manual_seed(0)
    theirs = nn.Sequential(form(nn.Conv2d(3, 4, 3)), nn.Tanh(), form(nn.ConvTranspose2d(4, 2, 3)))
    mine, x = accelerate(copy.deepcopy(theirs)), torch.randn(2, 3, 5, 5)
    for _ in range(2):
        got, want = (torch.func.grad(lambda v, n=n: n(v).square().sum())(x) for n in (mine, theirs))
        close(got, want)
    for _ in range(2):
        results = []
        for network in (mine, theirs):
            y = network(x)
            many = torch.stack([torch.ones_like(y), y.detach()])
            results.append(
                torch.autograd.grad(y, list(network.parameters()), many, is_grads_batched=True)
            )
        for a, b in zip(*results, strict=True):
            close(a, b, 1e-5)
    state_close(mine, theirs)


@interpreted
@FORMS
def test_under_autocast_layers_take_their_weight_in_its_type(form):
    """The bits of PyTorch's division and cast; a part that runs without autocast divides anew."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = form(nn.Conv2d(3, 4, 3)), form(nn.Linear(4, 2))

        def forward(self, x):
            h = self.conv(x).mean((2, 3))
            with torch.autocast("cpu", enabled=False):
                return self.linear(h.float())

    torch.manual_seed(0)
    theirs = Mixed()
    mine = accelerate(copy.deepcopy(theirs))
    x = torch.randn(2, 3, 6, 6)
    for _ in range(3):
        for network in (mine, theirs):
            network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            outs = [network(x) for network in (mine, theirs)]
        close(*outs, 1e-2)
        for out in outs:
            out.square().sum().backward()
        for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
            close(p.grad, q.grad, 2e-2)
        state_close(mine, theirs)
