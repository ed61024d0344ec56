"""Painted landscapes: wide, soft shapes and few edges."""

from __future__ import annotations

import numpy as np

from fastgan.data.rendered.numbers import in_bytes, uniform


def landscapes(count: int, side: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Sky, sun, three rows of hills and a lake: "image" (n, side, side, 3), each a crop of a
    painting twice as wide and high."""
    made = np.empty((count, side, side, 3), np.uint8)
    for i, p in enumerate(uniform("landscapes", seed, count, 48)):
        down, right = (int(p[42 + k] * side) for k in range(2))
        y, x = np.mgrid[down : down + side, right : right + side] / (2 * side)
        dusk = p[0]
        top = np.array([0.2 + 0.5 * dusk, 0.4 - 0.1 * dusk, 0.8 - 0.4 * dusk])
        low = np.array([0.8 + 0.2 * dusk, 0.8 - 0.2 * dusk, 0.9 - 0.5 * dusk])
        scene = top + (low - top) * y[..., None] * 1.4
        sun = np.hypot(y - 0.1 - 0.4 * p[1], x - p[2])
        scene += np.exp(-sun * (12 + 30 * p[3]))[..., None] * np.array([0.9, 0.7, 0.3])
        for row in range(3):
            q = p[4 + 12 * row : 16 + 12 * row]
            line = 0.35 + 0.16 * row + 0.12 * (q[0] - 0.5)
            for k in range(4):
                line = line + 0.09 / (k + 1) * q[1 + k] * np.sin(
                    (k + 1) * (3 + 5 * q[5 + k % 2]) * x + 6.28 * q[7 + k]
                )
            hill = np.array([0.12, 0.3, 0.1]) + np.array([0.3, 0.2, 0.1]) * q[11] * (1 - row / 3)
            mist = 0.55 - 0.25 * row
            scene = np.where((y > line)[..., None], hill * (1 - mist) + low * mist, scene)
        if p[40] < 0.5:
            shore = 0.85 - 0.1 * p[41]
            water = low * (0.6 + 0.2 * np.sin(60 * y + 8 * np.sin(5 * x)))[..., None]
            scene = np.where((y > shore)[..., None], water, scene)
        made[i] = in_bytes(scene)
    return {"image": made}
