"""What D sees: reals and fakes changed alike, in D's and in G's phase (Zhao et al. 2020), always or
as often as D overfits (Karras et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from fastgan import arguments
from fastgan.errors import FastganError
from fastgan.objectives.base import Objective
from fastgan.objectives.losses import LOSSES
from fastgan.ops import loss_table
from fastgan.ops.augment import ada, diffaugment
from fastgan.ops.augment.diffaugment import parse_policy

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


@dataclass
class Augmented(Objective):
    """Base of the objectives that may show D changed images.

    Args:
        augment: What changes reals and fakes alike before D sees them, penalties included:
            "color,translation,cutout" or a part of it in this order (DiffAugment, Zhao et al.
            2020), "ada" (Karras et al. 2020), or "none".
        augment_p: The strength of "ada" in [0, 1]. None: it follows how D overfits.

    A subclass has `loss`, a name of `fastgan.objectives.LOSSES`, gives D only what `augmented`
    returns, and has logits judged by `judged`, or observed. `signed`: whether the sign of D's
    logits tells reals from fakes, which "ada" follows.
    """

    augment: str = field(default=NONE, kw_only=True, metadata={"later": True})
    augment_p: float | None = field(default=None, kw_only=True, metadata={"later": True})
    signed: ClassVar[bool] = True

    def check_augmented_for(self, adversarial: float) -> None:
        """Raises FastganError where there is no adversarial loss (weight 0) to augment for."""
        if self.augment != NONE and not adversarial:
            raise FastganError("without a discriminator there is nothing to augment for")

    def check_augment(self) -> None:
        """Raises FastganError for what is no augmentation, or none for this objective."""
        arguments.text(self.augment, "augment")
        augment, p = self.augment, self.augment_p
        if augment != NONE:
            self.medium.only_images("augment (--augment)")
        if augment not in (NONE, ADA):
            try:
                parse_policy(augment)
            except FastganError as error:
                raise FastganError(f"{error}; or ada, or none") from None
        if p is not None:
            arguments.number(p, "augment_p", -math.inf)
            if augment != ADA:
                raise FastganError(
                    "augment_p is the strength of ada: give augment='ada' (--augment ada)"
                )
            if not 0 <= p <= 1:
                raise FastganError(f"augment_p must lie in [0, 1], not {p}")
        signed = self.signed and loss_table.LOSSES[self._loss].outputs in ("logits", "hinge")
        if augment == ADA and p is None and not signed:
            what = f"with the loss {self._loss}" if self.signed else f"in {type(self).__name__}"
            raise FastganError(
                f"ada follows the sign of D on reals, which says nothing {what}: give a fixed "
                "strength, such as augment_p=0.3 (--augment-p 0.3)"
            )

    @property
    def _loss(self) -> str:
        described: Any = self  # `loss` is a field of some subclasses, the class's own in others
        name: str = described.loss
        return name

    def own_nets(self) -> Mapping[str, nn.Module]:
        return {NET: Strength(self.augment_p)} if self.augment == ADA else {}

    def augmented(self, step: Step, images: Tensor, which: str) -> Tensor:
        """(B, C, H, W) `images` as D is shown them; the same `which` in the same phase is changed
        the same way, whatever the channels. Draws are a function of (seed, step, sample)."""
        if self.augment == NONE:
            return images
        key = step.key(f"augment/{which}")
        if self.augment == ADA:
            strength = step.nets[NET].strength
            if images.shape[1] <= 4:
                return ada(images, p=strength, **key)
            # maps of a network: three channels at a time, by the same draws
            return torch.cat([ada(part, p=strength, **key) for part in images.split(3, 1)], 1)
        return diffaugment(images, policy=self.augment, **key)

    def moved(self, step: Step, mask: Tensor, which: str) -> Tensor:
        """A mask (B, 1, H, W) where `augmented` puts the images of `which`: without colours."""
        if self.augment == NONE:
            return mask
        key = step.key(f"augment/{which}")
        if self.augment == ADA:
            return ada(torch.cat([mask, mask], 1), p=step.nets[NET].strength, **key)[:, 1:]
        places = ",".join(name for name in self.augment.split(",") if name.strip() != "color")
        return diffaugment(mask, policy=places, **key)

    def observe(self, step: Step, real_logits: Tensor) -> None:
        """What "ada" follows is taken from D's logits of reals."""
        if self.augment == ADA:
            step.nets[NET].observe(real_logits, step)

    def judged(self, step: Step, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """D's loss on logits, which are observed."""
        self.observe(step, real_logits)
        return LOSSES[self._loss].d(real_logits, fake_logits, step)
