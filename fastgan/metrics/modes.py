"""How many of the modes of a set are made, where each is three things that can be told apart."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.data.rendered.stacked import KINDS
from fastgan.trainer.reuse.subject import Subject

SAMPLES = 10_000
"""Of a thousand modes drawn evenly, so many leave out 0.05."""


def modes_of(kinds: Tensor) -> Tensor:
    """int64 (n, 3) kinds -> (n,) their number of three digits."""
    return kinds @ (KINDS ** torch.arange(2, -1, -1))


def coverage(made: Tensor, real: Tensor) -> tuple[int, float]:
    """Different modes among int64 (n,) `made`, and the Kullback-Leibler divergence in nats of their
    shares from those of `real` (m,), in which no mode counts less than 1 of m (Metz et al. 2017,
    arXiv 1611.02163)."""
    shares = [torch.bincount(one, minlength=KINDS**3).double() for one in (made, real)]
    mine, theirs = shares[0] / len(made), shares[1].clamp_min(1) / len(real)
    there = mine > 0
    divergence = (mine[there] * (mine[there] / theirs[there]).log()).sum()
    return int(there.sum()), float(divergence)


def count_modes(subject: Subject) -> dict[str, float]:
    """Modes of `SAMPLES` samples, as a classifier of one colour sees them, and of as many reals;
    how far their shares are from those of other reals, beside how far the reals' are. Nothing
    for a set without counted modes."""
    from fastgan import data
    from fastgan.judges import instruments

    reals = subject.reals
    if reals.name != "stacked" or "mode" not in reals.fields:
        return {}
    side = reals.fields["image"].shape[0]
    clothes = data.open("fashion-mnist", size=side)
    judge = instruments.fitted(clothes, instruments.reals_of(clothes))

    def seen(images: Tensor) -> Tensor:
        kinds = [judge.predict(part.flatten(0, 1)[:, None]) for part in images.split(1000)]
        return modes_of(torch.cat(kinds).reshape(-1, images.shape[1]))

    pixels = instruments.reals_of(reals)[: 2 * SAMPLES]
    real = torch.cat([seen(part.float() / 255) for part in pixels.split(1000)])
    some, others = real[: len(real) // 2], real[len(real) // 2 :]
    truth = torch.from_numpy(reals.array("mode").copy())[: len(real)]
    count, divergence = coverage(seen(subject.sample(SAMPLES)), others)
    return {
        f"modes in {SAMPLES} samples": count,
        f"modes in {len(some)} reals": coverage(some, others)[0],
        "divergence of their shares, nats": divergence,
        "divergence of the reals' shares, nats": coverage(some, others)[1],
        "reals whose mode is seen right": float((real == truth).float().mean()),
    }
