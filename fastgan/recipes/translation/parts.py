"""Training on squares that are cut out of the images at random."""

from __future__ import annotations

from fastgan.errors import FastganError
from fastgan.recipes.config import ImageSpec, option

LEAST = 16


def crop_option() -> int:
    """`--crop` of a recipe whose networks take images of any size."""
    return option(
        0, "side of squares cut out of the images at random, to train on; 0: whole images"
    )


def side_of(images: ImageSpec, crop: int) -> int:
    """The side of what a step trains on. Raises FastganError where such a square isn't inside."""
    if not crop:
        return images.size
    if not LEAST <= crop <= images.size:
        raise FastganError(
            f"--crop {crop} is no part of images of {images.size} pixels: from {LEAST} to "
            f"{images.size}, or a larger --size"
        )
    return crop


def whole_steps(images: ImageSpec, crop: int, step: int) -> None:
    """Raises FastganError where the images, which are sampled whole, don't divide by `step`."""
    if crop and images.size % step:
        near = max(crop, images.size // step * step)
        raise FastganError(
            f"--crop {crop} makes networks for sides that divide by {step}, and images have "
            f"{images.size} pixels: use --size {near}"
        )
