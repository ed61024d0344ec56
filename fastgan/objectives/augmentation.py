"""What D sees: reals and fakes changed alike, in D's and in G's phase (Zhao et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastgan.ops.augment.diffaugment import diffaugment, parse_policy

if TYPE_CHECKING:
    from torch import Tensor

    from fastgan.objectives.base import Step

NONE = "none"


def check(augment: str) -> None:
    """Raises FastganError for what is no augmentation."""
    if augment != NONE:
        parse_policy(augment)


def augmented(augment: str, step: Step, images: Tensor, which: str) -> Tensor:
    """(B, C, H, W) `images` as D is shown them. Draws are a function of (seed, step, sample), the
    phase and `which` of its images they are."""
    if augment == NONE:
        return images
    return diffaugment(images, policy=augment, **step.key(f"augment/{which}"))
