"""Images between images: a closed walk through latents."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.objectives import Noise

FRAMES = 3000
"""Frames of the longest walk."""


def slerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Between two latents (n, ...) on the great circle through their directions (White 2016): the
    norm stays that of the latents the generator knows. Straight where they have one direction.
    t: of all, or (n, 1)."""
    x, y = a.flatten(1).double(), b.flatten(1).double()
    cosine = torch.nn.functional.cosine_similarity(x, y, dim=1).clamp(-1, 1)[:, None]
    angle = torch.acos(cosine)
    sine = torch.sin(angle)
    straight = sine < 1e-4
    sine = torch.where(straight, torch.ones_like(sine), sine)
    left = torch.where(straight, 1 - t + 0 * sine, torch.sin((1 - t) * angle) / sine)
    right = torch.where(straight, t + 0 * sine, torch.sin(t * angle) / sine)
    return (left * x + right * y).to(a.dtype).view_as(a)


def between(noise: Noise, a: Tensor, b: Tensor, t: float) -> Tensor:
    """(n, ...), t of the way from a to b: normal latents on great circles, uniform ones straight,
    categorical ones jump in the middle."""
    if noise.kind == "normal":
        return slerp(a, b, t)
    if noise.kind == "uniform":
        return a + (b - a) * t
    return a if t < 0.5 else b


def closed_walk(
    noise: Mapping[str, Noise], keys: Mapping[str, Tensor], frames: int
) -> dict[str, Tensor]:
    """Latents (K * frames, ...) from key to key and back to the first, `frames` for each leg.

    keys: (K, ...) by name. Raises FastganError for fewer than two keys, or too long a walk.
    """
    count = len(next(iter(keys.values())))
    if count < 2 or frames < 1:
        raise FastganError(
            f"a walk needs two keys and a frame between them, not {count} and {frames}"
        )
    if count * frames > FRAMES:
        raise FastganError(
            f"{count} keys of {frames} frames are {count * frames} frames: ask for at most {FRAMES}"
        )
    made: dict[str, list[Tensor]] = {name: [] for name in keys}
    for i in range(count):
        for j in range(frames):
            t = j / frames
            for name, values in keys.items():
                a, b = values[i : i + 1], values[(i + 1) % count][None]
                made[name].append(between(noise[name], a, b, t))
    return {name: torch.cat(parts) for name, parts in made.items()}
