"""The multilayer perceptrons of the first GAN (Goodfellow et al. 2014): rectifiers and a sigmoid
against maxout and dropout."""

from __future__ import annotations

from torch import Tensor, nn


class Maxout(nn.Module):
    """(B, inputs) -> (B, units): the largest of `pieces` affine maps for each unit (Goodfellow et
    al. 2013)."""

    def __init__(self, inputs: int, units: int, pieces: int = 5) -> None:
        super().__init__()
        self.inputs, self.units, self.pieces = inputs, units, pieces
        self.linear = nn.Linear(inputs, units * pieces)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).view(-1, self.units, self.pieces).amax(2)


class Generator(nn.Module):
    """(B, latent) -> (B, channels, size, size) in [-1, 1]; two hidden layers of `hidden`
    rectifiers."""

    def __init__(
        self, size: int = 28, channels: int = 1, latent: int = 100, hidden: int = 1200
    ) -> None:
        super().__init__()
        self.size, self.channels, self.latent, self.hidden = size, channels, latent, hidden
        self.layers = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, channels * size * size),
            nn.Sigmoid(),
        )
        uniform_init(self, 0.05)

    def forward(self, z: Tensor) -> Tensor:
        return (self.layers(z.flatten(1)) * 2 - 1).view(-1, self.channels, self.size, self.size)


class Discriminator(nn.Module):
    """(B, channels, size, size) -> logits (B, 1); two maxout layers with dropout."""

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        hidden: int = 240,
        pieces: int = 5,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.size, self.channels, self.hidden, self.pieces, self.dropout = (
            size,
            channels,
            hidden,
            pieces,
            dropout,
        )
        self.layers = nn.Sequential(
            nn.Dropout(dropout * 0.4),
            Maxout(channels * size * size, hidden, pieces),
            nn.Dropout(dropout),
            Maxout(hidden, hidden, pieces),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )
        uniform_init(self, 0.005)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers((images.flatten(1) + 1) / 2)


def uniform_init(module: nn.Module, width: float) -> None:
    """U(-width, width) weights and zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.uniform_(layer.weight, -width, width)
            nn.init.zeros_(layer.bias)
