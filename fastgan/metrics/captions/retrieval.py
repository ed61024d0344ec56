"""R-precision: whether an image's own caption is the nearest of many, by two encoders fitted on
reals (Xu et al. 2018, arXiv 1711.10485, section 4); and whether it is nearer than another one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.errors import FastganError
from fastgan.judges.classifier import FEATURES, Network, shrink

CANDIDATES = 100


class Retriever:
    """Two encoders into one space: a small convolutional network of images, the mean vector of
    words."""

    def __init__(self, channels: int, words: int) -> None:
        self.images = Network(channels, 2)
        self.words = nn.EmbeddingBag(words + 1, FEATURES, mode="mean", padding_idx=0)

    def scores(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Cosines (n, m) of images float (n, C, H, W) in [0, 1] and tokens int64 (m, length)."""
        return self._seen(images) @ self._read(tokens).mT

    def match(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Cosines (n,) of n images, each with its own tokens (n, length)."""
        return (self._seen(images) * self._read(tokens)).sum(1)

    def _seen(self, images: Tensor) -> Tensor:
        return F.normalize(self.images.features(shrink(images)), dim=1)

    def _read(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.words(tokens), dim=1)


def fit(
    images: Tensor, tokens: Tensor, *, words: int, steps: int = 400, batch: int = 64, seed: int = 0
) -> Retriever:
    """Fit on images uint8 (n, C, H, W) and their tokens int64 (n, length), contrastively: equal
    captions of a batch all count as right."""
    if len(images) < batch:
        raise FastganError(f"{len(images)} images are too few to fit a retriever: at least {batch}")
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        made = Retriever(images.shape[1], words)
        parameters = [*made.images.parameters(), *made.words.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
        made.images.train()
        for _ in range(steps):
            index = torch.randint(len(images), (batch,))
            mine = tokens[index]
            logits = 10 * made.scores(images[index].float() / 255, mine)
            same = (mine[:, None] == mine[None]).all(2).float()
            target = same / same.sum(1, keepdim=True)
            loss = F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    made.images.eval()
    return made


@torch.no_grad()
def r_precision(
    retriever: Retriever, images: Tensor, tokens: Tensor, captions: Tensor, seed: int = 0
) -> float:
    """The share of images float (n, C, H, W) in [0, 1] whose own tokens (n, length) score highest
    among up to CANDIDATES: its own and others drawn from the distinct `captions` (m, length)."""
    dice = torch.Generator().manual_seed(seed)
    right = 0
    own = torch.cat([retriever.scores(part, captions) for part in images.split(250)])
    place = (tokens[:, None] == captions[None]).all(2).long().argmax(1)
    for scores, mine in zip(own, place):
        order = torch.randperm(len(captions), generator=dice)
        others = order[order != mine][: CANDIDATES - 1]
        right += bool((scores[others] < scores[mine]).all())
    return right / len(images)


@torch.no_grad()
def preferred(retriever: Retriever, images: Tensor, own: Tensor, other: Tensor) -> float:
    """The share of images float (n, C, H, W) in [0, 1] that match their own tokens (n, length)
    better than other ones (n, length); a tie is half of one."""
    parts = zip(images.split(250), own.split(250), other.split(250), strict=True)
    more = [retriever.match(x, a) - retriever.match(x, b) for x, a, b in parts]
    return float(torch.cat(more).sign().double().add(1).div(2).mean())
