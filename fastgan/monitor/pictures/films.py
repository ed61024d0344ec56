"""Films of clips that go on: a grid whose cells all move, each frame in a border that says what
it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fastgan.monitor.pictures.charts import shorten
from fastgan.monitor.pictures.formats import INK, PAPER
from fastgan.monitor.pictures.grids import grid, made_here, pixels, resized

GIVEN, MADE, TRUE = (0, 114, 178), (213, 94, 0), (0, 158, 115)
"""Blue, orange and green of Okabe and Ito, which stay apart for colour-blind readers."""

_BORDER, _LINE = 3, 18


def continuation(
    given: Any, made: Any, true: Any = None, *, size: int | None = None
) -> list[Image.Image]:
    """The frames of a film in which each cell shows the given frames of a clip and goes on with the
    made ones; beside them, where there are such, the true ones.

    given, made, true: (n, t, C, H, W) in [0, 1], t frames of n clips; as many true ones as made.
    size: height of a frame in pixels; None magnifies small ones in whole pixels.
    """
    count, past, _, high, wide = given.shape
    panels = [(made, MADE), (true, TRUE)] if true is not None else [(made, MADE)]
    factor = max(1, round((84 if count > 1 else 252) / max(high, wide)))
    columns = math.ceil(math.sqrt(count / len(panels)))
    film = []
    for t in range(past + made.shape[1]):
        cells = []
        for later, colour in panels:
            images = given[:, t] if t < past else later[:, t - past]
            if size is None:
                frames = pixels(images).repeat(factor, 1).repeat(factor, 2)
            else:
                frames = pixels(resized(images, size))
            cells.append(_bordered(frames, GIVEN if t < past else colour))
        caption = f"given {t + 1} of {past}" if t < past else f"{t - past + 1} ahead: made"
        caption += " | true" * (t >= past and true is not None)
        film.append(_captioned(np.concatenate(cells, 2), caption, columns))
    return film


def _bordered(frames: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    high, wide = (side + 2 * _BORDER for side in frames.shape[1:3])
    made = np.full((len(frames), high, wide, 3), colour, np.uint8)
    made[:, _BORDER:-_BORDER, _BORDER:-_BORDER] = frames
    return made


def _captioned(cells: np.ndarray, caption: str, columns: int) -> Image.Image:
    below = grid(cells.transpose(0, 3, 1, 2), columns=columns, padding=4, scale=1)
    made = Image.new("RGB", (below.width, below.height + _LINE), PAPER)
    made.paste(below, (0, _LINE))
    font = ImageFont.load_default(12)
    text = shorten(caption, font, below.width - 8)
    ImageDraw.Draw(made).text((4, _LINE / 2 + 2), text, INK, font, anchor="lm")
    return made_here(made)
