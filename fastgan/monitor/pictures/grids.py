"""Images laid out as a grid, and pictures written as PNG."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from fastgan.errors import FastganError

Target = str | os.PathLike[str] | IO[bytes]


def pixels(images: Any) -> np.ndarray:
    """Turn float NCHW in [0, 1] (torch or NumPy, 1 or 3 channels) into uint8 NHWC with 3 channels.

    uint8 passes unchanged; out-of-range values are clipped, NaN becomes 0. Raises FastganError for
    another rank or channel count.
    """
    if hasattr(images, "detach"):
        images = images.detach().float().cpu().numpy()
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape:
        raise FastganError(
            f"a picture grid takes images of shape (N, 1 or 3, H, W), not {array.shape}; add the "
            "missing axis or use 3 channels"
        )
    if array.dtype != np.uint8:
        array = np.clip(np.nan_to_num(array.astype(np.float32), nan=0.0), 0.0, 1.0)
        array = (array * 255.0 + 0.5).astype(np.uint8)
    return np.repeat(array.transpose(0, 2, 3, 1), 3 // array.shape[1], axis=3)


def _magnify(side: int, scale: int | None) -> int:
    """Integer factor that brings a cell's longer side to about 84 pixels (28 -> 84, 32 -> 96, 64
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

    images: float NCHW in [0, 1] (or uint8), torch or NumPy, 1 or 3 channels. columns: default is
        the near-square layout.
    padding: white pixels between and around cells. scale: integer magnification (nearest neighbour,
    so that pixels stay pixels); by default small images grow to about 84 pixels a side.
    """
    cells = pixels(images)
    count, height, width, _ = cells.shape
    columns = min(count, columns or math.ceil(math.sqrt(count)))
    if columns < 1:
        raise FastganError(f"columns must be at least 1, not {columns}")
    factor = _magnify(max(height, width), scale)
    return Image.fromarray(_tile(cells, columns, padding, factor))


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
) -> None:
    """Write `grid(images)` as PNG to a path or an open binary file."""
    save(grid(images, columns=columns, padding=padding, scale=scale), path)


def save(picture: Image.Image, target: Target) -> None:
    """Write a picture as PNG to a path or an open binary file (a caller that wants an atomic write
    passes its temporary file)."""
    if isinstance(target, (str, os.PathLike)):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        picture.save(os.fspath(target), format="PNG")
    else:
        picture.save(target, format="PNG")
