"""Containers inside containers: one accelerate fuses all of them, a second one changes nothing,
revert gives all back."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_accelerate import Tail, fingerprint, rows
from test_accelerate_training import assert_same, gradients
from torch import nn

from fastgan.acceleration import accelerate, report, revert

WIDTH = 3


class Stage(nn.Sequential):
    """A subclass that keeps its forward."""


def block(kind):
    """A few layers that keep the number of channels."""
    return {
        "conv": lambda: [
            nn.Conv2d(WIDTH, WIDTH, 3, 1, 1),
            nn.BatchNorm2d(WIDTH),
            nn.LeakyReLU(0.2, True),
        ],
        "up": lambda: [
            nn.ConvTranspose2d(WIDTH, WIDTH, 3, 1, 1, bias=False),
            nn.InstanceNorm2d(WIDTH),
            nn.ReLU(True),
        ],
        "fold": lambda: [
            nn.Upsample(scale_factor=2),
            nn.Conv2d(WIDTH, WIDTH, 3, 1, 1),
            nn.AvgPool2d(2),
            nn.Tanh(),
        ],
        "open": lambda: [nn.ReLU(), nn.BatchNorm2d(WIDTH)],
        "plain": lambda: [nn.Identity()],
    }[kind]()


leaves = st.sampled_from(["conv", "up", "fold", "open", "plain"])
trees = st.recursive(
    leaves,
    lambda inner: st.tuples(st.booleans(), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=6,
)


def build(tree):
    if isinstance(tree, str):
        return block(tree)
    own, parts = tree
    children = [layer for part in parts for layer in build(part)]
    return [(Stage if own else nn.Sequential)(*children)]


@settings(max_examples=40, deadline=None)
@given(trees)
def test_one_call_is_enough_and_revert_is_complete(tree):
    torch.manual_seed(0)
    net = nn.Sequential(*build(tree))
    plain, before = copy.deepcopy(net), fingerprint(net)
    accelerate(net)
    once, first = fingerprint(net), report(net)
    assert not first.count("left")
    assert not any("call accelerate again" in row.why for row in first.rows)
    accelerate(net)
    assert fingerprint(net) == once
    assert report(net).to_dict() == first.to_dict()
    x = torch.randn(2, WIDTH, 4, 4)
    assert_same(gradients(net, x), gradients(plain, x))
    assert fingerprint(revert(net)) == before


def test_three_levels_of_containers_and_subclasses_fuse_in_one_call():
    deep = Stage(
        nn.Sequential(Stage(*block("conv")), *block("up")),
        nn.Conv2d(WIDTH, WIDTH, 1),
        nn.LeakyReLU(0.1),
    )
    net = accelerate(nn.Sequential(Tail(WIDTH), deep))
    assert {row.path for row in rows(net, "fused")} == {
        "0.0..2",
        "1.1..2",
        "1.0.1..3",
        "1.0.0.0..2",
    }
    assert type(net[1]).__name__ == "Stage"


@pytest.mark.parametrize("wrap", [nn.Sequential, Stage])
def test_a_blocks_own_conv_before_blocks(wrap):
    """The commonest discriminator: a convolution, an activation, and blocks that are containers."""
    net = accelerate(
        nn.Sequential(
            nn.Conv2d(3, 3, 4, 2, 1), nn.LeakyReLU(0.2), wrap(*block("conv")), nn.Conv2d(3, 1, 4)
        )
    )
    assert {row.path for row in rows(net, "fused")} == {"0..1", "2.0..2"}
    assert not rows(net, "left")
