"""accelerate(rewrite=True): norms joined with the activations that somebody's forward calls after
them.

Bit for bit on the CPU, on the kernels in a child process, and back.
"""

import copy
import io
import pathlib
import warnings

import pytest
import ten_styles
import torch
import torch.nn.functional as F
from interpreter_child import interpreted, parent, run_child
from test_accelerate import fingerprint
from test_accelerate_training import assert_same, gradients
from torch import nn
from torch.utils.checkpoint import checkpoint

from fastgan.acceleration import accelerate, functional_norms, report, revert
from fastgan.acceleration.joining import Pending
from fastgan.errors import FastganError
from fastgan.kernels.common import INTERPRET
from fastgan.ops.norm import modules as norms

here = pathlib.Path(__file__).parents[1] / "support"
cpu_only = pytest.mark.skipif(INTERPRET, reason="PyTorch's own kernels")
STYLE = pytest.mark.parametrize("style", ten_styles.STYLES)
C = ten_styles.C


@parent
@pytest.mark.slow
def test_joined_on_the_kernels():
    run_child(__file__)


def make(style):
    torch.manual_seed(1)
    return ten_styles.STYLES[style][0]()


def fast(net):
    return accelerate(net, rewrite=True)


def example():
    x = ten_styles.example()
    return x.contiguous(memory_format=torch.channels_last) if INTERPRET else x


def states(net):
    return [row.status for row in report(net).rows if "Norm" in row.module or "norm" in row.module]


@cpu_only
def test_the_table_of_ten_styles():
    page = (here.parents[1] / "docs" / "ten-styles.md").read_text()
    assert page.split(ten_styles.BEGIN)[1].split(ten_styles.END)[0].strip() == ten_styles.table()
    found = ten_styles.rows()
    assert all(joined >= 0.9 * pairs for _, pairs, _, joined, _ in found)


@cpu_only
@STYLE
def test_values_gradients_and_buffers_are_the_same_bit_for_bit(style):
    net = make(style)
    plain, mine = copy.deepcopy(net), fast(net)
    for training in (True, True, False):
        plain.train(training)
        mine.train(training)
        assert_same(gradients(mine, example()), gradients(plain, example()))


@cpu_only
@STYLE
def test_revert_is_complete_and_a_second_call_changes_nothing(style):
    net = make(style)
    before, keys = fingerprint(net), list(net.state_dict())
    fast(net)
    net(example())
    once, told = fingerprint(net), report(net).to_dict()
    fast(net)
    accelerate(net)
    assert fingerprint(net) == once
    assert report(net).to_dict() == told
    assert list(net.state_dict()) == keys
    assert fingerprint(revert(net)) == before
    assert not any("_fastgan" in key or key == "join" for m in net.modules() for key in m.__dict__)


@STYLE
def test_copies_and_saved_modules_go_on(style):
    net = fast(make(style))
    with torch.no_grad():
        net(example())
    for twin in (copy.deepcopy(net), _saved(net)):
        assert report(twin).to_dict() == report(net).to_dict()
        assert [type(m).__name__ for m in twin.modules()] == [
            type(m).__name__ for m in net.modules()
        ]
        with torch.no_grad():
            assert torch.equal(twin(example()), copy.deepcopy(net)(example()))


def _saved(net):
    stored = io.BytesIO()
    try:
        torch.save(net, stored)
    except Exception:  # parametrized modules are saved by nobody
        return copy.deepcopy(net)
    stored.seek(0)
    return torch.load(stored, weights_only=False)


@STYLE
def test_outputs_are_plain_tensors(style):
    net = fast(make(style))
    for _ in range(2):
        assert type(net(example())) is torch.Tensor


@interpreted
@STYLE
def test_on_the_kernels_every_pair_runs_as_one(style, monkeypatch):
    """Values, gradients and buffers by the project's bound through a few layers; and the norms are
    handed the activations."""
    net = make(style).to(memory_format=torch.channels_last)
    plain, mine = copy.deepcopy(net), fast(net)
    handed = []
    for module, name in (
        (norms, "batch_norm"),
        (norms, "instance_norm"),
        (functional_norms, "batch_norm"),
        (functional_norms, "instance_norm"),
    ):
        real = getattr(module, name)
        counted = lambda *a, real=real, **kw: (handed.append(kw.get("activation")), real(*a, **kw))[
            1
        ]
        monkeypatch.setattr(module, name, counted)
    for _ in range(2):
        handed.clear()
        x = [example().requires_grad_() for _ in (mine, plain)]
        results = []
        for one, leaf in zip((mine, plain), x):
            y = one(leaf)
            weights = torch.linspace(-1, 1, y.numel()).view_as(y)
            results.append(
                [
                    y,
                    *torch.autograd.grad((y * weights).sum(), [leaf, *one.parameters()]),
                    *one.buffers(),
                ]
            )
        largest = max(b.double().norm().item() for b in results[1][1:])
        for a, b in zip(*results, strict=True):
            assert (a.double() - b.double()).norm() <= 2e-4 * max(
                b.double().norm().item(), 0.1 * largest
            )
    assert None not in handed
    assert len(handed) >= ten_styles.STYLES[style][1]


