"""Figures from results: speed-up bars, roofline, batch scaling, operators against their floor.
matplotlib is an optional extra.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fastgan.errors import FastganError

OURS, OTHERS = "#c1440e", "#7a8ca0"
NAMES = {
    "a": "tutorial loop",
    "b": "tutorial loop, strict fp32",
    "c": "tuned eager loop",
    "d": "c + compiled modules",
    "e": "c + whole step compiled",
    "f": "c + CUDA graph",
    "f2": "d + CUDA graph",
    "g": "fastgan, no graph",
    "h": "fastgan, graph",
    "i": "fastgan",
}


def draw(result: Mapping[str, Any], folder: str | Path, only: Collection[str] = ()) -> list[Path]:
    """Writes speedup.png, roofline.png, kernels.png and, of a network at several batch sizes,
    batch.png, each where there is something to draw (and of `only` those named); returns what was
    written.

    Raises FastganError without matplotlib.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise FastganError("plots need matplotlib: pip install 'fastgan[plots]'") from error
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    suites = [
        s for s in result["suites"] if s["kind"] == "rows" and any("ms" in e for e in s["rows"])
    ]
    written = []
    figures = (
        ("speedup", _speedup, suites),
        ("roofline", _roofline, suites),
        ("batch", _batch, suites),
    )
    for name, figure, shown in (*figures, ("kernels", _kernels, result.get("kernels", []))):
        made = figure(pyplot, shown) if not only or name in only else None
        if made is None:
            continue
        about = result["machine"]
        made.text(
            0.01,
            -0.03,
            f"{about['device']}, torch {about['torch']}, commit {about['commit']}",
            fontsize=6,
            color="grey",
        )
        path = folder / f"{name}.png"
        made.savefig(path, dpi=150, bbox_inches="tight")
        pyplot.close(made)
        written.append(path)
    return written


def _speedup(pyplot: Any, suites: list[Mapping[str, Any]]) -> Any:
    """Time of PyTorch's best over each row's: bars above 1 are faster; whiskers p20 and p80."""
    shown = [(s, [e for e in s["rows"] if "speedup" in e]) for s in suites]
    shown = [(s, rows) for s, rows in shown if rows]
    if not shown:
        return None
    figure, axes = pyplot.subplots(
        len(shown),
        1,
        figsize=(7, 0.6 + sum(0.35 + 0.24 * len(r) for _, r in shown)),
        squeeze=False,
        gridspec_kw={"height_ratios": [1 + len(r) for _, r in shown], "hspace": 0.6},
    )
    for axis, (suite, rows) in zip(axes[:, 0], shown):
        for y, entry in enumerate(reversed(rows)):
            low, mid, high = entry["speedup"]
            axis.barh(y, mid, color=OURS if entry["ours"] else OTHERS, height=0.7)
            axis.plot([low, high], [y, y], color="black", linewidth=0.8)
            axis.text(max(mid, high) + 0.02, y, f"{mid:.2f}", va="center", fontsize=7)
        axis.set_yticks(range(len(rows)), [_label(e["row"]) for e in reversed(rows)], fontsize=7)
        axis.set_xlim(0, 1.15 * max(e["speedup"][2] for e in rows))
        axis.axvline(1, color="black", linewidth=0.8, linestyle=":")
        axis.set_title(
            f"{suite['what']} [{suite['device']}, {suite['compute']}]", fontsize=8, loc="left"
        )
        axis.tick_params(axis="x", labelsize=7)
    axes[-1, 0].set_xlabel("speed-up against the best of a to f2", fontsize=8)
    return figure


def _label(row: str) -> str:
    """ "e:max-autotune" -> "c + whole step compiled, max-autotune (e)"."""
    letter, _, mode = row.partition(":")
    return f"{NAMES[letter]}{', ' * bool(mode)}{mode} ({letter})" if letter in NAMES else row


