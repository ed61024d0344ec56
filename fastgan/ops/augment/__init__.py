"""Augmentations of what a discriminator sees: DiffAugment, and the pipe of StyleGAN2-ADA."""

from fastgan.ops.augment.ada import ada
from fastgan.ops.augment.diffaugment import POLICIES, diffaugment, diffaugment_reference

__all__ = ["POLICIES", "ada", "diffaugment", "diffaugment_reference"]
