"""Bars of the values of a column: those of the data, and those of samples before them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fastgan.data.tables.columns import Column, histogram
from fastgan.monitor.pictures.charts import number_text, shorten

WIDE, HIGH = 240, 150
HEAD, FOOT, SIDE = 22, 18, 8
INK, FAINT, DATA, SAMPLES = (38, 41, 46), (112, 118, 126), (205, 209, 214), (0, 114, 178)

BARS = 24
"""Values of a discrete column that are drawn, the most frequent ones."""


def chart(column: Column, values: np.ndarray | None) -> np.ndarray:
    """uint8 (3, HIGH, WIDE): grey bars for the column's own counts, a blue line for those of values
    float64 (n,), or none."""
    shares, names = shares_of(column, values)
    picture = Image.new("RGB", (WIDE, HIGH), (255, 255, 255))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    small = ImageFont.load_default(10)
    pen.text((SIDE, HEAD / 2), shorten(column.name, font, WIDE - 100), INK, font, anchor="lm")
    pen.text((WIDE - SIDE - 48, HEAD / 2), "data", FAINT, small, anchor="rm")
    if values is not None:
        pen.text((WIDE - SIDE, HEAD / 2), "samples", SAMPLES, small, anchor="rm")
    low, floor = HEAD + 4, HIGH - FOOT
    top = max(float(shares[0].max()), *(float(s.max()) for s in shares[1:]), 1e-9)
    step = (WIDE - 2 * SIDE) / len(shares[0])
    height = lambda share: floor - share / top * (floor - low)
    gap = 1 if column.discrete else 0
    for i, share in enumerate(shares[0]):
        left = SIDE + i * step + gap
        pen.rectangle((left, height(share), SIDE + (i + 1) * step - gap, floor), DATA)
    for made in shares[1:]:
        for i, share in enumerate(made):
            left, right = SIDE + i * step + gap, SIDE + (i + 1) * step - gap
            pen.line((left, height(share), right, height(share)), SAMPLES, 3)
    pen.line((SIDE, floor, WIDE - SIDE, floor), FAINT)
    if column.discrete:
        for i, name in enumerate(names):
            text = shorten(name or "none", small, max(step - 2, 8))
            pen.text((SIDE + (i + 0.5) * step, floor + 3), text, FAINT, small, anchor="mt")
    else:
        for value, x, anchor in zip(column.span, (SIDE, WIDE - SIDE), ("lt", "rt")):
            pen.text((x, floor + 3), number_text(end(column, value)), FAINT, small, anchor=anchor)
    return np.asarray(picture).transpose(2, 0, 1)


def end(column: Column, value: float) -> float:
    """An end of the column's span as it is written below its chart."""
    return float(f"{np.ceil(value) if column.decimals == 0 else value:.3g}")


def shares_of(column: Column, values: np.ndarray | None) -> tuple[list[np.ndarray], Sequence[str]]:
    """Shares of the bars, of the data and of values, and the names of the bars of a discrete
    column. Missing numbers have no bar, and are no part of the whole."""
    data = np.array(column.counts, float)
    if column.discrete:
        kept = np.sort(np.argsort(-data, kind="stable")[:BARS])
        counts = [data]
        if values is not None:
            counts.append(np.bincount(values.astype(np.int64), minlength=len(data)).astype(float))
        return [(c / max(c.sum(), 1))[kept] for c in counts], [column.values[i] for i in kept]
    counts = [data]
    if values is not None:
        known = values[np.isfinite(values)]
        counts.append(np.array(histogram(known, column.span), float))
    return [c / max(c.sum(), 1) for c in counts], ()
