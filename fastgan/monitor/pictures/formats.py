"""Pictures in the format that a file's name says, with captions where there is something to say."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from fastgan import files
from fastgan.errors import FastganError
from fastgan.monitor.pictures.charts import shorten
from fastgan.monitor.pictures.grids import ending_of, made_here, pixels, save

LARGEST = 2**28
"""Bytes of the largest photo."""

INK, PAPER = (38, 41, 46), (255, 255, 255)


def ending(path: Path, known: Iterable[str]) -> str:
    """The ending of a file's name, in lower case. Raises FastganError for none of `known`."""
    known = list(known)
    if (found := path.suffix.lower()) not in known:
        raise FastganError(
            f"can't write {path}: its name must end in {', '.join(known[:-1])} or {known[-1]}"
        )
    return found


def save_still(picture: Image.Image, path: Path) -> None:
    """Write a picture in the format of the name's ending. Raises FastganError."""
    kind = ending_of(path)
    make_parent(path)
    files.save_with(path, lambda f: save(picture, f, kind))


def make_parent(path: Path) -> None:
    with files.explained(f"can't write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)


def labelled_grid(
    images: Any, captions: Sequence[str], *, columns: int | None = None, scale: int | None = None
) -> Image.Image:
    """A grid with a caption above each image, or above each column where there are as many captions
    as columns.

    images: as for `grid`, or a list of (C, H, W). Captions too long for a cell are cut. Raises
    FastganError where their number fits neither.
    """
    cells = pixels(torch.stack(images) if isinstance(images, list) else images)
    count = len(cells)
    columns = min(count, columns or math.ceil(math.sqrt(count)))
    heads = len(captions) == columns and count > columns
    if len(captions) not in (columns, count):
        raise FastganError(f"{len(captions)} captions for {count} images in {columns} columns")
    factor = max(1, round(84 / max(cells.shape[1:3]))) if scale is None else scale
    cells = cells.repeat(factor, axis=1).repeat(factor, axis=2)
    high, wide, line, gap = cells.shape[1], cells.shape[2], 18, 3
    rows = -(-count // columns)
    step = high + gap + (0 if heads else line)
    top = line if heads else 0
    made = Image.new("RGB", (columns * (wide + gap) + gap, top + rows * step + gap), PAPER)
    pen, font = ImageDraw.Draw(made), ImageFont.load_default(12)
    for i, cell in enumerate(cells):
        x, y = gap + i % columns * (wide + gap), top + gap + i // columns * step
        if not heads:
            y += line
        made.paste(Image.fromarray(np.ascontiguousarray(cell)), (x, y))
        if not heads or i < columns:
            text = shorten(" ".join(captions[i].split()), font, wide)
            pen.text((x + wide / 2, y - line / 2 - 1), text, INK, font, anchor="mm")
    return made_here(made)


def open_photo(path: Path, shape: tuple[int, ...]) -> torch.Tensor:
    """A photo cut in the middle and scaled to (C, H, W), float32 in [0, 1]. Raises FastganError
    where it is no picture."""
    channels, height, width = shape
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    if channels not in modes:
        raise FastganError(f"images of {channels} channels can't be compared with a photo")
    with files.explained(f"can't read {path}"):
        data = files.read(path, LARGEST, follow=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of a picture that is too large to be one
            with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP", "BMP"]) as opened:
                whole = ImageOps.exif_transpose(opened).convert(modes[channels])
        fitted = ImageOps.fit(whole, (width, height), Image.Resampling.LANCZOS)
    except UnidentifiedImageError:
        raise FastganError(f"can't read {path}: it is no PNG, JPEG, WebP or BMP picture") from None
    except Exception as error:  # whatever a decoder says
        why = " ".join(str(error).split()) or type(error).__name__
        raise FastganError(f"can't read {path} as a picture: {why}") from error
    pixels = np.asarray(fitted, np.float32).reshape(height, width, channels) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
