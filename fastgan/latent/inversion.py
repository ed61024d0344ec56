"""The latent whose image is nearest to a photo, found by gradient descent on the latent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.errors import FastganError
from fastgan.latent.directions import differentiable
from fastgan.trainer.reuse.restoring import OpenRun, classes_seen

CANDIDATES, KEPT = 128, 4
"""Latents that are tried first, and those of them that are followed."""

RATE = 0.1
LEVELS = 4


@dataclass(frozen=True)
class Inversion:
    """image: (C, H, W) in [0, 1]. latents: (1, ...) by name. label: the class, where the run has
    some. l1: mean absolute difference to the photo in [0, 1]. features: whether D's were used.
    apart: squared distance of embeddings to the photo's, before and after they were followed."""

    image: Tensor
    latents: dict[str, Tensor]
    label: int | None
    l1: float
    features: bool
    apart: tuple[float, float] | None = None


def invert(
    run: OpenRun,
    photo: Tensor,
    *,
    steps: int = 300,
    seed: int = 0,
    label: int | None = None,
    embed: Callable[[Tensor], Tensor] | None = None,
    tell: Callable[[int], Any] = lambda step: None,
) -> Inversion:
    """Find the latent of a photo (C, H, W) in [0, 1] of the generator's size.

    The loss is L1 on a pyramid of four sizes, and on the features of D's convolutions where D
    takes these images. The best of 128 latents are followed by Adam, its rate raised over the first
    twentieth and lowered over the last quarter (as the projector of StyleGAN2 does).

    embed: float images (n, C, H, W) in [0, 1] on the run's device -> (n, d), with a gradient, such
    as a face network. From what was found, as many steps more follow the squared distance of
    embeddings to the photo's alone (Antipov et al. 2017, arXiv 1702.01983, eq. 2), the class as it
    is. tell: called with the number of each step. Raises FastganError.
    """
    target = photo[None].to(run.device) * 2 - 1
    classes = run.classes
    labels = None
    if classes:
        labels = torch.arange(CANDIDATES) % len(classes)
        labels = labels if label is None else torch.full_like(labels, label)
    latents = run.noise(CANDIDATES, seed)
    if not (moving := [n for n, spec in run.objective.noise.items() if spec.kind != "categorical"]):
        raise FastganError(f"{run.path} makes images from no latent: there is nothing to search")
    distance = Distance(run, target.expand(CANDIDATES, -1, -1, -1), labels)
    with torch.no_grad():
        first = differentiable(run, latents, labels)
        if first.shape[1:] != target.shape[1:]:
            raise FastganError(
                f"the photo is {tuple(target.shape[1:])}, images are {tuple(first.shape[1:])}"
            )
        best = distance(first).argsort()[:KEPT]
    latents = {name: value[best.cpu()].to(run.device) for name, value in latents.items()}
    labels = labels[best.cpu()] if labels is not None else None
    distance = Distance(run, target.expand(len(best), -1, -1, -1), labels)
    latents = _followed(run, latents, labels, moving, distance, steps, tell)
    with torch.no_grad():
        images = differentiable(run, latents, labels)
        winner = int(distance(images).argmin())
    made = images[winner : winner + 1]
    latents = {name: value.detach()[winner : winner + 1] for name, value in latents.items()}
    labels = labels[winner : winner + 1] if labels is not None else None
    apart = None
    if embed is not None:
        embedded = Embedded(embed, photo[None].to(run.device))
        with torch.no_grad():
            before = float(embedded(made))
        latents = _followed(
            run, latents, labels, moving, embedded, steps, lambda step: tell(steps + step)
        )
        with torch.no_grad():
            made = differentiable(run, latents, labels)
            apart = before, float(embedded(made))
    image = ((made[0] + 1) / 2).clamp(0, 1).cpu()
    chosen = {name: value.detach().cpu() for name, value in latents.items()}
    number = int(labels[0]) if labels is not None else None
    l1 = float((image - photo).abs().mean())
    return Inversion(image, chosen, number, l1, bool(distance.levels), apart)


