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

from fastgan.data.rendered import faces
from fastgan.data.rendered.landscapes import landscapes
from fastgan.data.rendered.numbers import uniform

SIDE = 64
ICONS = Path("/usr/share/icons/Adwaita/96x96")


def write(folder: Path, pictures: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture.squeeze()).save(folder / f"{i:04d}.png")


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
    write(folder / "landscapes", landscapes(1500, SIDE)["image"])
    if len(some := icons(500)):
        write(folder / "icons", some)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