def _roofline(pyplot: Any, suites: list[Mapping[str, Any]]) -> Any:
    """Achieved against attainable work, over intensity; the ceilings are those measured in the
    run."""
    shown = [s for s in suites if "floor_ms" in s.get("work", {})]
    if not shown:
        return None
    figure, axis = pyplot.subplots(figsize=(6, 4))
    peak, bandwidth = shown[0]["work"]["matmul_tflops"], shown[0]["work"]["copy_gbs"] / 1e3
    knee = peak / bandwidth
    edges = [s["work"]["gflop"] / s["work"]["gbytes"] for s in shown] + [knee]
    xs = [min(edges) / 3, knee, max(edges) * 3]
    axis.loglog(xs, [min(peak, bandwidth * x) for x in xs], color="black", linewidth=1)
    for suite in shown:
        x = suite["work"]["gflop"] / suite["work"]["gbytes"]
        for entry in (e for e in suite["rows"] if "ms" in e):
            axis.loglog(
                x,
                suite["work"]["gflop"] / entry["ms"][1],
                "o",
                color=OURS if entry["ours"] else OTHERS,
                markersize=4,
            )
        axis.text(
            x,
            0.02,
            suite["suite"],
            rotation=90,
            fontsize=6,
            ha="right",
            transform=axis.get_xaxis_transform(),
        )
    axis.set_xlabel("FLOP per byte of an ideal fused step")
    axis.set_ylabel("TFLOP/s")
    return figure


def _batch(pyplot: Any, suites: list[Mapping[str, Any]]) -> Any:
    """images/s over batch size, a line each row."""
    families: dict[str, list[Mapping[str, Any]]] = {}
    for suite in suites:
        families.setdefault(re.sub(r"-b\d+$", "", suite["suite"]), []).append(suite)
    shown = {name: members for name, members in families.items() if len(members) > 1}
    if not shown:
        return None
    figure, axes = pyplot.subplots(1, len(shown), figsize=(5 * len(shown), 4), squeeze=False)
    for axis, (name, members) in zip(axes[0], shown.items()):
        lines: dict[str, list[tuple[int, float, bool]]] = {}
        for suite in members:
            for entry in (e for e in suite["rows"] if "ms" in e):
                lines.setdefault(entry["row"], []).append(
                    (suite["batch"], entry["images_per_s"], entry["ours"])
                )
        for row, points in lines.items():
            points.sort()
            style = {"color": OURS} if points[0][2] else {}
            axis.loglog(
                [p[0] for p in points],
                [p[1] for p in points],
                "o-",
                markersize=3,
                linewidth=1,
                label=row,
                **style,
            )
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("batch")
        axis.set_ylabel("images/s")
        axis.legend(fontsize=6)
    return figure


def _kernels(pyplot: Any, entries: list[Mapping[str, Any]]) -> Any:
    """Share of its floor that each operator reaches, by provider: at 1 it takes the least time on
    the measured ceilings."""
    shown = [e for e in entries if any("roofline" in r for r in e["rows"])]
    if not shown:
        return None
    figure, axis = pyplot.subplots(figsize=(7, 0.8 + 0.16 * len(shown)))
    marks = {
        "eager": ("o", OTHERS),
        "compile": ("s", OTHERS),
        "reference": ("x", OURS),
        "cudnn": ("+", OURS),
        "triton": ("^", OURS),
    }
    for y, entry in enumerate(reversed(shown)):
        for row in (r for r in entry["rows"] if "roofline" in r):
            mark, colour = marks[row["provider"]]
            axis.semilogx(row["roofline"], y, mark, color=colour, markersize=4)
    names = [
        f"{e['op']}, {e['case']}{'' if e['direction'] == 'forward' else ', fwd+bwd'}"
        for e in reversed(shown)
    ]
    axis.set_yticks(range(len(shown)), names, fontsize=5)
    axis.set_ylim(-1, len(shown))
    axis.axvline(1, color="black", linewidth=0.8, linestyle=":")
    for provider, (mark, colour) in marks.items():
        axis.plot([], [], mark, color=colour, markersize=4, label=provider)
    axis.legend(fontsize=6, loc="best")
    axis.set_xlabel(f"least time over measured time [{shown[0]['device']}]", fontsize=8)
    axis.tick_params(axis="x", labelsize=7)
    return figure
