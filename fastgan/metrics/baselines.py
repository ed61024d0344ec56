"""What needs no training, for a generator to be compared with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.objectives.translation.degradations import blur, flux, stretch


def filled(image: Tensor, hole: Tensor, rounds: int = 500) -> Tensor:
    """`image` (B, C, H, W) with the harmonic surface in `hole` (B, 1, H, W) bool: every pixel there
    becomes the mean of its four neighbours, by `rounds` sweeps from the mean of what is known."""
    found = _level(image, hole)
    for _ in range(rounds):
        padded = F.pad(found, (1, 1, 1, 1), mode="replicate")
        around = (
            padded[..., :-2, 1:-1]
            + padded[..., 2:, 1:-1]
            + padded[..., 1:-1, :-2]
            + padded[..., 1:-1, 2:]
        ) / 4
        found = torch.where(hole, around, image)
    return found


def _level(image: Tensor, hole: Tensor) -> Tensor:
    """`image` with the mean of what is known in the hole."""
    known = (~hole).to(image.dtype)
    mean = (image * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp_min(1)
    return torch.where(hole, mean, image)


def biharmonic(image: Tensor, hole: Tensor, tolerance: float = 1e-6, rounds: int = 2000) -> Tensor:
    """`image` (B, C, H, W) with the biharmonic surface in `hole` (B, 1, H, W) bool: of all surfaces
    that keep the known pixels, the one whose Laplacian has the least sum of squares over the image
    (Damelin & Hoang 2018, arXiv 1707.06567). It may go beyond the known values. Of the image's own
    dtype; sides of 3 pixels at least.

    Each channel's normal equations are solved in float64 by preconditioned conjugate gradients from
    the mean of what is known, until the norm of the residual is `tolerance` of what it was at
    first, or for `rounds`.
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((2, 3), keepdim=True)

    inside = hole.repeat_interleave(image.shape[1], 0)
    found = _level(image.double().flatten(0, 1)[:, None], inside)
    left = -_curved_back(_curvature(found)) * inside
    nearly = _nearly_inverse(inside)
    way = nearly(left)
    size, enough = dot(left, way), tolerance**2 * dot(left, left)
    for _ in range(rounds):
        on = dot(left, left) > enough
        if not on.any():
            break
        turned = _curved_back(_curvature(way)) * inside
        stride = torch.where(on, size / dot(way, turned), 0.0)
        found, left = found + stride * way, left - stride * turned
        better = nearly(left)
        before, size = size, dot(left, better)
        way = better + torch.where(on, size / before, 0.0) * way
    return found.view(image.shape).to(image.dtype)


def _nearly_inverse(hole: Tensor) -> Callable[[Tensor], Tensor]:
    """What the equations of `biharmonic` are preconditioned by, up to a factor, for residuals of
    the hole's shape (B, 1, H, W): a sum over levels of cubic B-splines that lie within the hole,
    of which one twice as wide has a quarter of the energy (Bramble, Pasciak & Xu 1990)."""
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=torch.float64, device=hole.device) / 8
    spline = torch.outer(line, line)[None, None]
    known, levels = (~hole).double(), [hole]
    while min(known.shape[2:]) > 4:
        known = F.conv2d(known, spline, stride=2, padding=2)
        levels.append(known == 0)

    def apply(residual: Tensor) -> Tensor:
        parts = [residual]
        for _ in levels[1:]:
            parts.append(F.conv2d(parts[-1], spline, stride=2, padding=2))
        made = torch.zeros_like(parts[-1])
        for at in reversed(range(len(levels))):
            # next to the pixels themselves, whose energy is 20, the first splines' is about 1
            made = made + (5 * 4.0**at if at else 1) * parts[at] * levels[at]
            if at:
                odd = [side % 2 for side in parts[at - 1].shape[2:]]
                made = F.conv_transpose2d(
                    made, spline, stride=2, padding=2, output_padding=(1 - odd[0], 1 - odd[1])
                )
        return made * hole

    return apply


def _curvature(image: Tensor) -> Tensor:
    """The Laplacian at each pixel, (B, C, H, W); at a border without the second difference across
    it, so that a plane has none anywhere."""
    down = F.pad(image.diff(n=2, dim=2), (0, 0, 1, 1))
    return down + F.pad(image.diff(n=2, dim=3), (1, 1))


def _curved_back(values: Tensor) -> Tensor:
    """The transpose of `_curvature`."""
    down = F.pad(values[..., 1:-1, :], (0, 0, 2, 2)).diff(n=2, dim=2)
    return down + F.pad(values[..., 1:-1], (2, 2)).diff(n=2, dim=3)


def smoothed(image: Tensor, sigma: float) -> Tensor:
    """A stretched image (B, C, H, W) in [-1, 1] whose flux is blurred once more: less noise."""
    return stretch(blur(flux(image), sigma))


def richardson_lucy(image: Tensor, sigma: float, rounds: int = 10, sky: float = 0.1) -> Tensor:
    """A stretched image (B, C, H, W) in [-1, 1] deconvolved with a Gaussian (Richardson 1972, Lucy
    1974), in flux; `sky` is added first, so that noise stays positive."""
    seen = (flux(image) + sky).clamp_min(1e-4)
    found = seen.clone()
    for _ in range(rounds):
        found = found * blur(seen / blur(found, sigma).clamp_min(1e-4), sigma)
    return stretch(found - sky)
