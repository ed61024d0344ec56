"""A face as it will be (after Wang et al. 2018, IPCGAN, and Choi et al. 2018, StarGAN, arXiv
1711.09020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from fastgan.errors import FastganError
from fastgan.objectives.augmentation import Augmented
from fastgan.objectives.base import Noise, Phase
from fastgan.objectives.losses import LOSSES

if TYPE_CHECKING:
    from torch import Tensor

    from fastgan.objectives.base import Step


@dataclass
class ToClass(Augmented):
    """From `batch["image"]`, of class `batch["label"]`, "G" makes an image of a random class t; "D"
    judges images with their class.

    "A" learns to tell the classes of real images, and made ones as one class more (cross-entropy;
    Salimans et al. 2016, arXiv 1606.03498, section 5): a classifier of reals alone is satisfied by
    textures that no real image has. D's loss is half of the adversarial one on (x, label) against
    (G(x, t), t). G's is adversarial * adv + class_weight * A's cross-entropy on (G(x, t), t) +
    identity * (|G(G(x, t), label) - x| + |G(x, label) - x|): whoever came back was not lost on the
    way (StarGAN, equations 3 and 6).
    """

    classes: int = 2
    loss: str = "least-squares"
    identity: float = 5.0
    adversarial: float = 1.0
    class_weight: float = 1.0
    noise: Mapping[str, Noise] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.check_augment()
        self.noise = {"target": Noise((), "categorical", classes=self.classes)}

    def phases(self) -> Sequence[Phase]:
        judges = ("D", "A") if self.adversarial else ("A",)
        return (Phase("D", judges, self.d_loss), Phase("G", ("G",), self.g_loss, fresh=False))

    def generate(self, step: Step) -> Tensor:
        return step.nets.G(step.batch["image"], step.noise.target)

    def sample(self, step: Step) -> Tensor:
        """To the label of the batch where there is one."""
        return step.nets.G(step.batch["image"], step.batch.get("label", step.noise.target))

    def panels(self, step: Step, made: Tensor) -> Sequence[Tensor]:
        """The image and what it is in each class, `made` in its place."""
        x = step.batch["image"]
        with torch.no_grad():
            every = [
                step.nets.G(x, torch.full((len(x),), k, device=x.device))
                for k in range(self.classes)
            ]
        return [x, *every]

    def d_loss(self, step: Step) -> Mapping[str, Tensor]:
        x, label, target = step.batch["image"], step.batch["label"], step.noise.target
        D, A, made = step.nets.D, step.nets.A, torch.full_like(label, self.classes)
        terms = {"class": class_loss(A(x), label), "made": class_loss(A(step.fake), made)}
        if self.adversarial:
            on_real = D(self.augmented(step, x, "real"), label)
            on_fake = D(self.augmented(step, step.fake, "fake"), target)
            terms["adv"] = 0.5 * self.judged(step, on_real, on_fake)
        return terms

    def g_loss(self, step: Step) -> Mapping[str, Tensor]:
        x, label, target = step.batch["image"], step.batch["label"], step.noise.target
        loss, G, D = LOSSES[self.loss], step.nets.G, step.nets.D
        terms = {"class": self.class_weight * class_loss(step.nets.A(step.fake), target)}
        if self.adversarial:
            real = D(self.augmented(step, x, "real"), label) if loss.g_needs_real else None
            fake = self.augmented(step, step.fake, "fake")
            terms["adv"] = self.adversarial * loss.g(real, D(fake, target))
        if self.identity:
            back = F.l1_loss(G(step.fake, label).float(), x)
            terms["identity"] = self.identity * (back + F.l1_loss(G(x, label).float(), x))
        return terms

    def check(self, nets: Mapping[str, Any]) -> None:
        for name in ("G", "D", "A"):
            if name not in nets:
                raise FastganError(f"translation to a class needs a network {name!r}")
        self.check_augmented_for(self.adversarial)
        if self.classes < 2:
            raise FastganError("translation to a class needs at least two classes")


def class_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of logits (B, classes + 1, h, w), averaged over their places first, 0-dim."""
    return F.cross_entropy(logits.float().mean((2, 3)), label)