def _followed(
    run: OpenRun,
    latents: dict[str, Tensor],
    labels: Tensor | None,
    moving: list[str],
    distance: Callable[[Tensor], Tensor],
    steps: int,
    tell: Callable[[int], Any],
) -> dict[str, Tensor]:
    """The latents after so many steps down a distance of images (n, C, H, W) in [-1, 1]: (n,)."""
    latents = dict(latents)
    for name in moving:
        latents[name] = latents[name].clone().requires_grad_()
    optimizer = torch.optim.Adam([latents[name] for name in moving], lr=RATE)
    for step in range(steps):
        done = step / steps
        ramp = min(1.0, done / 0.05 + 0.05) * (
            0.5 - 0.5 * math.cos(math.pi * min(1, (1 - done) * 4))
        )
        optimizer.param_groups[0]["lr"] = RATE * ramp
        loss = distance(differentiable(run, latents, labels))
        for name in moving:  # normal latents in many dimensions lie near a sphere
            if run.objective.noise[name].kind == "normal":
                mean = latents[name].flatten(1).square().mean(1)
                loss = loss + 0.05 * (mean - 1).square()
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        tell(step + 1)
    return latents


def every_class(run: OpenRun) -> list[int]:
    """The numbers of the classes that had images in training. Raises FastganError for none."""
    if not run.classes:
        raise FastganError(f"{run.path} was trained without labels: it has no classes to show")
    return classes_seen(run.facts)


def in_classes(run: OpenRun, latents: dict[str, Tensor], numbers: list[int]) -> Tensor:
    """One latent, (1, ...) by name, in each of the classes: (k, C, H, W) in [0, 1], on the CPU.
    Raises FastganError."""
    same = {name: value.expand(len(numbers), *value.shape[1:]) for name, value in latents.items()}
    return run.images(len(numbers), noise=same, labels=numbers)


class Embedded:
    """Squared Euclidean distances of embeddings, of images (n, C, H, W) in [-1, 1] to that of a
    photo (1, C, H, W) in [0, 1]: (n,). embed: as for `invert`. Raises FastganError where it gives
    no gradient."""

    def __init__(self, embed: Callable[[Tensor], Tensor], photo: Tensor) -> None:
        self.embed = embed
        with torch.no_grad():
            self.target = embed(photo).flatten(1)

    def __call__(self, images: Tensor) -> Tensor:
        found = self.embed((images + 1) / 2).flatten(1)
        if images.requires_grad and not found.requires_grad:
            raise FastganError(
                "embed= gives no gradient: leave out no_grad, inference_mode, detach and NumPy"
            )
        return (found - self.target).square().sum(1)


class Distance:
    """How far images (n, C, H, W) in [-1, 1] are from targets of the same shape: (n,).

    D's features count where D takes these images, each level the same.
    """

    def __init__(self, run: OpenRun, target: Tensor, labels: Tensor | None) -> None:
        self.target, self.labels = target, labels
        self.net = run.nets.get("D")
        self.layers: list[nn.Module] = []
        self.levels: list[Tensor] = []
        if self.net is not None:
            found = [m for m in self.net.modules() if isinstance(m, nn.Conv2d)]
            self.layers = [*(found[:-1] or found)]
            try:
                with torch.no_grad():
                    self.levels = self._features(target)
            except Exception:  # a D of other inputs, such as pairs: the pyramid alone then
                self.levels = []

    def _features(self, images: Tensor) -> list[Tensor]:
        kept: list[Tensor] = []
        hooks = [
            layer.register_forward_hook(lambda _, __, output: kept.append(output))
            for layer in self.layers
        ]
        try:
            assert self.net is not None
            given = (self.labels.to(images.device),) if self.labels is not None else ()
            self.net(images, *given)
        finally:
            for hook in hooks:
                hook.remove()
        return kept

    def __call__(self, images: Tensor) -> Tensor:
        x, y = images, self.target
        total = torch.zeros(len(images), device=images.device)
        for level in range(LEVELS):
            total = total + (x - y).abs().flatten(1).mean(1) / LEVELS
            if level + 1 < LEVELS and min(x.shape[2:]) >= 4:
                x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        if self.levels:
            for mine, theirs in zip(self._features(images), self.levels):
                scale = theirs.std().clamp_min(1e-6) * len(self.levels)
                total = total + (mine - theirs).abs().flatten(1).mean(1) / scale
        return total
