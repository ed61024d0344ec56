"""Coloured shapes with captions, drawn by rule: data whose captions are true by construction."""

from __future__ import annotations

import numpy as np

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 50),
    "purple": (160, 60, 190),
    "white": (240, 240, 240),
}
SIZES = {"small": 0.2, "large": 0.36}
FORMS = ("circle", "square", "triangle", "cross")


def inside(form: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the shape of half-width 1 around the origin is; y points down."""
    if form == "circle":
        return x**2 + y**2 <= 1
    if form == "square":
        return np.maximum(np.abs(x), np.abs(y)) <= 0.87
    if form == "triangle":
        return (y <= 0.8) & (np.abs(x) <= (y + 1) * 0.55)
    return (np.minimum(np.abs(x), np.abs(y)) <= 0.3) & (np.maximum(np.abs(x), np.abs(y)) <= 1)


def draw(count: int = 6000, size: int = 32, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Images uint8 (count, size, size, 3) and a caption of each, such as "a small red circle".

    Place, brightness and background vary; edges are averaged over 3x3 points a pixel.
    """
    dice = np.random.default_rng(seed)
    points = (np.arange(3 * size) + 0.5) / (3 * size)
    y, x = np.meshgrid(points, points, indexing="ij")
    images, captions = np.empty((count, size, size, 3), np.uint8), []
    kinds = [list(kind) for kind in (COLOURS, SIZES, FORMS)]
    for image in images:
        colour, scale, form = (kind[dice.integers(len(kind))] for kind in kinds)
        radius = SIZES[scale] * dice.uniform(0.9, 1.1)
        at = dice.uniform(radius + 0.02, 0.98 - radius, 2)
        mask = inside(form, (x - at[0]) / radius, (y - at[1]) / radius)
        seen = mask.view(np.uint8)
        rows = seen[::3] + seen[1::3] + seen[2::3]
        share = (rows[:, ::3] + rows[:, 1::3] + rows[:, 2::3])[..., None] / 9
        paint = np.array(COLOURS[colour]) * dice.uniform(0.85, 1.0)
        ground = dice.uniform(20, 90)
        image[:] = np.clip(share * paint + (1 - share) * ground, 0, 255)
        captions.append(f"a {scale} {colour} {form}")
    return images, captions
