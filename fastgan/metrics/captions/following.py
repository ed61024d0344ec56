"""Whether a run's samples show what their captions say, by judges fitted on reals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgan import paths
from fastgan.data.sets.captions import Captioned, spoken
from fastgan.judges import classifier
from fastgan.metrics.captions import attributes, retrieval
from fastgan.trainer.reuse.subject import Subject

TOLD = 500
"""Held-out captions that samples are asked for, at most."""

LEARNED = 5000
"""Reals that a classifier of an attribute is fitted on, at most."""


def following(subject: Subject) -> dict[str, float]:
    """Of samples of held-out captions, and of the reals with those captions: R-precision; for each
    attribute (`attributes.find`) how often a classifier fitted on other reals sees the value that
    was told, and how often the retriever prefers the caption to one with another value.

    Chance of an attribute is the share of its commonest value: images that nobody told anything
    reach no more. Samples of a caption and of its swapped one are made from the same latents and
    count alike, so that those that don't follow it reach one half. Nothing for images without
    captions, or fewer than a hundred.
    """
    dataset = subject.reals
    if not isinstance(dataset, Captioned):
        return {}
    tokens = torch.from_numpy(dataset.array("tokens"))
    reals = torch.from_numpy(dataset.array("image").copy()).permute(0, 3, 1, 2)
    order = torch.randperm(len(reals), generator=torch.Generator().manual_seed(0))
    apart, rest = order[: len(order) // 10], order[len(order) // 10 :]
    if len(apart) < 10 or len(rest) < 64:
        return {}
    judge = retrieval.fit(reals[rest], tokens[rest], words=len(dataset.words))
    distinct = tokens.unique(dim=0)
    told = apart[:TOLD]
    asked, held = tokens[told], reals[told].float() / 255
    known = frozenset(getattr(subject.load("T"), "words", ()))

    def sample(rows: Tensor) -> Tensor:
        return subject.sample(len(rows), text=_texts(rows, dataset.words, known))

    made = sample(asked)
    count = min(retrieval.CANDIDATES, len(distinct))
    found = {
        f"R-precision of samples, 1 of {count}": retrieval.r_precision(
            judge, made, asked, distinct
        ),
        "R-precision of held-out reals": retrieval.r_precision(judge, held, asked, distinct),
        "chance": 1 / count,
    }
    for attribute in attributes.find(tokens, dataset.words):
        value = attribute.of(tokens)
        has = value[told] >= 0
        learned, truth = rest[value[rest] >= 0][:LEARNED], value[told][has]
        if not len(truth):
            continue
        teller = classifier.cached(
            reals[learned],
            value[learned],
            fingerprint=f"{dataset.fingerprint} {attribute.values}",
            folder=paths.cache_dir() / "metrics",
            classes=list(attribute.values),
        )
        title = f"{attribute.name} as told"
        for who, images in (("samples", made), ("held-out reals", held)):
            found[f"{title}, {who}"] = _share(teller.predict(images[has]) == truth)
        found[f"{title}, chance"] = float(torch.bincount(truth).max()) / len(truth)
        swapped = attribute.swapped(asked)
        others, own, other = sample(swapped)[has], asked[has], swapped[has]
        both = retrieval.preferred(judge, made[has], own, other)
        both += retrieval.preferred(judge, others, other, own)
        found[f"{attribute.name} swapped, samples"] = both / 2
        of_reals = retrieval.preferred(judge, held[has], own, other)
        found[f"{attribute.name} swapped, held-out reals"] = of_reals
        found[f"{attribute.name} swapped, chance"] = 0.5
    return found


def _texts(tokens: Tensor, words: Sequence[str], known: frozenset[str]) -> list[str]:
    """Tokens (n, length) as texts, without words that a run does not know."""
    rows = [" ".join(words[t - 1] for t in row if t) for row in tokens.tolist()]
    return [spoken(row, known) for row in rows]


def _share(right: Tensor) -> float:
    return float(right.double().mean())
