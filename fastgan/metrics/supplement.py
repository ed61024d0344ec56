"""Whether a classifier with few labels gains from generated images (after Ravuri and Vinyals 2019,
arXiv 1905.10887: accuracy on reals of a classifier fitted on generated images)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.errors import FastganError
from fastgan.judges.classifier import BATCH, RATE, Network, shrink
from fastgan.ops.augment import diffaugment

STEPS = 300
TIMES = (1, 3, 10)
AUGMENTED, ONLY = "real, shifted", "generated only"


@dataclass(frozen=True)
class Arm:
    """accuracies: shares of right answers on the test images, one for each seed."""

    name: str
    labels_per_class: int
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.accuracies) / len(self.accuracies)

    @property
    def error(self) -> float:
        """The standard error of the mean; 0 for a single seed."""
        n = len(self.accuracies)
        squares = sum((a - self.mean) ** 2 for a in self.accuracies)
        return math.sqrt(squares / (n - 1) / n) if n > 1 else 0.0


@dataclass(frozen=True)
class Supplement:
    """arms: those of the same labels one after another, real images alone first. note: what the
    generator had seen."""

    arms: tuple[Arm, ...]
    tested: int
    note: str

    def as_dict(self) -> dict[str, Any]:
        rows = [vars(arm) | {"mean": arm.mean, "error": arm.error} for arm in self.arms]
        return {"arms": rows, "tested": self.tested, "note": self.note}

    def __str__(self) -> str:
        lines, alone = [], self.arms[0]
        for arm in self.arms:
            if arm.name == "real":
                alone = arm
                lines += ["", f"  {arm.labels_per_class} labels a class"]
            gain = (arm.mean - alone.mean) * 100
            lines.append(
                f"    {arm.name:<22} {arm.mean * 100:5.1f} % +- {arm.error * 100:3.1f}"
                + (f"  {gain:+5.1f}" if arm is not alone else "")
            )
        seeds = len(alone.accuracies)
        return "\n".join(
            [
                f"accuracy on {self.tested:,} test images; mean and standard error of {seeds} "
                f"choices of labels, {STEPS} updates of a small CNN each",
                *lines,
                "",
                f"  {self.note}",
            ]
        )


def fitted(images: Tensor, labels: Tensor, classes: int, seed: int, augment: bool) -> Network:
    """A network after STEPS updates on images in [0, 1], shifted by up to an eighth of the side,
    black outside, where `augment`; everything follows from the seed."""
    dice = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = Network(images.shape[1], classes)
        optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for step in range(STEPS):
            index = torch.randint(len(images), (BATCH,), generator=dice)
            x = images[index]
            if augment:
                at = torch.tensor(step * BATCH)
                x = diffaugment(x, policy="translation", seed=seed, position=at, stream=0)
            loss = F.cross_entropy(network(x), labels[index], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.inference_mode()
def accuracy(network: Network, images: Tensor, labels: Tensor) -> float:
    parts = zip(images.split(500), labels.split(500))
    return sum(int((network(x).argmax(1) == y).sum()) for x, y in parts) / len(labels)


def supplement(
    images: Tensor,
    labels: Tensor,
    test: tuple[Tensor, Tensor],
    generated: Callable[[Tensor, int], Tensor],
    labels_per_class: Sequence[int],
    seeds: int,
    note: str,
) -> Supplement:
    """Every arm on the same labels, for each number of them and each seed.

    images: float (n, C, H, W) in [0, 1], labels int64; test: the same of others. generated: (labels
    (m,), seed) -> (m, C, H, W). Raises FastganError where a class has too few images.
    """
    classes = int(labels.max()) + 1
    counts = torch.bincount(labels, minlength=classes)
    if int(counts.min()) < max(labels_per_class):
        raise FastganError(
            f"class {int(counts.argmin())} has {int(counts.min())} images to learn from, not "
            f"{max(labels_per_class)}: give fewer --labels-per-class"
        )
    images, test = shrink(images), (shrink(test[0]), test[1])
    found: dict[tuple[int, str], list[float]] = {}
    for few in labels_per_class:
        for seed in range(seeds):
            order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
            of_class = [order[labels[order] == k][:few] for k in range(classes)]
            x, y = images[torch.cat(of_class)], labels[torch.cat(of_class)]
            told = torch.arange(classes).repeat(few * max(TIMES))  # evenly, however many are taken
            made = shrink(generated(told, seed))
            arms = {"real": (x, y), AUGMENTED: (x, y)}
            for times in TIMES:
                more = made[: times * len(x)], told[: times * len(x)]
                both = torch.cat([x, more[0]]), torch.cat([y, more[1]])
                arms[f"real + {times}x generated"] = both
            arms[ONLY] = made, told
            for name, given in arms.items():
                network = fitted(*given, classes, seed, name == AUGMENTED)
                found.setdefault((few, name), []).append(accuracy(network, *test))
    arms_found = (Arm(name, few, tuple(values)) for (few, name), values in found.items())
    return Supplement(tuple(arms_found), len(test[1]), note)