# What happens where the expected does not.


class Fickle(nn.Module):
    """`how` decides what takes the norm's output; torch.fx stops at the first line."""

    def __init__(self, norm=None):
        super().__init__()
        self.norm, self.how = norm or nn.BatchNorm2d(C), "relu"

    def forward(self, x):
        if x.sum() == 0:
            return x
        h = self.norm(x)
        if self.how == "relu":
            return torch.relu(h)
        if self.how == "twice":
            return torch.relu(h) + h
        if self.how == "in place":
            return F.relu(h, inplace=True) + h
        if self.how == "cat":
            return torch.cat([h, x], 1)
        if self.how == "scaled twice":
            return torch.relu(h * x.mean((2, 3), keepdim=True)) * torch.tanh(h - 1)
        if self.how == "attribute":
            assert h.shape == x.shape
            assert h.dim() == 4
            return torch.relu(h) if h.is_floating_point() else h
        if self.how == "written over":
            with torch.no_grad():
                x.mul_(2)
            return torch.relu(h)
        if self.how == "no grad":
            with torch.no_grad():
                return torch.tanh(h) + h
        if self.how == "function":
            return Twice.apply(h)
        raise AssertionError(self.how)


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


def same(mine, plain, how):
    mine.how = plain.how = how
    got, want = gradients(mine, example()), gradients(plain, example())
    if not INTERPRET:
        assert_same(got, want)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


