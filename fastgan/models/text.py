"""A small DF-GAN (Tao et al. 2022, arXiv 2008.05865) and an encoder of short texts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.errors import FastganError
from fastgan.models.resnet import levels


class TextEncoder(nn.Module):
    """Tokens int64 (B, length) -> (B, features): the mean of word vectors, or the last state of a
    GRU over them, and a linear map. Token 0 is no word, k + 1 the k-th of `words`."""

    def __init__(
        self, words: tuple[str, ...], length: int = 16, features: int = 64, gru: bool = False
    ) -> None:
        super().__init__()
        self.words, self.length, self.features, self.gru = tuple(words), length, features, gru
        self.vectors = nn.Embedding(len(words) + 1, features)
        self.recurrent = nn.GRU(features, features, batch_first=True) if gru else None
        self.out = nn.Linear(features, features)

    def forward(self, tokens: Tensor) -> Tensor:
        known = (tokens > 0).to(self.vectors.weight.dtype)[..., None]
        count = known.sum(1).clamp_min(1)
        h = self.vectors(tokens) * known
        if self.recurrent is None:
            return self.out(h.sum(1) / count)
        states = self.recurrent(h)[0]
        last = (count.long() - 1)[..., None].expand(-1, -1, self.features)
        return self.out(states.gather(1, last)[:, 0])

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """int64 (len(texts), length). Raises FastganError naming a word that is not known."""
        index = {word: i + 1 for i, word in enumerate(self.words)}
        made = torch.zeros(len(texts), self.length, dtype=torch.int64)
        for row, text in zip(made, texts):
            found = re.findall(r"[^\W_]+", text.lower())
            if unknown := [word for word in found if word not in index]:
                raise FastganError(
                    f"the run's captions have no word {unknown[0]!r}: it knows "
                    f"{', '.join(self.words[:20])}{', ...' if len(self.words) > 20 else ''}"
                )
            for i, word in enumerate(found[: self.length]):
                row[i] = index[word]
        return made


class Affine(nn.Module):
    """x (B, C, H, W), condition (B, D) -> gain * x + shift, each of a two-layer perceptron; 1 and 0
    at the start."""

    def __init__(self, channels: int, conditions: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(conditions, channels), nn.ReLU())
        self.both = nn.Linear(channels, 2 * channels)
        nn.init.zeros_(self.both.weight)
        with torch.no_grad():
            self.both.bias.copy_(torch.tensor([1.0, 0.0]).repeat_interleave(channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain, shift = self.both(self.hidden(condition))[..., None, None].chunk(2, 1)
        return gain * x + shift


class TextUpBlock(nn.Module):
    """(B, inputs, H, W), condition -> (B, outputs, 2H, 2W); two affines and LeakyReLUs before each
    convolution, no normalisation."""

    def __init__(self, inputs: int, outputs: int, conditions: int) -> None:
        super().__init__()
        self.affines = nn.ModuleList(
            Affine(c, conditions) for c in (inputs, inputs, outputs, outputs)
        )
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)
        self.upsample = nn.Upsample(scale_factor=2.0)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = x = self.upsample(x)
        for i, affine in enumerate(self.affines):
            h = F.leaky_relu(affine(h, condition), 0.2)
            if i == 1:
                h = self.conv1(h)
        return self.conv2(h) + self.shortcut(x)


class TextGenerator(nn.Module):
    """(z (B, latent), text (B, features)) -> (B, channels, size, size) in [-1, 1]."""

    def __init__(
        self,
        size: int = 32,
        channels: int = 3,
        latent: int = 32,
        features: int = 64,
        width: int = 16,
    ) -> None:
        super().__init__()
        self.size, self.channels, self.latent = size, channels, latent
        self.features, self.width = features, width
        w = [width * min(2**i, 8) for i in reversed(range(levels(size) + 1))]
        self.dense = nn.Linear(latent, 16 * w[0])
        self.blocks = nn.ModuleList(
            TextUpBlock(inner, outer, latent + features) for inner, outer in itertools.pairwise(w)
        )
        self.last = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(w[-1], channels, 3, 1, 1), nn.Tanh())

    def forward(self, z: Tensor, text: Tensor) -> Tensor:
        condition = torch.cat([z, text], 1)
        h = self.dense(z).unflatten(1, (-1, 4, 4))
        for block in self.blocks:
            h = block(h, condition)
        return self.last(h)


class TextDownBlock(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H/2, W/2); the residual's gain is learned from 0."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.LeakyReLU(0.2),
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1)
        self.gain = nn.Parameter(torch.zeros(()))
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(self.pool(x)) + self.gain * self.residual(x)


class TextDiscriminator(nn.Module):
    """(images, text (B, features)) -> logits (B, 1); with a second text the logits of each, from
    features of the images that are computed once."""

    def __init__(
        self, size: int = 32, channels: int = 3, features: int = 64, width: int = 16
    ) -> None:
        super().__init__()
        self.size, self.channels, self.features, self.width = size, channels, features, width
        w = [width * min(2**i, 8) for i in range(levels(size) + 1)]
        self.body = nn.Sequential(
            nn.Conv2d(channels, w[0], 3, 1, 1),
            *(TextDownBlock(outer, inner) for outer, inner in itertools.pairwise(w)),
        )
        self.head = nn.Sequential(
            nn.Conv2d(w[-1] + features, 2 * width, 3, 1, 1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 4, bias=False),
            nn.Flatten(),
        )

    def forward(self, images: Tensor, *texts: Tensor) -> Tensor | tuple[Tensor, ...]:
        h = self.body(images)
        logits = tuple(
            self.head(torch.cat([h, text[..., None, None].expand(-1, -1, 4, 4)], 1))
            for text in texts
        )
        return logits if len(logits) > 1 else logits[0]
