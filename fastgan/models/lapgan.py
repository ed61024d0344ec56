"""The convolutional networks of a level of a Laplacian pyramid (Denton et al. 2015, arXiv
1506.05751, appendix A)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DetailGenerator(nn.Module):
    """(enlarged image (B, channels, s, s), grain (B, 1, s, s)) -> detail, the shape of the image;
    nearly none at the start."""

    def __init__(self, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        self.channels, self.width = channels, width
        self.layers = nn.Sequential(
            nn.Conv2d(channels + 1, width, 5, 1, 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 5, 1, 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, channels, 5, 1, 2),
        )
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d)
        nn.init.normal_(last.weight, std=0.002)

    def forward(self, coarse: Tensor, grain: Tensor) -> Tensor:
        return self.layers(torch.cat([coarse, grain], 1))


class DetailDiscriminator(nn.Module):
    """(detail, enlarged image), both (B, channels, side, side) -> logits (B, 1)."""

    def __init__(
        self, side: int = 16, channels: int = 3, width: int = 64, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.side, self.channels, self.width, self.dropout = side, channels, width, dropout
        inner = width * (-(-side // 4)) ** 2
        self.layers = nn.Sequential(
            nn.Conv2d(2 * channels, width, 5, 2, 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 5, 2, 2),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(inner, 1),
        )

    def forward(self, detail: Tensor, coarse: Tensor) -> Tensor:
        return self.layers(torch.cat([detail + coarse, coarse], 1))
