"""FID, KID and IS as torch-fidelity defines them, from Inception weights that the user gives."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastgan.data import Dataset
from fastgan.errors import FastganError
from fastgan.judges.distances import frechet_distance, kernel_distance
from fastgan.judges.inception import InceptionV3, look
from fastgan.judges.instruments import reals_of

REALS = 50_000
"""Real images at most, the first ones of a shuffle by the seed."""

SUBSETS, SUBSET, SPLITS = 100, 1000, 10
SEED = 2020
"""Of torch-fidelity's subsets and shuffles."""


@dataclass(frozen=True)
class Standard:
    """FID, KID (mean and standard deviation over subsets) and IS (over splits) of n samples, FID
    and KID against n_reals images."""

    fid: float
    kid: float
    kid_std: float
    isc: float
    isc_std: float
    n: int
    n_reals: int
    subset: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        found = {"FID": self.fid, "KID": self.kid, "KID std": self.kid_std, "IS": self.isc}
        found |= {"IS std": self.isc_std, "n_fid": self.n, "n_fid_reals": self.n_reals}
        return found | {"fid_protocol": self.protocol}

    @property
    def protocol(self) -> str:
        few = "" if self.n >= 50_000 else "; published FIDs use 50,000 samples, fewer raise FID"
        return (
            f"Inception of 2015-12-05, {self.n:,} samples against {self.n_reals:,} images"
            f"{few}. KID by {SUBSETS} subsets of {self.subset:,}, IS by {SPLITS} splits, as "
            "torch-fidelity."
        )

    def __str__(self) -> str:
        return "\n".join(
            [
                f"  {'FID':<20}{self.fid:>12.4g}",
                f"  {'KID':<20}{self.kid:>12.4g}{self.kid_std:>10.4g}",
                f"  {'IS':<20}{self.isc:>12.4g}{self.isc_std:>10.4g}",
            ]
        )


def standard(net: InceptionV3, images: Tensor, data: Dataset, seed: int = 0) -> Standard:
    """Of images float (n, C, H, W) in [0, 1] against a data set. Raises FastganError where it is
    neither grey nor RGB, or images are too few for the splits of IS."""
    began = time.monotonic()
    if images.shape[1] not in (1, 3):
        raise FastganError(f"FID is of grey or RGB images, not of {images.shape[1]} channels")
    if len(images) < SPLITS:
        raise FastganError(f"{len(images)} samples are too few for the {SPLITS} splits of IS")
    dice = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(data), generator=dice)[:REALS].sort().values
    made, logits = look(net, images.mul(255).round().clamp(0, 255).byte())
    real = torch.cat([look(net, reals_of(data, part))[0] for part in rows.split(1000)])
    subset = min(SUBSET, len(made), len(real))
    return Standard(
        frechet_distance(made, real),
        *kernel_inception_distance(made, real, subset),
        *inception_score(logits),
        len(made),
        len(real),
        subset,
        time.monotonic() - began,
    )


def kernel_inception_distance(a: Tensor, b: Tensor, size: int = SUBSET) -> tuple[float, float]:
    """(mean, standard deviation) of the kernel distance of SUBSETS random subsets of features (n,
    d) and (m, d) (Binkowski et al. 2018)."""
    dice = np.random.RandomState(SEED)
    found = []
    for _ in range(SUBSETS):
        left = dice.choice(len(a), size, replace=False)
        right = dice.choice(len(b), size, replace=False)
        found.append(kernel_distance(a[left], b[right]))
    return float(np.mean(found)), float(np.std(found))


def inception_score(logits: Tensor) -> tuple[float, float]:
    """(mean, standard deviation) over SPLITS parts of exp(E KL(p(y|x) || p(y))), of logits (n,
    classes) (Salimans et al. 2016)."""
    order = np.random.RandomState(SEED).permutation(len(logits))
    logits = logits[torch.from_numpy(order)].double()
    found = []
    for i in range(SPLITS):
        part = logits[i * len(logits) // SPLITS : (i + 1) * len(logits) // SPLITS].log_softmax(1)
        p = part.exp()
        found.append(float((p * (part - p.mean(0).log())).sum(1).mean().exp()))
    return float(np.mean(found)), float(np.std(found))
