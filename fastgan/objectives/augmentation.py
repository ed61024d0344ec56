"""What D sees: reals and fakes changed alike, in D's and in G's phase (Zhao et al. 2020), always or
as often as D overfits (Karras et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fastgan.errors import FastganError
from fastgan.ops.augment import ada, diffaugment
from fastgan.ops.augment.diffaugment import parse_policy
from fastgan.ops.loss_table import LOSSES

if TYPE_CHECKING:
    from fastgan.objectives.base import Step

NONE, ADA = "none", "ada"
NET = "augment"
"""The name among the networks of what ADA remembers."""


class Strength(nn.Module):
    """The probability `strength` of ADA's operations: fixed, or moved by how D overfits, r_t =
    E[sign D(real)] (Karras et al. 2020, section 3.1). All on the device; buffers, so that a
    checkpoint has them.

    Args:
        p: Stay there; None begins at 0 and follows r_t.
        target: The r_t that is aimed for.
        kimg: Thousands of reals after which p could have gone from 0 to 1.
        interval: Updates of D from one change of p to the next.
    """

    strength: Tensor
    signs: Tensor
    images: Tensor
    updates: Tensor

    def __init__(
        self, p: float | None = None, target: float = 0.6, kimg: float = 500.0, interval: int = 4
    ) -> None:
        super().__init__()
        self.p, self.target, self.kimg, self.interval = p, target, kimg, interval
        self.register_buffer("strength", torch.tensor(0.0 if p is None else p))
        for name in ("signs", "images", "updates"):
            self.register_buffer(name, torch.zeros(()))

    @torch.no_grad()
    def observe(self, real_logits: Tensor, step: Step) -> None:
        """Takes D's logits of this process's reals; logs r_t and p."""
        count = len(real_logits)
        here = torch.stack(
            (real_logits.float().sign().mean() * count, torch.full_like(self.images, count))
        )
        signs, images = step.total(here).unbind()
        step.log("r_t", signs / images)
        step.log("augment_p", self.strength.clone())
        if self.p is not None:
            return
        self.signs += signs
        self.images += images
        self.updates += 1
        due = self.updates >= self.interval
        up = (self.signs / self.images - self.target).sign()
        moved = (self.strength + up * self.images / (self.kimg * 1000)).clamp(0, 1)
        self.strength.copy_(moved.where(due, self.strength))
        for kept in (self.signs, self.images, self.updates):
            kept.mul_(~due)


def check(augment: str, p: float | None, loss: str) -> None:
    """Raises FastganError for what is no augmentation, or none for this loss."""
    if augment not in (NONE, ADA):
        try:
            parse_policy(augment)
        except FastganError as error:
            raise FastganError(f"{error}; or ada, or none") from None
    if p is not None and augment != ADA:
        raise FastganError("augment_p is the strength of ada: give augment='ada' (--augment ada)")
    if p is not None and not 0 <= p <= 1:
        raise FastganError(f"augment_p must lie in [0, 1], not {p}")
    if augment == ADA and p is None and LOSSES[loss].outputs not in ("logits", "hinge"):
        raise FastganError(
            f"ada follows the sign of D on reals, which says nothing with the loss {loss}: give a "
            "fixed strength, such as augment_p=0.3 (--augment-p 0.3)"
        )


def augmented(augment: str, step: Step, images: Tensor, which: str) -> Tensor:
    """(B, C, H, W) `images` as D is shown them. Draws are a function of (seed, step, sample), the
    phase and `which` of its images they are."""
    if augment == NONE:
        return images
    key = step.key(f"augment/{which}")
    if augment == ADA:
        return ada(images, p=step.nets[NET].strength, **key)
    return diffaugment(images, policy=augment, **key)
