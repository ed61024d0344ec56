"""Cluster error, k-means and the gap of mutual information where the answer is known."""

import math

import pytest
import torch

from fastgan.metrics.clusters import cluster_error, gap, k_means, mutual_information, principal


def blobs():
    dice = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    return centres[labels] + torch.randn(300, 2, generator=dice), labels


def test_k_means_finds_what_is_apart():
    x, labels = blobs()
    assert cluster_error(k_means(x, 3), labels) == 0


def test_names_come_from_the_other_half():
    _, labels = blobs()
    assert cluster_error(2 - labels, labels) == 0
    assert 0.5 < cluster_error(torch.zeros_like(labels), labels) < 0.8
    assert cluster_error(torch.arange(300), labels) > 0.5  # a cluster each teaches nothing


def test_the_gap_of_perfect_mixed_and_useless_codes():
    dice = torch.Generator().manual_seed(0)
    factors = torch.randint(4, (4000, 2), generator=dice)
    a, b = factors.T.double()
    blind = torch.randn(4000, generator=dice, dtype=torch.double)
    assert gap(torch.stack([a, b, blind], 1), factors) > 0.97
    assert gap(torch.stack([a, a, b, b], 1), factors) < 0.01  # two codes know the same
    assert gap(torch.stack([blind, blind**2], 1), factors) < 0.02
    turned = gap(torch.stack([a + 0.3 * b, b], 1), factors)
    assert 0.4 < turned < 0.6  # b stands in two codes, a in one
    assert gap(torch.stack([a, b], 1), factors) == gap(torch.stack([b, 5 - a], 1), factors)


def test_information_is_that_of_the_formula():
    one, other = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([1, 1, 0, 1, 0])
    told = 0.0
    for i in range(3):
        for j in range(2):
            both = ((one == i) & (other == j)).double().mean().item()
            if both:
                apart = (one == i).double().mean() * (other == j).double().mean()
                told += both * math.log(both / apart.item())
    assert mutual_information(one, other) == pytest.approx(told)
    assert mutual_information(other, other) == pytest.approx(
        -0.6 * math.log(0.6) - 0.4 * math.log(0.4)
    )
    assert mutual_information(one, other) == pytest.approx(mutual_information(other, one))


def test_principal_components_are_uncorrelated_and_the_largest_first():
    dice = torch.Generator().manual_seed(0)
    x = torch.randn(500, 6, generator=dice) * torch.tensor([1.0, 5, 2, 3, 0.1, 0.2]) + 7
    found = principal(x, 3)
    covariance = torch.cov(found.T)
    assert [round(float(v) ** 0.5) for v in covariance.diagonal()] == [5, 3, 2]
    assert (covariance - covariance.diagonal().diag()).abs().max() < 1e-3