NORMS = {
    "batch": lambda: nn.BatchNorm2d(C),
    "instance": lambda: nn.InstanceNorm2d(C, affine=True, track_running_stats=True),
    "cumulative": lambda: nn.BatchNorm2d(C, momentum=None),
}


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("how", ["twice", "cat", "scaled twice"])
def test_other_takers_get_the_plain_output_and_the_place_runs_apart_with_one_line(norm, how):
    plain = Fickle(NORMS[norm]())
    mine = fast(copy.deepcopy(plain))
    for _ in range(2):
        same(mine, plain, "relu")
    assert states(mine) == ["joined"]
    if INTERPRET:
        with pytest.warns(UserWarning, match="run apart from now on") as warned:
            same(mine, plain, how)
        assert len(warned) == 1
        assert states(mine) == ["swapped"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for after in (how, "relu"):
            same(mine, plain, after)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("how", ["in place", "attribute"])
def test_writing_over_and_asking_for_a_shape_part_nothing(norm, how):
    plain = Fickle(NORMS[norm]())
    mine = fast(copy.deepcopy(plain))
    for _ in range(2):
        same(mine, plain, how)
    assert states(mine) == ["joined"]


def test_a_gradient_switch_between_norm_and_activation_counts():
    plain = Fickle()
    mine = fast(copy.deepcopy(plain))
    same(mine, plain, "relu")
    for net in (mine, plain):
        net.how = "no grad"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got, want = mine(example().requires_grad_()), plain(example().requires_grad_())
    assert got.requires_grad == want.requires_grad
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_a_function_that_nobody_sees_is_never_joined_and_fails_at_once_where_it_comes_later():
    plain = Fickle()
    mine = fast(copy.deepcopy(plain))
    for _ in range(2):
        same(mine, plain, "function")
    assert states(mine) == ["swapped"]
    mine = fast(copy.deepcopy(revert(mine)))
    same(mine, plain, "relu")
    mine.how = "function"
    if INTERPRET:
        with (
            pytest.warns(UserWarning, match="run apart"),
            pytest.raises(RuntimeError, match="invalid gradient"),
        ):
            mine(example().requires_grad_()).sum().backward()


@interpreted
def test_an_input_that_is_written_over_before_its_norm_runs_is_named():
    net = Fickle()
    mine = fast(net)
    mine(example())
    mine.how = "written over"
    with (
        torch.no_grad(),
        pytest.raises(FastganError, match="written over before its output was used"),
    ):
        mine(example())


def test_hooks_transforms_and_compilation_see_the_plain_output():
    plain = Fickle()
    mine = fast(copy.deepcopy(plain))
    same(mine, plain, "relu")
    mine.eval()
    plain.eval()
    got, want = (
        torch.func.grad(lambda x, n=n: n.norm(x).relu().square().sum())(example())
        for n in (mine, plain)
    )
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    mine.train()
    plain.train()
    seen = []
    mine.norm.register_forward_hook(lambda module, args, out: seen.append(type(out)))
    mine.norm.register_full_backward_hook(lambda module, before, after: seen.append(type(after[0])))
    same(mine, plain, "relu")
    assert set(seen) == {torch.Tensor}


def test_the_first_forward_inside_a_checkpoint_decides_nothing():
    plain = Fickle()
    mine = fast(copy.deepcopy(plain))
    for _ in range(2):
        for net in (mine, plain):
            net.zero_grad()
            checkpoint(
                net, example().requires_grad_(), use_reentrant=False
            ).square().sum().backward()
        torch.testing.assert_close(
            mine.norm.weight.grad, plain.norm.weight.grad, rtol=1e-4, atol=1e-4
        )
    assert "inside activation checkpointing" in str(report(mine))


class Swish(nn.Module):
    """An activation by hand: two functions take the norm's output."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(C)

    def forward(self, x):
        h = self.norm(x)
        return h * torch.sigmoid(h) if x.dim() == 4 and bool(x.sum() < 1e9) else h


def test_two_takers_in_the_first_forward_are_no_news():
    plain = Swish()
    mine = fast(copy.deepcopy(plain))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            torch.testing.assert_close(mine(example()), plain(example()), rtol=1e-4, atol=1e-4)
    assert states(mine) == ["swapped"]


def test_a_container_that_is_walked_by_hand_joins_too():
    class Walking(nn.Module):
        def __init__(self):
            super().__init__()
            conv = lambda: nn.Conv2d(C, C, 3, 1, 1)
            self.main = nn.Sequential(
                conv(),
                nn.BatchNorm2d(C),
                nn.ReLU(),
                conv(),
                nn.BatchNorm2d(C),
                conv(),
                nn.BatchNorm2d(C),
            )

        def forward(self, x):
            for layer in self.main:
                x = layer(x)
            return self.main(x)

    plain = Walking()
    mine = fast(copy.deepcopy(plain))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            torch.testing.assert_close(mine(example()), plain(example()), rtol=2e-4, atol=2e-4)
    assert mine.main[1].join.state == "joined"
    assert mine.main[4].join.why == "conv2d takes its output"


def test_an_activation_outside_the_table_is_named():
    class Gelu(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(C)

        def forward(self, x):
            return F.gelu(self.norm(x))

    net = fast(Gelu())
    net(example())
    assert [row.why for row in report(net).rows] == ["runs apart: gelu takes its output"]


class OwnNorm(nn.BatchNorm2d):
    """A subclass that conditions what its base computed."""

    def forward(self, x):
        gain = x.mean((2, 3), keepdim=True)
        return super().forward(x) * (1 + gain) + gain[:, :, 0, 0][..., None, None]


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.own, self.act = OwnNorm(C), nn.LeakyReLU(0.3)

    def forward(self, x):
        return self.act(self.own(x))


def test_a_subclass_with_a_forward_of_its_own_joins_by_its_bases_function():
    plain = Around()
    mine = fast(copy.deepcopy(plain))
    for _ in range(2):
        got, want = gradients(mine, example()), gradients(plain, example())
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert [row.module for row in report(mine).rows if row.status == "joined"] == [
        "F.batch_norm > leaky_relu"
    ]
    assert isinstance(mine.own, OwnNorm)
    assert type(revert(mine).own) is OwnNorm


def test_a_wider_gain_keeps_the_type_that_pytorch_gives():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(C)

        def forward(self, x):
            return torch.relu(self.norm(x) * torch.full((1, C, 1, 1), 2.0, dtype=torch.float64))

    plain = Wide()
    mine = fast(copy.deepcopy(plain))
    for _ in range(2):
        assert mine(example()).dtype == plain(example()).dtype == torch.float64
    assert states(mine) == ["swapped"]


def test_an_output_that_is_still_watched_is_a_tensor_like_any_other():
    net = fast(nn.Sequential(nn.BatchNorm2d(C)))
    plain = revert(copy.deepcopy(net))
    out = net(example())
    assert isinstance(out, Pending)
    out.square().sum().backward()
    assert torch.equal(out.detach(), plain(example())) or INTERPRET
    assert net[0].weight.grad is not None
    assert type(net(example())) is torch.Tensor  # nothing of ours takes it: it is plain from now on
