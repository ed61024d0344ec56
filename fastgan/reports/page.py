"""report.html: a run as one file that needs neither the network nor fastgan, and opens from disk.

Whatever comes from a file is escaped, and the page forbids every script but its own by its hash:
run folders come from strangers, too.
"""

from __future__ import annotations

import base64
import datetime
import io
import math
import shlex
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from fastgan import files
from fastgan.monitor.pictures.charts import is_number
from fastgan.reports import plots
from fastgan.reports.document import asset, document, json_text
from fastgan.reports.reading import Story, evenly, number, parameters, read_grid, read_story
from fastgan.runs.layout import REPORT

PICTURES = 24
"""Sample grids of one page."""

BYTES = 3_300_000
"""Bytes of all pictures of one page, before base64: the page stays under 5 MB."""


def write(run: str | Path, out: Path | None = None) -> Path:
    """Write a run's page, report.html in its folder unless `out` says otherwise; returns where.

    Raises FastganError where it is no run, or the file can't be written.
    """
    story = read_story(run)
    path = story.path / REPORT if out is None else out
    files.replace(path, build(story).encode(errors="backslashreplace"))
    return path


def build(story: Story) -> str:
    """The whole page. Raises FastganError where the package's own assets are missing."""
    curves, data = plots.panels(story)
    sections = [
        _section("pictures", "Samples beside real ones", _pictures(story)),
        _section("curves", "Curves", _events(story, curves)),
        _section("metrics", "Measured", _evaluation(story.evaluation)),
        _section("go-on", "How to continue", _commands(story)),
        _section("options", "Options", _options(story)),
    ]
    body = f"""<header>
<h1>{escape(story.name)}</h1>
<p>{escape(_headline(story))}</p>
{_facts(story)}
</header>
<main>
{"".join(sections)}
</main>
<script type="application/json" id="data">{json_text(data)}</script>"""
    return document(
        f"{story.name}: fastgan report",
        body,
        style=asset("fastgan.reports", "report.css"),
        script=asset("fastgan.reports", "report.js"),
        allows="img-src data:",
    )


def _section(name: str, title: str, body: str) -> str:
    return f'<section id="{name}"><h2>{title}</h2>\n{body}\n</section>\n' if body else ""


def _headline(story: Story) -> str:
    recipe = str(story.config.get("recipe", "a GAN"))
    data = str(story.config.get("data", "unnamed data"))
    return f"{recipe} on {data}, {story.step:,} steps"


def _facts(story: Story) -> str:
    config, facts = story.config, story.facts
    shown: dict[str, Any] = {"data": config.get("data")}
    if "size" in config or "channels" in config:
        shown["images"] = " ".join(
            f"{config[key]} {word}"
            for key, word in (("size", "pixels,"), ("channels", "channel(s)"))
            if key in config
        ).rstrip(",")
    if classes := facts.get("classes"):
        some = ", ".join(classes[:12]) + (" ..." if len(classes) > 12 else "")
        shown["classes"] = f"{len(classes)}: {some}"
    shown["networks"] = ", ".join(
        f"{name} {count:,} parameters" for name, count in parameters(facts).items()
    )
    if (seen := story.last("images")) is not None:
        shown["images seen"] = f"{seen:,.0f}"
    if (seconds := story.seconds()) is not None:
        shown["trained for"] = duration(seconds)
    if (speed := story.last("images_per_s")) is not None:
        shown["images per second"] = f"{speed:,.0f}"
    times = [t for _, t in story.curve("time") if 0 < t < 2**35]
    if times:
        when = datetime.datetime.fromtimestamp(times[-1], datetime.UTC)
        shown["last trained"] = f"{when:%Y-%m-%d %H:%M} UTC"
    shown["precision"], shown["seed"] = config.get("precision"), facts["seed"]
    versions = {"fastgan": facts.get("fastgan")}
    if isinstance(more := facts.get("versions"), dict):
        versions |= more
    shown["versions"] = ", ".join(f"{name} {value}" for name, value in versions.items())
    changes = [f"step {c.get('step')}: {c.get('what')}" for c in facts.get("changes", [])]
    shown["changed"] = "; ".join(changes)
    shown["gone back"] = gone_back(facts)
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in shown.items()
        if value not in (None, "")
    )
    return f'<dl class="facts">{rows}</dl>'


def gone_back(facts: dict[str, Any]) -> str:
    """Which older checkpoints a run went on from, and of what it was rescued."""
    cuts = [f"from step {c.get('from')} to {c.get('to')}" for c in facts.get("cuts", [])]
    if rescue := facts.get("rescue"):
        seen = f"{rescue.get('cause')} at step {rescue.get('step')}"
        cuts.append(f"rescued from {seen}: back to step {rescue.get('to')}")
    return "; ".join(cuts)


