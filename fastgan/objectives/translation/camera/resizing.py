"""Another size for each sample of a batch, within one tensor: an image of h x w pixels lies in the
corner of a larger canvas, which repeats its last row and column."""

from __future__ import annotations

import torch
from torch import Tensor

AREA, BILINEAR, BICUBIC = range(3)


def cubic(d: Tensor) -> Tensor:
    """Keys' cubic convolution at distances d >= 0 with a = -0.75, as PyTorch and OpenCV have it."""
    near = (1.25 * d - 2.25) * d * d + 1
    far = ((-0.75 * d + 3.75) * d - 6) * d + 3
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))


def weights(given: Tensor, wanted: Tensor, inputs: int, outputs: int, way: Tensor) -> Tensor:
    """(B, outputs, inputs): what makes `wanted` (B,) pixels of a row's first `given` (B,), both
    whole floats; further outputs repeat the last one.

    way (B,): AREA is the mean over what a pixel covers, BILINEAR and BICUBIC look at the 2 and 4
    nearest pixels whatever the scale, so that they alias, as fast resizers do.
    """
    given, wanted, way = (t.view(-1, 1, 1) for t in (given, wanted, way))
    j = torch.arange(inputs, device=given.device, dtype=given.dtype)
    i = torch.arange(outputs, device=given.device, dtype=given.dtype).view(1, -1, 1)
    i, step = torch.minimum(i, wanted - 1), given / wanted
    overlap = torch.minimum((i + 1) * step, j + 1) - torch.maximum(i * step, j)
    covered = overlap.clamp_min(0) / step
    at = (i + 0.5) * step - 0.5
    first = at.floor()
    near = torch.zeros_like(covered)
    for tap in range(-1, 3):
        d = (at - first - tap).abs()
        share = torch.where(way == BICUBIC, cubic(d), (1 - d).clamp_min(0))
        place = torch.minimum((first + tap).clamp_min(0), given - 1)
        near = near + share * (place == j)
    return torch.where(way == AREA, covered, near)


Sizes = tuple[Tensor, Tensor]
"""Heights and widths (B,) in pixels, whole floats."""


def resized(
    images: Tensor, given: Sizes, wanted: Sizes, canvas: tuple[int, int], way: Tensor
) -> Tensor:
    """(B, C, *canvas): images of the sizes `wanted`, of those of the sizes `given` in the corners
    of (B, C, H, W)."""
    down, across = (
        weights(given[k], wanted[k], images.shape[2 + k], canvas[k], way).unsqueeze(1)
        for k in range(2)
    )
    return down @ images @ across.mT


def repeated(images: Tensor, sizes: Sizes) -> Tensor:
    """(B, C, H, W) whose images of `sizes` are as they are, and their last row and column behind
    them."""
    for dim, size in zip((2, 3), sizes):
        shape = [1, 1, 1, 1]
        shape[dim] = -1
        at = torch.arange(images.shape[dim], device=images.device).view(shape)
        index = torch.minimum(at, size.long().view(-1, 1, 1, 1) - 1)
        images = images.gather(dim, index.expand_as(images))
    return images
