"""The perceptrons of semi-supervised learning on small images (Salimans et al. 2016, code of
MNIST): weight norm and Gaussian noise against softplus and batch norm."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class GaussianNoise(nn.Module):
    """x + N(0, sigma^2) in training, x otherwise."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * torch.randn_like(x) if self.training else x


class Generator(nn.Module):
    """(B, latent) -> (B, channels, size, size) in [-1, 1]."""

    def __init__(
        self, size: int = 28, channels: int = 1, latent: int = 100, hidden: int = 500
    ) -> None:
        super().__init__()
        self.size, self.channels, self.latent, self.hidden = size, channels, latent, hidden
        layers: list[nn.Module] = []
        for inputs in (latent, hidden):
            layers += [nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.Softplus()]
        self.layers = nn.Sequential(
            *layers, weight_norm(nn.Linear(hidden, channels * size * size)), nn.Tanh()
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z).view(-1, self.channels, self.size, self.size)


class Classifier(nn.Module):
    """(B, channels, size, size) -> features (B, widths[-1]) and logits (B, classes).

    noise: standard deviation of the noise on the pixels and on every hidden layer; pixels are those
    of [-1, 1], twice the article's.
    """

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        classes: int = 10,
        widths: tuple[int, ...] = (1000, 500, 250, 250, 250),
        noise: tuple[float, float] = (0.6, 0.5),
    ) -> None:
        super().__init__()
        self.size, self.channels, self.classes = size, channels, classes
        self.widths, self.noise = tuple(widths), tuple(noise)
        layers: list[nn.Module] = [nn.Flatten(), GaussianNoise(noise[0])]
        for inputs, units in itertools.pairwise((channels * size * size, *widths)):
            layers += [weight_norm(nn.Linear(inputs, units)), nn.ReLU(), GaussianNoise(noise[1])]
        self.body = nn.Sequential(*layers)
        self.head = weight_norm(nn.Linear(widths[-1], classes))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images)
        return features, self.head(features)
