"""A small network fitted on the real images, as an instrument: it names classes, and its features
carry the distances."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan import files
from fastgan.errors import FastganError

SIDE = 32
"""Longer side that images are brought down to (bilinear, antialiased); smaller images stay as they
are."""

FEATURES = 64
"""Width of the penultimate layer, which the distances use."""

EPOCHS, BATCH, RATE = 6, 50, 4e-3
MIN_STEPS = 200
"""Small data sets are gone through more often than EPOCHS times, for at least so many steps."""

FEWEST = 40
"""Images that a network can be fitted on."""

VERSION = 1
"""Part of the cache key: raise it when the network or its training changes, for then scores aren't
comparable."""


def enough(count: int) -> None:
    """Raises FastganError for fewer images than that."""
    if count < FEWEST:
        raise FastganError(f"{count} images are too few to measure against: at least {FEWEST}")


def shrink(images: Tensor) -> Tensor:
    """Images (n, C, H, W) with a longer side of at most SIDE."""
    height, width = images.shape[2:]
    if max(height, width) <= SIDE:
        return images
    factor = SIDE / max(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


class Network(nn.Module):
    """Images (n, C, H, W) in [0, 1] -> class logits (n, classes); `features` -> (n, 64)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, kernel in ((channels, 32, 5), (32, 64, 3), (64, 96, 3)):
            layers += [
                nn.Conv2d(before, after, kernel, 2, kernel // 2, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.narrow = nn.Sequential(nn.Linear(96 * 16, FEATURES), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(FEATURES, classes)

    def features(self, images: Tensor) -> Tensor:
        return self.narrow(self.body((images - 0.5) * 2))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


@dataclass
class Classifier:
    """A fitted network. accuracy: share of right answers on held-out reals. task: "classes", or
        "rotations" for unlabelled data.

    key: identifies data, network and training; scores are comparable only where it is equal,
        and made on one kind of CPU: others round the fit differently.
    """

    network: Network
    task: str
    accuracy: float
    held_out: int
    names: list[str]
    key: str
    seconds: float = 0.0

    @torch.inference_mode()
    def _run(self, images: Tensor, call: Any) -> Tensor:
        channels = self.network.body[0].in_channels
        if images.ndim != 4 or images.shape[1] != channels:
            raise FastganError(
                f"expected images of shape (N, {channels}, H, W), not {tuple(images.shape)}"
            )
        if not images.is_floating_point():
            raise FastganError("expected float images in [0, 1]: divide uint8 by 255")
        self.network.eval()
        return torch.cat([call(shrink(part.detach().cpu().float())) for part in images.split(250)])

    def features(self, images: Tensor) -> Tensor:
        """Penultimate activations (n, 64) of images float (n, C, H, W) in [0, 1]."""
        return self._run(images, self.network.features)

    def predict(self, images: Tensor) -> Tensor:
        """Class indices int64 (n,)."""
        return self._run(images, self.network).argmax(1)


def fit(
    images: Tensor,
    labels: Tensor | None,
    *,
    classes: list[str] | None = None,
    seed: int = 0,
    epochs: int | None = None,
) -> Classifier:
    """Fit on uint8 images (n, C, H, W) and int64 labels (n,), on the CPU; a tenth is held out for
    the accuracy.

    The seed decides everything. Without labels the network learns to tell by how many quarter turns
    an image was rotated, which needs shape and texture too. Raises FastganError for other types, or
    fewer than 40 images.
    """
    if images.ndim != 4 or images.dtype != torch.uint8:
        raise FastganError(
            f"expected uint8 images (N, C, H, W), not {images.dtype} {tuple(images.shape)}"
        )
    enough(len(images))
    began = time.monotonic()
    dice = torch.Generator().manual_seed(seed)
    if labels is None or int(labels.max()) < 1:
        task, names = "rotations", ["0", "90", "180", "270"]
    else:
        task, names = "classes", classes or [str(i) for i in range(int(labels.max()) + 1)]
    order = torch.randperm(len(images), generator=dice)
    apart = max(10, len(images) // 10)
    small = torch.cat(
        [shrink(part.float() / 255).mul(255).round().byte() for part in images.split(1000)]
    )
    test, train = order[:apart], order[apart:]
    if epochs is None:
        epochs = max(EPOCHS, -(-MIN_STEPS * BATCH // len(train)))
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = Network(images.shape[1], len(names))
        _train(network, small, labels if task == "classes" else None, train, epochs, dice)
    network.eval().requires_grad_(False)
    right = 0
    with torch.inference_mode():
        for part in test.split(250):
            x, y = _batch(small, labels if task == "classes" else None, part, dice)
            right += int((network(x).argmax(1) == y).sum())
    return Classifier(network, task, right / apart, apart, names, "", time.monotonic() - began)


def _batch(
    images: Tensor, labels: Tensor | None, index: Tensor, dice: torch.Generator
) -> tuple[Tensor, Tensor]:
    x = images[index].float() / 255
    if labels is not None:
        return x, labels[index]
    turns = torch.randint(4, (len(index),), generator=dice)
    if x.shape[2] != x.shape[3]:
        side = min(x.shape[2:])
        x = x[:, :, (x.shape[2] - side) // 2 :, (x.shape[3] - side) // 2 :][:, :, :side, :side]
    return torch.stack([image.rot90(int(turn), (1, 2)) for image, turn in zip(x, turns)]), turns


def _train(
    network: Network,
    images: Tensor,
    labels: Tensor | None,
    train: Tensor,
    epochs: int,
    dice: torch.Generator,
) -> None:
    network.train()
    size = min(BATCH, len(train))
    per_epoch = len(train) // size
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.02)
    total = epochs * per_epoch
    warm_up = max(1, total // 5)

    def rate(step: int) -> float:
        return min(
            (step + 1) / warm_up,
            0.5 + 0.5 * math.cos(math.pi * max(0, step - warm_up) / max(1, total - warm_up)),
        )

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for _ in range(epochs):
        order = train[torch.randperm(len(train), generator=dice)]
        for part in order[: per_epoch * size].split(size):
            x, y = _batch(images, labels, part, dice)
            loss = F.cross_entropy(network(x), y, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def cached(
    images: Tensor,
    labels: Tensor | None,
    *,
    fingerprint: str,
    folder: Path,
    classes: list[str] | None = None,
    seed: int = 0,
) -> Classifier:
    """`fit`, or what an earlier `fit` on the same data left in `folder` (safetensors). An
    unreadable file is fitted anew."""
    described = [
        VERSION,
        fingerprint,
        list(images.shape),
        labels is not None,
        seed,
        EPOCHS,
        MIN_STEPS,
        BATCH,
        RATE,
        SIDE,
        FEATURES,
    ]
    key = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
    path = folder / f"classifier-{key}.safetensors"
    if (found := kept(path)) is not None:
        network, known = found
        with contextlib.suppress(KeyError):
            accuracy, held_out, names = known["accuracy"], known["held_out"], known["names"]
            return Classifier(network, known["task"], accuracy, held_out, names, key)
    made = fit(images, labels, classes=classes, seed=seed)
    made.key = key
    about = {
        "task": made.task,
        "accuracy": made.accuracy,
        "held_out": made.held_out,
        "names": made.names,
        "channels": images.shape[1],
    }
    keep(path, made.network, about)
    return made


def keep(path: Path, network: Network, about: dict[str, Any]) -> None:
    """Leave a fitted network and what is known of it in a file (safetensors)."""
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    data = save_safetensors(weights, {"about": json.dumps(about)})
    with contextlib.suppress(OSError):  # a cache that can't be written costs time, not correctness
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, data)


def kept(path: Path) -> tuple[Network, dict[str, Any]] | None:
    """What `keep` left in a file; None where that is not there or can't be read."""
    if files.kind(path) != "file":
        return None
    try:
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = json.loads(header["__metadata__"]["about"])
        weights = load_safetensors(data)
        channels, outputs = weights["body.0.weight"].shape[1], weights["head.weight"].shape[0]
        network = Network(channels, outputs)
        network.load_state_dict(weights)
    except Exception:  # a damaged cache file of whatever kind is made anew
        return None
    return network.eval().requires_grad_(False), about
