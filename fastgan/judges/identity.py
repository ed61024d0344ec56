"""Who is shown: an embedding that is fitted where data name persons, near for two images of one
person and far for two persons, whatever their age."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan import paths
from fastgan.data import Dataset
from fastgan.data.rendered import AGES, are_faces, faces
from fastgan.errors import FastganError
from fastgan.judges.classifier import RATE, Network, keep, kept, shrink

WIDTH = 64
"""Numbers of an embedding."""

STEPS, PERSONS, TEMPERATURE = 200, 64, 0.1
"""Updates, persons of each with two images apiece, and the temperature of their similarities."""

NOISE = 0.05
"""Standard deviation of what is added to each pixel in fitting, images in [0, 1]: what a generator
makes is no clean drawing."""

FEWEST = 20
"""Persons with two images that an embedding can be fitted on."""

MOST = 1000
"""Drawn persons that it is fitted on, each at every age."""

VERSION = 1
"""Part of the cache key: raise it when the network or its fit changes."""


@dataclass
class Identity:
    """A fitted embedding. accuracy: of `held_out` persons it never saw, the share whose first image
    lies nearest to their second; chance is 1 / held_out. key: identifies data, network and fit."""

    network: Network
    accuracy: float
    held_out: int
    key: str = ""

    def __call__(self, images: Tensor) -> Tensor:
        """float (n, 64), of length 1, of images float (n, C, H, W) in [0, 1] on the CPU or the
        device that `network` is on; with their graph."""
        return F.normalize(self.network.eval()(shrink(images)))


def fit(images: Tensor, who: Tensor, *, seed: int = 0) -> Identity:
    """Fit on uint8 images (n, C, H, W) of persons int64 (n,), on the CPU; a tenth of the persons is
    held out. The seed decides everything.

    The loss is the cross-entropy of finding, by cosine similarity, a person's other image among
    those of PERSONS persons (the N-pair loss of Sohn 2016, with a temperature). Raises FastganError
    for fewer than 20 persons with two images.
    """
    small = torch.cat(
        [shrink(part.float() / 255).mul(255).round().byte() for part in images.split(1000)]
    )
    dice = torch.Generator().manual_seed(seed)
    counts = torch.bincount(torch.unique(who, return_inverse=True)[1])
    rows = torch.split(who.argsort(stable=True), counts.tolist())
    people = [own for own in rows if len(own) > 1]
    if len(people) < FEWEST:
        raise FastganError(
            f"{len(people)} persons with two images or more are too few to tell persons apart: at "
            f"least {FEWEST}"
        )
    order = torch.randperm(len(people), generator=dice).tolist()
    apart = max(5, len(people) // 10)

    def pairs(chosen: list[int]) -> tuple[Tensor, Tensor]:
        two = [people[i][torch.randperm(len(people[i]), generator=dice)[:2]] for i in chosen]
        first, second = small[torch.stack(two).T].float().div(255)
        return first, second

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = Network(images.shape[1], WIDTH).train()
        optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        train = order[apart:]
        for _ in range(STEPS):
            chosen = torch.randperm(len(train), generator=dice)[:PERSONS].tolist()
            both = torch.cat(pairs([train[i] for i in chosen]))
            both = both + NOISE * torch.randn(both.shape, generator=dice)
            first, second = F.normalize(network(both)).chunk(2)
            alike = first @ second.T / TEMPERATURE
            right = torch.arange(len(alike))
            loss = F.cross_entropy(alike, right) + F.cross_entropy(alike.T, right)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval().requires_grad_(False)
    made = Identity(network, 0.0, apart)
    with torch.inference_mode():
        first, second = (made(x) for x in pairs(order[:apart]))
        made.accuracy = float(((first @ second.T).argmax(1) == torch.arange(apart)).float().mean())
    return made


def fitted(
    data: Dataset, folder: Path | None = None, *, field: str = "identity", seed: int = 0
) -> Identity:
    """The embedding of a data set whose `field` numbers its persons, fitted now or kept in `folder`
    since. Of the faces drawn here each person is drawn at every age for it. Raises FastganError."""
    if field not in data.fields or data.fields[field].kind != "label":
        raise FastganError(
            f"{data.name} does not say who is shown: name --data that do, an .npz file with an "
            "array identity, a number for each image's person, or a folder with a sub-folder for "
            "each person"
        )
    rules = [VERSION, WIDTH, STEPS, PERSONS, TEMPERATURE, NOISE, MOST, RATE]
    described = json.dumps([data.fingerprint, field, seed, *rules])
    key = hashlib.sha256(described.encode()).hexdigest()[:16]
    path = (folder or paths.cache_dir() / "metrics") / f"identity-{key}.safetensors"
    if (found := kept(path)) is not None:
        network, known = found
        with contextlib.suppress(KeyError):
            return Identity(network, known["accuracy"], known["held_out"], key)
    pixels, who = np.array(data.array("image")), np.array(data.array(field))
    if are_faces(data):
        people, side = np.unique(who)[:MOST], pixels.shape[1]
        drawn = [faces(int(people[-1]) + 1, side, age=k, index=people) for k in range(len(AGES))]
        pixels = np.concatenate([part["image"] for part in drawn])
        who = np.tile(people, len(AGES))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    made = fit(images, torch.from_numpy(who), seed=seed)
    made.key = key
    keep(path, made.network, {"accuracy": made.accuracy, "held_out": made.held_out})
    return made
