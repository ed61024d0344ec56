"""Images laid out as a grid, and pictures written as PNG."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from fastgan.data.pixels import GRID, SOFTWARE
from fastgan.errors import FastganError

Target = str | os.PathLike[str] | IO[bytes]

FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".webp": {"format": "WEBP", "lossless": True},
}
"""What Pillow is told for each ending of a picture's name."""

DRAWN = (1, 3, 4)
"""Channels of the images that a grid takes: grey, RGB, RGBA."""


def ending_of(path: str | os.PathLike[str]) -> str:
    """The ending of a picture's name, a key of FORMATS. Raises FastganError for any other."""
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        what = f"ends in {ending}" if ending else "has no ending"
        raise FastganError(
            f"{path} {what}, which is no picture that is written here: name it .png, .jpg or .webp"
        )
    return ending


def pixels(images: Any) -> np.ndarray:
    """Turn float NCHW in [0, 1] (torch or NumPy, 1, 3 or 4 channels) into uint8 NHWC with 3.

    Transparent pixels (4 channels) are composited on white. uint8 passes unchanged; out-of-range
    values are clipped, NaN becomes 0. Raises FastganError for another rank or channel count.
    """
    if hasattr(images, "detach"):
        images = images.detach().float().cpu().numpy()
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[1] not in DRAWN or 0 in array.shape:
        raise FastganError(
            f"a picture grid takes images of shape (N, 1, 3 or 4, H, W), not {array.shape}; add "
            "the missing axis or use 3 channels"
        )
    if array.dtype != np.uint8:
        array = np.clip(np.nan_to_num(array.astype(np.float32), nan=0.0), 0.0, 1.0)
        array = (array * 255.0 + 0.5).astype(np.uint8)
    if array.shape[1] == 4:
        colour, alpha = array[:, :3].astype(np.uint16), array[:, 3:].astype(np.uint16)
        array = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.repeat(array.transpose(0, 2, 3, 1), 3 // array.shape[1], axis=3)


def still(image: Any) -> Image.Image:
    """One image, (C, H, W) as for `grid`, as it is, with its transparency."""
    if image.shape[0] < 4:
        return Image.fromarray(pixels(image[None])[0])
    parts = [pixels(image[None, :3])[0], pixels(image[None, 3:])[0][..., :1]]
    return Image.fromarray(np.concatenate(parts, axis=2))


def resized(images: Any, size: int) -> np.ndarray:
    """Images as for `grid`, each `size` pixels high, wide in proportion: uint8 (N, 3 or 4, h, w).

    Larger by Lanczos' filter, smaller by the mean over the area of each pixel. Transparent pixels
    don't colour their neighbours.
    """
    found = []
    for picture in map(still, images):
        filtering = Image.Resampling.LANCZOS if size > picture.height else Image.Resampling.BOX
        wide = max(1, round(picture.width * size / picture.height))
        found.append(np.asarray(picture.resize((wide, size), filtering)).transpose(2, 0, 1))
    return np.stack(found)


def _magnify(side: int, scale: int | None) -> int:
    """Integer factor that brings a cell's height to about 84 pixels (28 -> 84, 32 -> 96, 64
    and larger stay)."""
    if scale is not None:
        if scale < 1:
            raise FastganError(f"scale must be a whole number of at least 1, not {scale}")
        return int(scale)
    return max(1, round(84 / side))


def grid(
    images: Any, *, columns: int | None = None, padding: int = 2, scale: int | None = None
) -> Image.Image:
    """Lay images out row by row.

    images: float NCHW in [0, 1] (or uint8), torch or NumPy, 1, 3 or 4 channels. columns: default is
        the near-square layout.
    padding: white pixels between and around cells. scale: integer magnification (nearest neighbour,
    so that pixels stay pixels); by default small images grow to about 84 pixels a side.
    """
    cells = pixels(images)
    count, height, width, _ = cells.shape
    columns = min(count, columns or math.ceil(math.sqrt(count * height / width)))
    if columns < 1:
        raise FastganError(f"columns must be at least 1, not {columns}")
    factor = _magnify(height, scale)
    return made_here(Image.fromarray(_tile(cells, columns, padding, factor)))


def made_here(picture: Image.Image) -> Image.Image:
    """The picture, marked as a grid, so that its file is never taken for an image to train on."""
    picture.getexif()[SOFTWARE] = GRID
    return picture


def _tile(cells: np.ndarray, columns: int, padding: int, factor: int) -> np.ndarray:
    count, height, width, _ = cells.shape
    rows = -(-count // columns)
    step_y, step_x = height * factor + padding, width * factor + padding
    canvas = np.full((rows * step_y + padding, columns * step_x + padding, 3), 255, np.uint8)
    cells = cells.repeat(factor, axis=1).repeat(factor, axis=2)
    for index, cell in enumerate(cells):
        y, x = padding + (index // columns) * step_y, padding + (index % columns) * step_x
        canvas[y : y + height * factor, x : x + width * factor] = cell
    return canvas


def save_grid(
    path: Target,
    images: Any,
    *,
    columns: int | None = None,
    padding: int = 2,
    scale: int | None = None,
    ending: str | None = None,
) -> None:
    """Write `grid(images)` as `save` does."""
    save(grid(images, columns=columns, padding=padding, scale=scale), path, ending)


def save(picture: Image.Image, target: Target, ending: str | None = None) -> None:
    """Write a picture to a path, as its ending says, or to an open binary file, as PNG or as
    `ending` says (a caller that wants an atomic write passes its temporary file).

    Raises FastganError for an ending that is not in FORMATS.
    """
    if isinstance(target, (str, os.PathLike)):
        how = FORMATS[ending or ending_of(target)]
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        picture.save(os.fspath(target), exif=picture.getexif(), **how)
    else:
        picture.save(target, exif=picture.getexif(), **FORMATS[ending or ".png"])
