"""Training curves as inline SVG: lines are drawn in it, words stand beside it in HTML, so that they
stay readable at any width."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import numpy as np

from fastgan.monitor.pictures.charts import (
    PANELS,
    number_text,
    panel_of,
    rank,
    smooth,
    ticks,
    value_range,
)
from fastgan.reports.reading import Story

POINTS = 400
"""Points of one curve; more rows than that are averaged."""

WIDE, HIGH = 1000, 300
"""The SVG's own units; the page stretches them."""


def thinned(points: list[tuple[int, float]], count: int = POINTS) -> list[tuple[float, float]]:
    """At most `count` points: means over equal runs of them, NaN where all of a run is."""
    if len(points) <= count:
        return [(float(step), value) for step, value in points]
    made = []
    for part in np.array_split(np.array(points, float), count):
        good = part[np.isfinite(part[:, 1])]
        made.append((float(part[:, 0].mean()), float(good[:, 1].mean()) if len(good) else math.nan))
    return made


def panels(story: Story) -> tuple[str, dict[str, Any]]:
    """HTML of all curves, and what the page's script reads: {"low", "high", "series": {key:
    [[step, value], ...]}}."""
    by_panel: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for key in story.metrics():
        if (name := panel_of(key)) is not None and (points := thinned(story.curve(key))):
            by_panel.setdefault(name, {})[key] = points
    steps = [
        step for series in by_panel.values() for points in series.values() for step, _ in points
    ]
    if not steps:
        return "<p>No metrics yet.</p>", {"low": 0, "high": 1, "series": {}}
    low, high = min(steps), max(steps)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    made = [
        _panel(name, by_panel[name], low, high, story.alerts) for name in PANELS if name in by_panel
    ]
    series = {
        key: [[round(step, 1), _brief(value)] for step, value in points]
        for name in by_panel
        for key, points in by_panel[name].items()
    }
    return "\n".join(made), {"low": low, "high": high, "series": series}


def _brief(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _panel(
    name: str,
    series: dict[str, list[tuple[float, float]]],
    low: float,
    high: float,
    alerts: list[dict[str, Any]],
) -> str:
    values = {key: np.array([v for _, v in points], float) for key, points in series.items()}
    smoothed = {key: smooth(v, max(1, len(v) // 50)) for key, v in values.items()}
    bottom, ceiling = value_range(name, [*values.values()], [*smoothed.values()])

    def x(step: float) -> float:
        return (step - low) / (high - low)

    def y(value: float) -> float:
        return min(max(1 - (value - bottom) / (ceiling - bottom), 0.0), 1.0)

    lines, words = [], []
    for tick in ticks(bottom, ceiling, 4):
        lines.append(f'<path class="rule" d="M0 {HIGH * y(tick):.1f}H{WIDE}"/>')
        words.append(f'<span class="y" style="top:{100 * y(tick):.2f}%">{number_text(tick)}</span>')
    for tick in ticks(low, high, 6):
        words.append(
            f'<span class="x" style="left:{100 * x(tick):.2f}%">{number_text(tick)}</span>'
        )
    legend = []
    for i, key in enumerate(sorted(series, key=rank)):
        steps = [step for step, _ in series[key]]
        for kind, drawn in (("raw", values[key]), ("line", smoothed[key])):
            if kind == "line" or len(drawn) >= 100:
                path = _path([(WIDE * x(s), HIGH * y(v)) for s, v in zip(steps, drawn)])
                lines.append(f'<path class="{kind} h{i % 8}" d="{path}"/>')
        legend.append(
            f'<span class="key h{i % 8}"><i></i>{escape(key)} '
            f'<output data-key="{escape(key)}"></output></span>'
        )
    for number, alert in enumerate(alerts, 1):
        if low <= alert["step"] <= high:
            at, said = x(alert["step"]), f"step {alert['step']}: {alert.get('cause', 'alert')}"
            lines.append(f'<path class="event" d="M{WIDE * at:.1f} 0V{HIGH}"/>')
            words.append(
                f'<a class="event" style="left:{100 * at:.2f}%" href="#event-{number}" '
                f'title="{escape(said)}">{number}</a>'
            )
    return (
        f'<figure class="panel"><figcaption><b>{escape(name)}</b>{"".join(legend)}</figcaption>'
        f'<div class="plot" tabindex="0" role="slider" aria-valuemin="{low:g}" '
        f'aria-valuemax="{high:g}" aria-valuenow="{high:g}" aria-label="{escape(name)}: step">'
        f'<svg viewBox="0 0 {WIDE} {HIGH}" preserveAspectRatio="none" aria-hidden="true">'
        f'{"".join(lines)}</svg>{"".join(words)}<i class="cursor"></i></div></figure>'
    )


def _path(points: list[tuple[float, float]]) -> str:
    """SVG path data; a point that is not finite interrupts the line."""
    made, pen = [], "M"
    for px, py in points:
        if not math.isfinite(py):
            pen = "M"
            continue
        made.append(f"{pen}{px:.1f} {py:.1f}")
        pen = "L"
    return "".join(made)
