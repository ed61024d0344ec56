"""Blur by a kernel of each sample's own: Gaussians and their relatives, and a low pass, which
rings."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

KINDS = ("kind", "sinc", "reach", "sigma_x", "sigma_y", "angle", "shape", "cutoff")
"""The uniform numbers of a kernel."""

GENERALISED, PLATEAU = 0.7, 0.85
ANISOTROPIC = ((0.45, GENERALISED), (0.82, PLATEAU), (0.97, 1.0))
"""Of "kind": a Gaussian below GENERALISED, its generalised form below PLATEAU, a plateau above; not
round within ANISOTROPIC."""

SINC = 0.1
"""The probability of a low pass instead."""

LARGE = 6
"""Pixels of reach from which on a low pass may leave 1/5 of the frequencies, instead of 1/3."""


def square(most: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Places of a kernel's values from its centre, in pixels: x (1, 1, K) and y (1, K, 1), K = 2
    most + 1."""
    at = torch.arange(-most, most + 1, device=like.device, dtype=like.dtype)
    return at.view(1, 1, -1), at.view(1, -1, 1)


def normalised(values: Tensor, reach: Tensor) -> Tensor:
    """(B, K, K) without what lies more than `reach` (B,) pixels away, of sum 1."""
    x, y = square(values.shape[2] // 2, values)
    values = values * (torch.maximum(x.abs(), y.abs()) <= reach.view(-1, 1, 1))
    return values / values.sum((1, 2), keepdim=True)


def sinc(cutoff: Tensor, reach: Tensor, most: int) -> Tensor:
    """(B, K, K): the round low pass that leaves frequencies up to w = `cutoff` (B,) radians a
    pixel, w J1(w r) / (2 pi r) (Wang et al. 2021, eq. 6), cut off at `reach` (B,) pixels."""
    x, y = square(most, cutoff)
    w, r = cutoff.view(-1, 1, 1), (x.square() + y.square()).sqrt()
    away = w * torch.special.bessel_j1(w * r) / (2 * math.pi * r.clamp_min(1))
    return normalised(torch.where(r == 0, w.square() / (4 * math.pi), away), reach)


def bell(
    sigmas: tuple[Tensor, Tensor],
    angle: Tensor,
    shape: Tensor,
    plateau: Tensor,
    reach: Tensor,
    most: int,
) -> Tensor:
    """(B, K, K) of q, the squared distance in units of two `sigmas` (B,) in pixels, along axes
    turned by `angle`: exp(-q^shape / 2), or where `plateau` (B,) bool 1 / (1 + q^shape) (Wang et
    al. 2021, section 3.2); cut off at `reach` (B,) pixels."""
    x, y = square(most, angle)
    c, s, b, wide, high = (t.view(-1, 1, 1) for t in (angle.cos(), angle.sin(), shape, *sigmas))
    q = ((c * x + s * y) / wide).square() + ((c * y - s * x) / high).square()
    values = torch.where(plateau.view(-1, 1, 1), 1 / (1 + q.pow(b)), torch.exp(-q.pow(b) / 2))
    return normalised(values, reach)


def reach_of(u: Tensor, reach: tuple[int, int]) -> Tensor:
    """(B,) whole numbers from reach[0] to reach[1], all alike often, of u in [0, 1)."""
    return reach[0] + (u * (reach[1] - reach[0] + 1)).floor()


def cutoff_of(u: Tensor, lowest: Tensor | float, share: float) -> Tensor:
    """Radians a pixel from pi lowest^share to pi, of u in [0, 1)."""
    low = lowest**share
    return math.pi * (low + (1 - low) * u)


def kernels(
    u: Mapping[str, Tensor], sigma: tuple[float, float], reach: tuple[int, int], share: float
) -> Tensor:
    """(B, K, K) kernels of `KINDS` (B,): deviations within `sigma` in pixels, cut off within
    `reach`, K = 2 reach[1] + 1; share: as for `cutoff_of`."""
    far, kind = reach_of(u["reach"], reach), u["kind"]
    wide, high = (sigma[0] + (sigma[1] - sigma[0]) * u[name] for name in ("sigma_x", "sigma_y"))
    two = torch.stack([(kind >= low) & (kind < top) for low, top in ANISOTROPIC]).any(0)
    plateau = kind >= PLATEAU
    shape = torch.where(plateau, 1 + u["shape"], 0.5 + 3.5 * u["shape"])
    shape = torch.where(kind < GENERALISED, 1.0, shape)
    sigmas, angle = (wide, torch.where(two, high, wide)), (2 * u["angle"] - 1) * math.pi
    smooth = bell(sigmas, angle, shape, plateau, far, reach[1])
    lowest = torch.where(far < LARGE, 1 / 3, 1 / 5)
    ringing = sinc(cutoff_of(u["cutoff"], lowest, share), far, reach[1])
    return torch.where((u["sinc"] < SINC).view(-1, 1, 1), ringing, smooth)


def blurred(images: Tensor, kernel: Tensor, where: Tensor) -> Tensor:
    """(B, C, H, W) images, edges repeated, each convolved with its `kernel` (B, K, K) where `where`
    (B,) bool says so."""
    n, channels, height, width = images.shape
    reach = kernel.shape[2] // 2
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    alone = padded.reshape(1, n * channels, height + 2 * reach, width + 2 * reach)
    weight = kernel.repeat_interleave(channels, 0).unsqueeze(1)
    made = F.conv2d(alone, weight, groups=n * channels).view(images.shape)
    return torch.where(where.view(-1, 1, 1, 1), made, images)
