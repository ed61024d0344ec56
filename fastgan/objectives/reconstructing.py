"""A discriminator that must be able to draw what it has seen (Liu et al. 2021, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch.nn import functional as F

from fastgan.errors import FastganError
from fastgan.objectives.adversarial import Adversarial

if TYPE_CHECKING:
    from torch import Tensor

    from fastgan.objectives.base import Phase, Step


@dataclass
class Reconstructing(Adversarial):
    """The adversarial objective with a third network "R", which draws reals from D's features.

    "D" maps (images, True) to (logits, features), and "R" features to images of any side up to
    theirs. The L1 distance to the pooled real is `reconstruction` times a term of D's phase, which
    trains R as well.
    """

    reconstruction: float = 1.0
    augments: ClassVar[bool] = True

    def phases(self) -> Sequence[Phase]:
        d, g = super().phases()
        return replace(d, trains=("D", "R")), g

    def check(self, nets: Mapping[str, Any]) -> None:
        super().check(nets)
        if "R" not in nets:
            raise FastganError("this objective needs a network 'R', which draws from D's features")

    def d_loss(self, step: Step) -> Mapping[str, Tensor]:
        images = self.d_images(step)
        real, fake = self.shown(step, images)
        (real_logits, features), (fake_logits, _) = step.pair("D", real, fake, True)
        drawn = step.nets.R(features).float()
        target = F.adaptive_avg_pool2d(real.detach().float(), drawn.shape[-2:])
        return {
            "adv": self.judged(step, real_logits, fake_logits),
            "reconstruction": self.reconstruction * F.l1_loss(drawn, target),
            **self.penalties(step, images, (real_logits, fake_logits)),
        }
