"""Networks in the place of those whose weights are not here."""

import itertools

import torch
from torch import nn
from torch.nn.functional import avg_pool2d


class StandIn(nn.Module):
    """In the place of Inception: block means as features, and some of them as logits."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 1)

    def forward(self, images):
        features = avg_pool2d(images.float() / 64, 4).flatten(1)
        return features, features[:, :5]


class Eye(nn.Module):
    """In the place of EfficientNet-Lite0, whose weights are an extra: maps of four sides."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        channels = (3, 4, 6, 8, 10)
        self.stem = nn.ModuleList(nn.Conv2d(a, b, 3, 1, 1) for a, b in itertools.pairwise(channels))
        for value in self.parameters():
            value.data = torch.randn(value.shape, generator=generator) / 4
        self.eval().requires_grad_(False)

    def maps(self, images):
        found, h = [], nn.functional.avg_pool2d(images, 2)
        for layer in self.stem:
            h = layer(nn.functional.avg_pool2d(h, 2)).tanh()
            found.append(h)
        return found
