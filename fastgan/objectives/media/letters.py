"""Strings against a critic, with the likelihood of real ones beside it (critic: Gulrajani et al.
2017, arXiv 1704.00028; draws by Gumbel noise: Jang et al. 2017, arXiv 1611.01144; both losses
together: Yu et al. 2017, "SeqGAN", arXiv 1609.05473, has them one after the other)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from fastgan import arguments
from fastgan.errors import FastganError
from fastgan.objectives.adversarial import Adversarial
from fastgan.objectives.base import Noise, Phase
from fastgan.objectives.medium import IMAGES, Medium

if TYPE_CHECKING:
    from torch import Tensor

    from fastgan.objectives.base import Step


def negative_log_likelihood(logits: Tensor, codes: Tensor) -> Tensor:
    """Of a string up to its first 0, that one included, in nats; mean over strings.

    logits (B, length, symbols), each given the symbols before; codes int64 (B, length).
    """
    each = F.cross_entropy(logits.float().transpose(1, 2), codes, reduction="none")
    goes_on = torch.cat([torch.ones_like(codes[:, :1]), codes[:, :-1]], 1) != 0
    return (each * goes_on).sum(1).mean()


@dataclass
class Letters(Adversarial):
    """`Adversarial` on strings (B, length), which the batch holds as numbers of symbols; both
    networks see them one-hot, (B, length, symbols). "G" is given z and the numbers by which
    symbols are drawn, uniform in [0, 1), of that shape too; with a third argument, strings, it
    gives the logits of each next symbol. Its loss is adversarial * adv + likelihood * nll.

    Args:
        length: Symbols of a string.
        symbols: Different symbols, the end among them.
        adversarial: The weight of the critic's term; 0 trains G alone.
        likelihood: The weight of the negative log-likelihood of the reals; 0: the critic alone.
        medium: How strings are shown and written.

    Raises:
        FastganError: A number is out of its range, or both weights are 0.
    """

    length: int = 1
    symbols: int = 2
    adversarial: float = 1.0
    likelihood: float = 1.0
    medium: Medium = IMAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.whole(self.length, "length", 1)
        arguments.whole(self.symbols, "symbols", 2)
        for name in ("adversarial", "likelihood"):
            arguments.number(getattr(self, name), name)
        if not self.adversarial and not self.likelihood:
            raise FastganError("adversarial and likelihood are both 0: give one of them a weight")
        drawn = Noise((self.length, self.symbols), "uniform", 0.0, 1.0)
        self.noise = {**self.noise, "gumbel": drawn}

    def phases(self) -> Sequence[Phase]:
        return super().phases() if self.adversarial else (Phase("G", ("G",), self.g_loss),)

    def reals(self, step: Step) -> Tensor:
        codes = step.batch["image"][..., None]
        return (codes == torch.arange(self.symbols, device=codes.device)).float()

    def generate(self, step: Step) -> Tensor:
        return step.nets.G(step.noise.z, step.noise.gumbel)

    def g_loss(self, step: Step) -> Mapping[str, Tensor]:
        terms: dict[str, Tensor] = {}
        if self.adversarial:
            terms["adv"] = self.adversarial * super().g_loss(step)["adv"]
        if self.likelihood:
            logits = step.nets.G(step.noise.z, step.noise.gumbel, self.reals(step))
            nll = negative_log_likelihood(logits, step.batch["image"].long())
            terms["nll"] = self.likelihood * nll
        return terms
