"""InfoGAN's objective: codes that the discriminator must find again (Chen et al. 2016, arXiv
1606.03657)."""

from __future__ import annotations

import math
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
class Information(Augmented):
    """G against D, and both for the mutual information of codes and images (section 5, eq. 6).

    "G" maps (B, latent + classes + codes, 1, 1) to images; "D" maps images to (logits of any shape,
    class logits (B, classes), means (B, codes), log standard deviations (B, codes)). Logged, in
    nats: `mi_class`, a lower bound of I(class; image) of at most log(classes), and `mi_codes`, that
    of the uniform codes (eq. 4).

    Args:
        latent: The numbers of plain noise.
        classes: The values of the categorical code.
        codes: The continuous codes, uniform in [-1, 1).
        loss: A name of `fastgan.objectives.LOSSES` that needs no reals in G's phase.
        weight_class: lambda of the categorical code.
        weight_codes: lambda of the continuous codes.
    """

    latent: int = 62
    classes: int = 10
    codes: int = 2
    loss: str = "non-saturating"
    weight_class: float = 1.0
    weight_codes: float = 0.1
    noise: Mapping[str, Noise] = field(init=False, repr=False)
    traversed: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.check_augment()
        self.noise = {
            "z": Noise((self.latent,)),
            "class": Noise((), "categorical", classes=self.classes),
            "codes": Noise((self.codes,), "uniform"),
        }
        self.traversed = ("class", *(f"codes.{i}" for i in range(self.codes)))

    def phases(self) -> Sequence[Phase]:
        return Phase("D", ("D",), self.d_loss), Phase("G", ("G",), self.g_loss, fresh=False)

    def generate(self, step: Step) -> Tensor:
        kinds = torch.arange(self.classes, device=step.noise["class"].device)
        one_hot = (step.noise["class"][:, None] == kinds).to(step.noise.z.dtype)
        return step.nets.G(torch.cat([step.noise.z, one_hot, step.noise.codes], 1)[..., None, None])

    def d_loss(self, step: Step) -> Mapping[str, Tensor]:
        real = self.augmented(step, step.batch["image"], "real")
        fake = self.augmented(step, step.fake, "fake")
        (on_real, *_), (on_fake, *found) = step.pair("D", real, fake)
        return {"adv": self.judged(step, on_real, on_fake), **self.information(step, *found)}

    def g_loss(self, step: Step) -> Mapping[str, Tensor]:
        fake, *found = step.nets.D(self.augmented(step, step.fake, "fake"))
        return {"adv": LOSSES[self.loss].g(None, fake), **self.information(step, *found)}

    def information(
        self, step: Step, kinds: Tensor, mean: Tensor, log_std: Tensor
    ) -> dict[str, Tensor]:
        """The weighted negative log likelihoods of the codes; logs the bounds, entropy minus
        these."""
        mean, log_std = mean.float(), log_std.float()
        of_class = F.cross_entropy(kinds.float(), step.noise["class"])
        scaled = (step.noise.codes - mean) * (-log_std).exp()
        of_codes = (0.5 * scaled.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(1).mean()
        step.log("mi_class", math.log(self.classes) - of_class)
        step.log("mi_codes", self.codes * math.log(2) - of_codes)
        return {"class": self.weight_class * of_class, "codes": self.weight_codes * of_codes}

    def check(self, nets: Mapping[str, Any]) -> None:
        if missing := [name for name in ("G", "D") if name not in nets]:
            raise FastganError(f"the objective Information needs a network {missing[0]!r}")
