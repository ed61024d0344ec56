"""Which network looks at the images of a data set, and what it sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastgan import paths
from fastgan.data import Dataset
from fastgan.errors import FastganError
from fastgan.judges import classifier, efficientnet
from fastgan.judges.classifier import Classifier, cached

GENERAL, SMALL = "EffLite0", "small"


@dataclass(frozen=True)
class Instrument:
    """name: "EffLite0" or "small". key: distances are comparable only where it is equal. features:
    images float (n, C, H, W) in [0, 1] -> (n, d), on the CPU."""

    name: str
    key: str
    features: Callable[[Tensor], Tensor]


def reals_of(data: Dataset, rows: Tensor | None = None) -> Tensor:
    """uint8 (n, C, H, W): all images of a data set, or those of int64 `rows`."""
    array = data.array("image")
    taken = np.array(array) if rows is None else array[rows.numpy()]
    return torch.from_numpy(taken).permute(0, 3, 1, 2).contiguous()


def fitted(data: Dataset, reals: Tensor, folder: Path | None = None) -> Classifier:
    """The small network of a data set with these images, fitted now or kept in `folder` since.
    Raises FastganError."""
    labelled = "label" in data.fields and bool(data.classes)
    return cached(
        reals,
        torch.from_numpy(np.array(data.array("label"))) if labelled else None,
        fingerprint=data.fingerprint,
        folder=folder if folder is not None else paths.cache_dir() / "metrics",
        classes=data.classes,
    )


def check(data: Dataset) -> None:
    """Raises FastganError where `pick` would, without fitting anything."""
    has_images(data)
    if not _general(data):
        classifier.enough(len(data))


def has_images(data: Dataset) -> None:
    """Raises FastganError for data without images."""
    if "image" not in data.fields:
        raise FastganError(f"{data.name} has no images to compare with")
    if data.fields["image"].kind != "image":
        raise FastganError(
            f"{data.name} has samples that are no images, whose distance is not measured while a "
            "run trains: leave evaluate_every out"
        )


def pick(data: Dataset, device: torch.device) -> Instrument:
    """EfficientNet-Lite0 on the device where its package is there, else the small network. Raises
    FastganError."""
    check(data)
    net = efficientnet.load() if _general(data) else None
    if net is not None:
        see = partial(efficientnet.features, net.to(device))
        return Instrument(GENERAL, efficientnet.SHA256[:16], see)
    classifier = fitted(data, reals_of(data))
    return Instrument(SMALL, classifier.key, classifier.features)


def _general(data: Dataset) -> bool:
    grey_or_colour = data.fields["image"].shape[-1] in (1, 3)
    return grey_or_colour and efficientnet.installed() is not None
