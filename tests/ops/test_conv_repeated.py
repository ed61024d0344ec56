"""Transposed convolutions that repeat pixels first: the two steps written out, and accelerate."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastgan
from fastgan.errors import FastganError
from fastgan.models.unet import UNet
from fastgan.ops.conv.repeated import repeated


def test_it_is_repetition_and_a_3x3_convolution() -> None:
    layer = repeated(nn.ConvTranspose2d(3, 5, 4, 2, 1).double())
    weight = layer.parametrizations.weight.original
    assert weight.shape == (5, 3, 3, 3)
    x = torch.randn(2, 3, 6, 7, dtype=torch.double)
    found = layer(x)
    expected = F.conv2d(x.repeat_interleave(2, 2).repeat_interleave(2, 3), weight, layer.bias, 1, 1)
    torch.testing.assert_close(found, expected)
    g = torch.randn_like(found)
    gradients = [torch.autograd.grad(y, weight, g)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_it_can_be_made_without_memory() -> None:
    """As a run's networks are before their weights are read."""
    with torch.device("meta"):
        layer = repeated(nn.ConvTranspose2d(3, 5, 4, 2, 1))
    assert layer.weight.shape == (3, 5, 4, 4)


def test_a_constant_map_has_no_grid() -> None:
    """Inside, one input value everywhere makes one output value; free 4x4 kernels make four."""
    flat = torch.ones(1, 3, 8, 8)
    free = nn.ConvTranspose2d(3, 1, 4, 2, 1)
    inner = [layer(flat)[..., 2:-2, 2:-2] for layer in (free, repeated(copy.deepcopy(free)))]
    assert inner[0].std() > 1e-2
    assert inner[1].std() < 1e-6


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(3, 5, 3, 2, 1),
        nn.ConvTranspose2d(3, 5, 4, 1, 1),
        nn.ConvTranspose2d(4, 4, 4, 2, 1, groups=2),
    ],
    ids=["3x3", "stride 1", "groups"],
)
def test_other_layers_are_refused(layer: nn.ConvTranspose2d) -> None:
    with pytest.raises(FastganError, match="only 4x4 kernels of stride 2"):
        repeated(layer)


def test_accelerate_swaps_as_much_as_without() -> None:
    nets = [UNet(16, 1, 3, 8, dropout=0.0, repeat=repeat) for repeat in (True, False)]
    original = copy.deepcopy(nets[0])
    states = [
        [(row.path, row.status) for row in fastgan.report(fastgan.accelerate(net)).rows]
        for net in nets
    ]
    assert states[0] == states[1]
    x = torch.randn(4, 1, 16, 16)
    torch.testing.assert_close(nets[0](x), original(x))
