"""Training curves as stacked panels, drawn with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fastgan.monitor.pictures.grids import Target, save

_PAPER = (255, 255, 255)
_INK = (38, 41, 46)
_FAINT_INK = (112, 118, 126)
_RULE = (232, 234, 237)
# Okabe-Ito hues: they stay apart for colour-blind readers; the order puts D's and G's curves in
# blue and orange.
_HUES = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (90, 90, 90),
    (150, 110, 60),
)


def _font(size: float) -> Any:
    return ImageFont.load_default(size)


def shorten(text: str, font: Any, room: float) -> str:
    if font.getlength(text) <= room:
        return text
    while len(text) > 1 and font.getlength(text + "…") > room:
        text = text[:-1]
    return text + "…"


_SKIP = {"step", "images", "epoch", "time", "wall", "seconds", "elapsed"}
_SPEED = ("images_per_s", "img/s", "images/s", "imgs_per_s")


def panel_of(key: str) -> str | None:
    """Name of the panel a metric is drawn in; None for bookkeeping that is no curve (step, time,
    epoch, ...)."""
    name = key.lower()
    last = name.rsplit("/", 1)[-1]
    if name in _SKIP or last in _SKIP or last.startswith(("time", "wall", "seconds")):
        return None
    if name in _SPEED or last in _SPEED:
        return "images per second"
    if "logit" in last or last.startswith("score"):
        return "logits of D"
    if "acc" in last.split("_"):
        return "accuracy of D"
    if name.startswith("evaluation/"):
        return {"kd": "kernel distance", "fd": "Frechet distance"}.get(last[:2], "neighbours")
    if "diversity" in name:
        return "diversity of samples"
    if name.startswith("lr/") or last == "lr" or last.startswith("lr_"):
        return "learning rate"
    if name.startswith("grad") or "grad_norm" in last:
        return "gradient norm"
    if "loss" in name.split("/") or last.startswith("loss"):
        return "loss"
    return "other"


PANELS = (
    "loss",
    "logits of D",
    "accuracy of D",
    "diversity of samples",
    "kernel distance",
    "Frechet distance",
    "neighbours",
    "gradient norm",
    "learning rate",
    "images per second",
    "other",
)


def curves(
    rows: Sequence[Mapping[str, Any]], path: Target, *, title: str | None = None, width: int = 960
) -> None:
    """Write `draw_curves(rows)` as PNG to a path or an open binary file."""
    save(draw_curves(rows, title=title, width=width), path)


def draw_curves(
    rows: Sequence[Mapping[str, Any]], *, title: str | None = None, width: int = 960
) -> Image.Image:
    """Draw metric rows ({"step": int, "loss/D": float, ...}) as stacked panels that share the step
    axis.

    A row may lack any key. Each curve is smoothed over about a fiftieth of the run, with its raw
    line faint behind it; non-finite values are gaps marked by a red tick at the panel's foot.
    """
    panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    keys = list(dict.fromkeys(key for row in rows for key in row))
    for key in keys:
        panel = panel_of(key)
        points = [
            (row["step"], row[key]) for row in rows if "step" in row and is_number(row.get(key))
        ]
        if panel is None or not points:
            continue
        panels.setdefault(panel, {})[key] = (
            np.array([p[0] for p in points], float),
            np.array([p[1] for p in points], float),
        )
    names = [name for name in PANELS if name in panels]
    return _Chart(width, [(name, panels[name]) for name in names], title).draw()


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred triangular moving average that ignores non-finite values and shrinks at the ends;
    non-finite inputs stay NaN."""
    good = np.isfinite(values)
    if window < 2 or good.sum() < 3:
        return np.where(good, values, np.nan)
    kernel = np.bartlett(2 * (window // 2) + 3)[1:-1]
    half = len(kernel) // 2
    weight = np.convolve(good.astype(float), kernel)[half : half + len(values)]
    total = np.convolve(np.where(good, values, 0.0), kernel)[half : half + len(values)]
    return np.where(good, total / np.maximum(weight, 1e-30), np.nan)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round tick positions (1, 2, 2.5 or 5 times a power of ten apart) inside [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / max(count, 1)
    base = 10.0 ** math.floor(math.log10(raw))
    gap = base * next(m for m in (1, 2, 2.5, 5, 10) if m * base >= raw * 0.999)
    first = math.ceil(low / gap - 1e-9)
    return [round(i * gap, 12) for i in range(first, math.floor(high / gap + 1e-9) + 1)]


def number_text(value: float) -> str:
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:g}M"
    if size >= 1e4:
        return f"{value / 1e3:g}k"
    if 0 < size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"


def _reading(value: float) -> str:
    """Three significant digits, whole numbers from 100 on."""
    return f"{value:,.0f}" if 100 <= abs(value) < 1e7 else f"{value:.3g}"


class _Chart:
    """One drawing: everything is laid out in final pixels and drawn at twice the size."""

    S = 2

    def __init__(
        self,
        width: int,
        panels: list[tuple[str, dict[str, tuple[np.ndarray, np.ndarray]]]],
        title: str | None,
    ):
        self.panels, self.title = panels, title
        self.panel_height = 178 if len(panels) <= 4 else 150
        self.left, self.right, self.head, self.gap, self.foot = 66, 22, 46 if title else 14, 14, 40
        self.caption = 24
        self.width = width
        self.height = (
            self.head
            + max(1, len(panels)) * (self.caption + self.panel_height + self.gap)
            + self.foot
        )
        self.image = Image.new("RGB", (self.width * self.S, self.height * self.S), _PAPER)
        self.pen = ImageDraw.Draw(self.image)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: int = 12,
        fill: tuple[int, int, int] = _INK,
        anchor: str = "lm",
    ) -> None:
        self.pen.text(
            (x * self.S, y * self.S), text, font=_font(size * self.S), fill=fill, anchor=anchor
        )

    def line(
        self, points: Sequence[tuple[float, float]], fill: tuple[int, int, int], width: float
    ) -> None:
        if len(points) > 1:
            self.pen.line(
                [(x * self.S, y * self.S) for x, y in points],
                fill=fill,
                width=max(1, round(width * self.S)),
                joint="curve",
            )

    def draw(self) -> Image.Image:
        if self.title:
            self.text(
                self.left,
                25,
                shorten(self.title, _font(18), self.width - self.left - self.right),
                18,
            )
        every = [steps for _, series in self.panels for steps, _ in series.values()]
        low, high = (
            (min(s.min() for s in every), max(s.max() for s in every)) if every else (0.0, 1.0)
        )
        if not every:
            self.text(self.width / 2, self.height / 2, "no metrics yet", 16, _FAINT_INK, "mm")
        if high <= low:
            low, high = low - 0.5, high + 0.5
        top = self.head
        for index, (name, series) in enumerate(self.panels):
            self.panel(top, name, series, low, high, last=index == len(self.panels) - 1)
            top += self.caption + self.panel_height + self.gap
        return self.image.resize((self.width, self.height), Image.Resampling.LANCZOS)

    def panel(
        self,
        top: float,
        name: str,
        series: dict[str, tuple[np.ndarray, np.ndarray]],
        low: float,
        high: float,
        *,
        last: bool,
    ) -> None:
        x0, x1, y0, y1 = (
            self.left,
            self.width - self.right,
            top + self.caption,
            top + self.caption + self.panel_height,
        )
        window = {key: max(1, len(values) // 50) for key, (_, values) in series.items()}
        smoothed = {key: smooth(values, window[key]) for key, (_, values) in series.items()}
        bottom, ceiling = value_range(
            name, [values for _, values in series.values()], list(smoothed.values())
        )

        def at(step: float, value: float) -> tuple[float, float]:
            y = y1 - (value - bottom) / (ceiling - bottom) * (y1 - y0)
            return x0 + (step - low) / (high - low) * (x1 - x0), min(max(y, y0 - 2), y1 + 2)

        for tick in ticks(bottom, ceiling, 4):
            y = at(low, tick)[1]
            self.line([(x0, y), (x1, y)], _RULE if abs(tick) > 1e-12 else (196, 200, 205), 1)
            self.text(x0 - 8, y, number_text(tick), 11, _FAINT_INK, "rm")
        for tick in ticks(low, high, 8):
            x = at(tick, bottom)[0]
            self.line([(x, y0), (x, y1)], _RULE, 1)
            if last:
                self.text(x, y1 + 13, number_text(tick), 11, _FAINT_INK, "mm")
        if last:
            self.text((x0 + x1) / 2, y1 + 31, "generator step", 12, _FAINT_INK, "mm")
        hues = {key: _HUES[i % len(_HUES)] for i, key in enumerate(sorted(series, key=rank))}
        for key, (steps, values) in series.items():
            if window[key] > 1:
                hue = tuple(round(c + (255 - c) * 0.72) for c in hues[key])
                for run in _runs(steps, values):
                    self.line([at(*p) for p in run], hue, 0.75)  # type: ignore[arg-type]
            for step in steps[~np.isfinite(values)]:
                x = at(step, bottom)[0]
                self.line([(x, y1 - 9), (x, y1)], (200, 30, 30), 3)
        for key, (steps, _) in series.items():
            for run in _runs(steps, smoothed[key]):
                if len(run) == 1:
                    x, y = at(*run[0])
                    self.pen.ellipse(
                        [(x - 2) * self.S, (y - 2) * self.S, (x + 2) * self.S, (y + 2) * self.S],
                        fill=hues[key],
                    )
                self.line([at(*p) for p in run], hues[key], 1.8)
        self.line([(x0, y0), (x0, y1), (x1, y1)], (150, 155, 162), 1)
        self.text(x0, top + 11, name, 14)
        self.legend(
            x1,
            top + 11,
            {key: (hues[key], _last(series[key][1])) for key in sorted(series, key=rank)},
        )

    def legend(
        self, right: float, y: float, entries: dict[str, tuple[tuple[int, int, int], float | None]]
    ) -> None:
        font = _font(12 * self.S)
        x = right
        for key, (hue, value) in reversed(entries.items()):
            label = key if value is None else f"{key}  {_reading(value)}"
            x -= font.getlength(label) / self.S
            if x < self.left + 150:
                break
            self.text(x, y, label, 12)
            self.line([(x - 22, y), (x - 6, y)], hue, 3)
            x -= 38


def rank(key: str) -> tuple[int, str]:
    """D before G and real before fake, so that a colour means the same side in each panel."""
    last = key.rsplit("/", 1)[-1].lower()
    first = (
        0
        if last == "d" or last.endswith("real")
        else 1
        if last == "g" or last.endswith("fake")
        else 2
    )
    return first, key


def _last(values: np.ndarray) -> float | None:
    good = values[np.isfinite(values)]
    return float(good[-1]) if good.size else None


def _runs(steps: np.ndarray, values: np.ndarray) -> list[list[tuple[float, float]]]:
    """Stretches of consecutive finite points."""
    runs: list[list[tuple[float, float]]] = [[]]
    for step, value in zip(steps, values):
        if math.isfinite(value):
            runs[-1].append((step, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def value_range(
    name: str, raw: list[np.ndarray], smoothed: list[np.ndarray]
) -> tuple[float, float]:
    """Vertical range: the smoothed curves and the middle 98 % of the raw ones, so that one spike
    does not flatten the rest."""
    finite = [v[np.isfinite(v)] for v in raw]
    if name == "accuracy of D":
        return (0.38 if all((v >= 0.4).all() for v in finite) else -0.02), 1.02
    ends = [e for v in finite if v.size for e in np.percentile(v, [1, 99])]
    ends += [e for v in smoothed if np.isfinite(v).any() for e in (np.nanmin(v), np.nanmax(v))]
    if not ends:
        return 0.0, 1.0
    low, high = min(ends), max(ends)
    if name == "diversity of samples":
        return 0.0, max(1.05, 1.07 * high)
    if low >= 0 and low < 0.5 * high:
        low = 0.0
    span = high - low or abs(high) * 0.1 or 1.0
    return low - (0.05 * span if low else 0.0), high + 0.07 * span
