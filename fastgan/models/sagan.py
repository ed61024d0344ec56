"""The networks of SAGAN and of a small BigGAN: class-conditional residual networks with attention,
spectral norm in both and a projection discriminator.

Sources: Zhang et al. 2019 (arXiv 1805.08318), Brock et al. 2019 (arXiv 1809.11096), Miyato & Koyama
2018 (arXiv 1802.05637).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from fastgan.models.dcgan import one_hot
from fastgan.models.layers.attention import SelfAttention
from fastgan.models.layers.conditional import ConditionedBatchNorm2d
from fastgan.models.resnet import DownBlock, levels


def widths(size: int, width: int) -> list[int]:
    """Channels from the 4x4 map to that of `size`; they double inwards up to 8 times `width`."""
    return [width * min(2**i, 8) for i in reversed(range(levels(size) + 1))]


def prepare(net: nn.Module) -> None:
    """Orthogonal weights (Saxe et al. 2014) and spectral norm on every convolution, linear map and
    embedding but those of conditional batch norm; zero biases."""
    norms = [m for m in net.modules() if isinstance(m, ConditionedBatchNorm2d)]
    spared = {id(part) for norm in norms for part in norm.modules()}
    for layer in list(net.modules()):
        if isinstance(layer, (nn.Conv2d, nn.Linear, nn.Embedding)) and id(layer) not in spared:
            nn.init.orthogonal_(layer.weight)
            if getattr(layer, "bias", None) is not None:
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            spectral_norm(layer)


class UpBlock(nn.Module):
    """(B, inputs, H, W), condition (B, conditions) -> (B, outputs, 2H, 2W)."""

    def __init__(self, inputs: int, outputs: int, conditions: int) -> None:
        super().__init__()
        self.norm1 = ConditionedBatchNorm2d(inputs, conditions)
        self.norm2 = ConditionedBatchNorm2d(outputs, conditions)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)
        self.upsample = nn.Upsample(scale_factor=2.0)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(self.upsample(F.relu(self.norm1(x, condition))))
        h = self.conv2(F.relu(self.norm2(h, condition)))
        return h + self.upsample(self.shortcut(x))


class Generator(nn.Module):
    """(z (B, latent), label (B,)) -> (B, channels, size, size) in [-1, 1].

    split: each block is told a part of z of its own beside a shared embedding of the class
        (BigGAN), else the class alone (SAGAN).
    attention: the side of the map that is attended, if there is one.
    """

    def __init__(
        self,
        size: int = 32,
        channels: int = 3,
        classes: int = 10,
        latent: int = 128,
        width: int = 64,
        attention: int = 16,
        split: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.channels, self.classes, self.latent = size, channels, classes, latent
        self.width, self.attention, self.split = width, attention, split
        w = widths(size, width)
        self.part = latent // len(w) if split else 0
        self.embedding = nn.Embedding(classes, 32) if split else None
        conditions = 32 + self.part if split else classes
        self.dense = nn.Linear(latent - self.part * (len(w) - 1), 16 * w[0])
        self.blocks = nn.ModuleList(
            UpBlock(inner, outer, conditions) for inner, outer in itertools.pairwise(w)
        )
        self.attend = nn.ModuleDict(
            {str(i): SelfAttention(c) for i, c in enumerate(w[1:]) if 8 * 2**i == attention}
        )
        self.last = nn.Sequential(
            nn.BatchNorm2d(w[-1]), nn.ReLU(), nn.Conv2d(w[-1], channels, 3, 1, 1), nn.Tanh()
        )
        prepare(self)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        first = z.shape[1] - self.part * len(self.blocks)
        z, *parts = z.split([first, *[self.part] * len(self.blocks)], 1)
        if self.embedding is None:
            told = one_hot(label, self.classes, z)[:, :, 0, 0]
        else:
            told = self.embedding(label)
        h = self.dense(z).unflatten(1, (-1, 4, 4))  # len(z) would fix the batch of an export
        for i, (block, part) in enumerate(zip(self.blocks, parts, strict=True)):
            h = block(h, torch.cat([told, part], 1))
            if str(i) in self.attend:
                h = self.attend[str(i)](h)
        return self.last(h)


class Discriminator(nn.Module):
    """(images, label (B,)) -> logits (B, 1): linear(h) + <embedding(label), h> of the summed last
    map h (Miyato & Koyama 2018, eq. 3)."""

    def __init__(
        self,
        size: int = 32,
        channels: int = 3,
        classes: int = 10,
        width: int = 64,
        attention: int = 16,
    ) -> None:
        super().__init__()
        self.size, self.channels, self.classes = size, channels, classes
        self.width, self.attention = width, attention
        w = [channels, *widths(size, width)[-2::-1]]
        layers: list[nn.Module] = []
        side = size
        for i, (outer, inner) in enumerate(itertools.pairwise(w)):
            layers += [DownBlock(outer, inner, first=i == 0)]
            side //= 2
            if side == attention:
                layers += [SelfAttention(inner)]
        layers += [DownBlock(w[-1], w[-1], down=False)]
        self.blocks = nn.Sequential(*layers)
        self.dense = nn.Linear(w[-1], 1)
        self.embedding = nn.Embedding(classes, w[-1])
        prepare(self)

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        h = F.relu(self.blocks(images)).sum((2, 3))
        return self.dense(h) + (self.embedding(label) * h).sum(1, keepdim=True)