def duration(seconds: float) -> str:
    """Such as "3 h 12 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"


def _pictures(story: Story) -> str:
    chosen = evenly([*story.grids], PICTURES)
    room = BYTES // (len(chosen) + 1)
    shown = [(step, uri) for step in chosen if (uri := picture_uri(story.grids[step], room))]
    real = picture_uri(story.path / "reals.png", room)
    if not shown and real is None:
        return "<p>No pictures yet.</p>"
    parts = []
    if real is not None:
        parts.append(
            f'<figure><img src="{real}" alt="real images"><figcaption>real</figcaption></figure>'
        )
    if shown:
        images = "".join(
            f'<img src="{uri}" data-step="{step}" alt="samples at step {step}"'
            f"{'' if i == len(shown) - 1 else ' hidden'}>"
            for i, (step, uri) in enumerate(shown)
        )
        last = len(shown) - 1
        parts.append(
            f'<figure id="grids">{images}<figcaption>made at step '
            f"<output>{shown[-1][0]:,}</output></figcaption>"
            f'<div class="player"><button type="button" id="play" aria-label="play">play</button>'
            f'<input type="range" id="grid" min="0" max="{last}" value="{last}" '
            f'aria-label="step of the samples"></div></figure>'
        )
    left_out = len(story.grids) - len(shown)
    note = f"<p class=faint>{left_out} of {len(story.grids)} grids are left out.</p>"
    return f'<div class="beside">{"".join(parts)}</div>' + (note if left_out else "")


def picture_uri(path: Path, room: int) -> str | None:
    """A picture as a data: address of at most `room` bytes before base64; None where it is no
    picture of ours."""
    if (found := read_grid(path)) is None:
        return None
    data, kind = found[0], "png"
    if len(data) > room:
        data, kind = _smaller(found[1], room), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _smaller(picture: Image.Image, room: int) -> bytes:
    while True:
        for quality in (80, 50):
            buffer = io.BytesIO()
            picture.save(buffer, "WEBP", quality=quality)
            if buffer.tell() <= room or max(picture.size) < 64:
                return buffer.getvalue()
        picture = picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)))


def _events(story: Story, curves: str) -> str:
    if not story.alerts:
        return f"{curves}<p class=faint>The watch saw nothing to warn of.</p>"
    rows = "".join(
        f'<tr id="event-{i}"><td>{i}</td><td>{alert["step"]:,}</td>'
        + "".join(
            f"<td>{escape(str(alert.get(k, '')))}</td>" for k in ("cause", "evidence", "remedy")
        )
        + "</tr>"
        for i, alert in enumerate(story.alerts, 1)
    )
    head = "<tr><th><th>step<th>what<th>what shows it<th>what to try</tr>"
    return (
        f'{curves}<h3>What the watch said</h3><div class="wide"><table>'
        f"<thead>{head}</thead><tbody>{rows}</tbody></table></div>"
    )


def _evaluation(found: dict[str, Any]) -> str:
    """A table of whatever numbers `fastgan evaluate` left."""
    if not found:
        return ""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in flat(found)
    )
    return f'<div class="wide"><table class="plain"><tbody>{rows}</tbody></table></div>'


def flat(found: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """(name, value as text) of the numbers and short texts in an evaluation."""
    for key, value in found.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict) and not prefix:
            yield from flat(value, f"{key}: ")
        elif is_number(value):
            size = number(value)
            exact = isinstance(value, int) or not math.isfinite(size)
            yield name, f"{value:,}" if exact and abs(size) < 1e15 else f"{size:.4g}"
        elif isinstance(value, str) and value:
            yield name, value


def _commands(story: Story) -> str:
    run = shlex.quote(str(story.path))
    lines = []
    if story.config.get("recipe") == "python":
        lines.append(("go on", "in Python: Trainer(..., out=..., resume=True).fit(steps=...)"))
    else:
        more = max(2 * story.step, 1000)
        lines.append(("go on", f"fastgan train --resume {run} --steps {more}"))
        lines.append(
            ("the same again", f"fastgan train --config {run}/config.toml --out {run}-again")
        )
    lines += [
        ("more samples", f"fastgan sample {run} --n 64 --seed 1 --out grid.png"),
        ("measure", f"fastgan evaluate {run}"),
        ("use in Python", f"G = fastgan.load({str(story.path)!r})"),
    ]
    return "".join(
        f"<p>{escape(what)}</p><pre><code>{escape(line)}</code></pre>" for what, line in lines
    )


def _options(story: Story) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>"
        for name, value in story.config.items()
    )
    table = f'<div class="wide"><table class="plain"><tbody>{rows}</tbody></table></div>'
    return f"<details><summary>{len(story.config)} options</summary>{table}</details>"
