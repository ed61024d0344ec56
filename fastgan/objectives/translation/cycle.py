"""Two kinds of images without pairs (Zhu et al. 2017, CycleGAN, arXiv 1703.10593)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from fastgan.errors import FastganError
from fastgan.objectives.augmentation import Augmented
from fastgan.objectives.base import Phase
from fastgan.objectives.losses import LOSSES

if TYPE_CHECKING:
    from torch import Tensor

    from fastgan.objectives.base import Step


@dataclass
class Cycle(Augmented):
    """Networks: "G" makes images of kind b from `batch["source"]` (kind a), "F" of kind a from
    `batch["image"]` (kind b); "D" judges b and "E" judges a, each on fakes of which half come from
    "pool" and "pool_a" (`models.pool.ImagePool`).

    The generators' loss is adversarial * both adversarial ones + cycle * (|F(G(a)) - a| +
    |G(F(b)) - b|) + identity * cycle * (|G(b) - b| + |F(a) - a|) (sections 3 and 5.2). The paper's
    least squares have no factor 1/2, which those of `LOSSES` have: its weight of 1 is 2 here, and
    half its discriminator's loss is the whole of it.
    """

    loss: str = "least-squares"
    cycle: float = 10.0
    identity: float = 0.5
    adversarial: float = 2.0

    def __post_init__(self) -> None:
        self.check_augment()

    def phases(self) -> Sequence[Phase]:
        G = Phase("G", ("G", "F"), self.g_loss)
        return (G, Phase("D", ("D", "E"), self.d_loss, fresh=False)) if self.adversarial else (G,)

    def generate(self, step: Step) -> Tensor:
        """Both fakes, those of b first: (2 B, C, H, W)."""
        nets, batch = step.nets, step.batch
        return torch.cat([nets.G(batch["source"]), nets.F(batch["image"])])

    def sample(self, step: Step) -> Tensor:
        return step.nets.G(step.batch["source"])

    def panels(self, step: Step, made: Tensor) -> Sequence[Tensor]:
        return (step.batch["source"], made)

    def g_loss(self, step: Step) -> Mapping[str, Tensor]:
        nets, a, b = step.nets, step.batch["source"], step.batch["image"]
        loss = LOSSES[self.loss]
        fake_b, fake_a = step.fake.chunk(2)
        gaps = F.l1_loss(nets.F(fake_b).float(), a) + F.l1_loss(nets.G(fake_a).float(), b)
        terms = {"cycle": self.cycle * gaps}
        if self.adversarial:
            seen = lambda images, which: self.augmented(step, images, which)
            on_b, on_a = nets.D(seen(fake_b, "fake_b")), nets.E(seen(fake_a, "fake_a"))
            reals = (
                (nets.D(seen(b, "real_b")), nets.E(seen(a, "real_a")))
                if loss.g_needs_real
                else (None, None)
            )
            both = loss.g(reals[0], on_b) + loss.g(reals[1], on_a)
            terms["adv"] = self.adversarial * both
        if self.identity:
            same = F.l1_loss(nets.G(b).float(), b) + F.l1_loss(nets.F(a).float(), a)
            terms["identity"] = self.identity * self.cycle * same
        return terms

    def d_loss(self, step: Step) -> Mapping[str, Tensor]:
        nets, seen = step.nets, lambda images, which: self.augmented(step, images, which)
        fake_b, fake_a = step.fake.chunk(2)
        old_b = nets.pool(fake_b, step.rand("pool"))
        old_a = nets.pool_a(fake_a, step.rand("pool_a"))
        return {
            "b": self.judged(
                step, *step.pair("D", seen(step.batch["image"], "real_b"), seen(old_b, "fake_b"))
            ),
            "a": LOSSES[self.loss].d(
                *step.pair("E", seen(step.batch["source"], "real_a"), seen(old_a, "fake_a"))
            ),
        }

    def check(self, nets: Mapping[str, Any]) -> None:
        self.check_augmented_for(self.adversarial)
        missing = [n for n in ("G", "F", "D", "E", "pool", "pool_a") if n not in nets]
        if missing:
            raise FastganError(f"CycleGAN's objective needs a network {missing[0]!r}")

    def check_images(self, fake: Tensor, step: Step) -> None:
        real = step.batch["image"]
        if fake.shape[1:] != real.shape[1:] or real.shape[1:] != step.batch["source"].shape[1:]:
            raise FastganError(
                f"images of both kinds, and what is made, must have one shape: sources are "
                f"{tuple(step.batch['source'].shape[1:])}, images {tuple(real.shape[1:])}, made "
                f"{tuple(fake.shape[1:])}"
            )
