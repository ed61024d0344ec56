"""FID, KID and IS: torch-fidelity's definitions written out, on a stand-in network."""

import numpy as np
import pytest
import torch
from stand_ins import StandIn

import fastgan.data
from fastgan.errors import FastganError
from fastgan.judges.distances import frechet_distance, kernel_distance
from fastgan.metrics import standard as std


def data(n=40):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 1), np.uint8)
    return fastgan.data.open(pixels)


def test_the_numbers_are_those_of_the_features():
    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    reals, net = data(), StandIn()
    found = std.standard(net, images, reals)
    made = net((images * 255).round().byte().expand(-1, 3, -1, -1))[0]
    array = torch.from_numpy(reals.array("image").copy()).permute(0, 3, 1, 2)
    real = net(array.expand(-1, 3, -1, -1))[0]
    assert found.fid == pytest.approx(frechet_distance(made, real), rel=1e-5)
    assert (found.n, found.n_reals, found.subset) == (30, 40, 30)
    assert "published FIDs use 50,000" in found.as_dict()["fid_protocol"]


def test_kid_is_the_mean_over_subsets():
    dice = torch.Generator().manual_seed(0)
    a, b = torch.randn(50, 6, generator=dice), torch.randn(60, 6, generator=dice) + 0.5
    assert std.kernel_inception_distance(a, a[:50], 50)[1] == pytest.approx(0, abs=1e-12)
    mean, deviation = std.kernel_inception_distance(a, b, 20)
    assert mean == pytest.approx(kernel_distance(a, b), abs=2 * deviation / 10 + 0.05)
    assert deviation > 0


def test_is_is_its_definition():
    """Ten classes, each certain, evenly: 10. All the same: 1."""
    certain = torch.eye(10).repeat(100, 1)[torch.randperm(1000)] * 100
    mean, deviation = std.inception_score(certain)
    assert 9 < mean < 10
    assert deviation < 0.5
    assert std.inception_score(torch.ones(20, 5)) == pytest.approx((1, 0))


def test_what_it_cannot_measure_is_one_line():
    with pytest.raises(FastganError, match="too few for the 10 splits"):
        std.standard(StandIn(), torch.rand(5, 1, 8, 8), data())
    with pytest.raises(FastganError, match="4 channels"):
        std.standard(StandIn(), torch.rand(20, 4, 8, 8), data())
