"""Cluster error and k-means on clusters that are known."""

import torch

from fastgan.metrics.clusters import cluster_error, k_means


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
