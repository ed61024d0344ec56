"""Networks for rows of a table (Xu et al. 2019, arXiv 1907.00503, section 4.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Generator(nn.Module):
    """(z (B, latent), condition (B, conditions)) -> (B, outputs) before softmax and tanh.

    Two hidden layers, each of whose outputs, normalised over the batch, joins its inputs.
    """

    def __init__(self, latent: int, conditions: int, outputs: int, width: int = 256) -> None:
        super().__init__()
        self.latent, self.conditions, self.outputs, self.width = latent, conditions, outputs, width
        given = latent + conditions
        self.first = nn.Sequential(nn.Linear(given, width), nn.BatchNorm1d(width), nn.ReLU())
        self.second = nn.Sequential(
            nn.Linear(given + width, width), nn.BatchNorm1d(width), nn.ReLU()
        )
        self.last = nn.Linear(given + 2 * width, outputs)

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        x = torch.cat([z, condition], 1)
        x = torch.cat([x, self.first(x)], 1)
        return self.last(torch.cat([x, self.second(x)], 1))


class Critic(nn.Module):
    """A pack of rows with their conditions, (B, inputs) -> (B, 1)."""

    def __init__(self, inputs: int, width: int = 256, dropout: float = 0.5) -> None:
        super().__init__()
        self.inputs, self.width, self.dropout = inputs, width, dropout
        self.layers = nn.Sequential(
            nn.Linear(inputs, width),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Linear(width, 1),
        )

    def forward(self, rows: Tensor) -> Tensor:
        return self.layers(rows)


class Classifier(nn.Module):
    """Rows without their class, (B, inputs) -> logits (B, classes)."""

    def __init__(self, inputs: int, classes: int, width: int = 256) -> None:
        super().__init__()
        self.inputs, self.classes, self.width = inputs, classes, width
        self.layers = nn.Sequential(
            nn.Linear(inputs, width), nn.LeakyReLU(0.2), nn.Linear(width, classes)
        )

    def forward(self, rows: Tensor) -> Tensor:
        return self.layers(rows)
