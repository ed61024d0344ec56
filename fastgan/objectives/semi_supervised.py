"""Learning from few labels: a discriminator with one logit a class (Salimans et al. 2016, arXiv
1606.03498, sections 3.1 and 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from fastgan.errors import FastganError
from fastgan.objectives.augmentation import Augmented
from fastgan.objectives.base import Noise, Phase

if TYPE_CHECKING:
    from torch import Tensor

    from fastgan.objectives.base import Step


@dataclass
class SemiSupervised(Augmented):
    """ "D" classifies, and tells real from fake by the same logits; "G" matches its features.

    "G" maps z (B, latent) to images; "D" maps images to (features (B, F), logits (B, classes)). The
    logit of "fake" is 0, so that p(real) = sigmoid(logsumexp(logits)). Streams: "image" without
    labels, "labelled" and "labelled_label".

    Args:
        latent: The numbers of one latent vector, uniform in [0, 1).
        unlabelled: The weight of all terms without labels; 0 learns from labels alone.
        entropy: The weight of the entropy of the classes of unlabelled images, which is to be
            small (Springenberg 2016).
        pull_away: The weight of the squared cosine between features of generated images in G's
            phase, which keeps them apart (Zhao et al. 2017, eq. 6; Dai et al. 2017).
    """

    latent: int = 100
    unlabelled: float = 1.0
    entropy: float = 0.1
    pull_away: float = 0.1
    noise: Mapping[str, Noise] = field(init=False, repr=False)
    loss = "non-saturating"

    def __post_init__(self) -> None:
        self.check_augment()
        self.noise = {"z": Noise((self.latent,), "uniform", low=0.0)}

    def phases(self) -> Sequence[Phase]:
        return Phase("D", ("D",), self.d_loss), Phase("G", ("G",), self.g_loss, fresh=False)

    def generate(self, step: Step) -> Tensor:
        return step.nets.G(step.noise.z)

    def d_loss(self, step: Step) -> Mapping[str, Tensor]:
        labelled = self.augmented(step, step.batch["labelled"], "labelled")
        logits = step.nets.D(labelled)[1].float()
        labels = step.batch["labelled_label"]
        step.log("acc_labelled", (logits.argmax(1) == labels).float().mean())
        terms = {"labelled": F.cross_entropy(logits, labels)}
        if not self.unlabelled:
            return terms
        images = self.augmented(step, step.batch["image"], "real")
        (_, real), (_, fake) = step.pair("D", images, self.augmented(step, step.fake, "fake"))
        return terms | {
            name: self.unlabelled * value for name, value in self.without_labels(step, real, fake)
        }

    def without_labels(self, step: Step, real: Tensor, fake: Tensor) -> list[tuple[str, Tensor]]:
        """Half of -log p(real | unlabelled) - log p(fake | generated), and the entropy of the
        classes."""
        real, fake = real.float(), fake.float()
        on_real, on_fake = real.logsumexp(1), fake.logsumexp(1)
        self.observe(step, on_real)
        step.log("acc_real", (on_real > 0).float().mean())
        step.log("acc_fake", (on_fake < 0).float().mean())
        terms = [("adv", 0.5 * (F.softplus(-on_real).mean() + F.softplus(on_fake).mean()))]
        if self.entropy:
            log_p = real.log_softmax(1)
            terms += [("entropy", -self.entropy * (log_p.exp() * log_p).sum(1).mean())]
        return terms

    def g_loss(self, step: Step) -> Mapping[str, Tensor]:
        with torch.no_grad():
            wanted = step.nets.D(self.augmented(step, step.batch["image"], "real"))[0].float()
        fake = self.augmented(step, step.fake, "fake")
        return self.matching(wanted, step.nets.D(fake)[0].float())

    def matching(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The mean squared difference of mean features, and how alike generated ones are."""
        terms = {"matching": (real.mean(0) - fake.mean(0)).square().mean()}
        if self.pull_away and len(fake) > 1:
            unit = F.normalize(fake, dim=1)
            alike = (unit @ unit.T).square()
            pairs = len(fake) * (len(fake) - 1)
            terms["pull_away"] = self.pull_away * (alike.sum() - alike.trace()) / pairs
        return terms

    def check(self, nets: Mapping[str, Any]) -> None:
        if missing := [name for name in ("G", "D") if name not in nets]:
            raise FastganError(f"the objective SemiSupervised needs a network {missing[0]!r}")
