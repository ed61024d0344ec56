"""Three folders of pictures that nobody has trained on, for measurements of `fastgan train --data`:

    python -m fastgan.bench.experiments.own_pictures FOLDER

writes FOLDER/drawings (300 drawn faces), FOLDER/icons (500 of Debian's adwaita-icon-theme on
coloured grounds; left out where the theme is not installed) and FOLDER/landscapes (1,500 crops of
painted hills), PNG, 64x64. The same bytes everywhere but for the icons' theme.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from fastgan.data.rendered import faces, uniform

SIDE = 64
ICONS = Path("/usr/share/icons/Adwaita/96x96")


def write(folder: Path, pictures: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture.squeeze()).save(folder / f"{i:04d}.png")


def landscapes(count: int) -> np.ndarray:
    """Sky, sun, three rows of hills and a lake: uint8 (count, 64, 64, 3), each a crop of a painting
    twice as large."""
    made = np.empty((count, SIDE, SIDE, 3), np.uint8)
    wide = 2 * SIDE
    y, x = np.mgrid[0:wide, 0:wide] / wide
    for i, p in enumerate(uniform("landscapes", 0, count, 48)):
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
        down, right = (int(p[42 + k] * (wide - SIDE)) for k in range(2))
        crop = scene[down : down + SIDE, right : right + SIDE]
        made[i] = np.clip(np.rint(crop * 255), 0, 255)
    return made


def icons(count: int) -> np.ndarray:
    """The theme's pictures, and its symbols in ink, each on a ground of its own colour."""
    files = sorted(ICONS.rglob("*.png"))[:count]
    made = []
    for file, p in zip(files, uniform("icons", 0, len(files), 3)):
        icon = Image.open(file).convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        ground = Image.new("RGBA", icon.size, (*(int(150 + 105 * v) for v in p), 255))
        made.append(np.asarray(Image.alpha_composite(ground, icon).convert("RGB")))
    return np.stack(made) if made else np.empty((0, SIDE, SIDE, 3), np.uint8)


def main(folder: Path) -> None:
    write(folder / "drawings", faces(300, SIDE)["image"])
    write(folder / "landscapes", landscapes(1500))
    if len(some := icons(500)):
        write(folder / "icons", some)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
