"""What stands on the screen before the first step: where the run is, what comes when, how to stop.
Imports no torch."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence

from fastgan.errors import printable
from fastgan.monitor.progress import whole

DENSE = (50, 100, 200)
"""Steps after which there are pictures however rare the others are: people want to see that it
begins."""

WIDTH, INDENT = 80, 11

HEALTHY = {
    "non-saturating": "from step 300 loss D 0.1-1.2 (0: D won, 1.4: D is blind), loss G 1-4",
    "minimax": "from step 300 loss D 0.1-1.2 (0: D won, 1.4: D is blind), loss G < 0",
    "hinge": "from step 300 loss D 0.1-1.8 (0: D won, 2: D is blind), loss G 0-2",
    "least-squares": "from step 300 loss D 0.05-0.2 (0: D won, 0.25: D is blind)",
    "relativistic": "from step 300 loss D 0.1-0.6 (0: D won, 0.7: D is blind)",
    "wasserstein": "loss D below 0, slowly on its way there; loss G alone says little",
}
"""What the losses of `Adversarial` look like while all is well, roughly; docs/watching.md says from
which runs. No run of minimax is among them: its D's loss is non-saturating's, its G's is no number
above 0."""

ANY = "loss D neither at 0 (D won) nor where it began (D is blind)"


def picture_due(step: int, every: int) -> bool:
    """Whether samples are drawn after `step` steps."""
    return step % every == 0 or (step in DENSE and step < every)


def again(run: str, seconds: float | None = None) -> str:
    """The command that goes on with a run; for as long as it was asked to train, if it was."""
    limit = f" --for {_typed(seconds)}" if seconds is not None else ""
    return f"fastgan train --resume {shlex.quote(run)}{limit}"


def screen(
    run: str,
    *,
    step: int,
    steps: int | None,
    seconds: float | None,
    sample_every: int,
    loss: str | None,
    drawable: bool = True,
    now: float | None = None,
) -> list[str]:
    """Lines about a run that begins or goes on at `step`, of at most 80 columns where paths allow.

    steps: where it ends, None: nowhere. loss: of an `Adversarial` objective, None for others.
    drawable: whether there are pictures. now: seconds since 1970.
    """
    where = shlex.quote(run)
    pictures = _pictures(step, sample_every)
    rows = [
        ("run", [f"{where}, live in a browser:", f"fastgan ui {where}"]),
        (
            "pictures",
            [f"{where}/samples,", pictures]
            if drawable
            else ["none: these images are neither grey, RGB nor RGBA"],
        ),
        ("time", [_time(steps, seconds, time.time() if now is None else now)]),
        ("healthy", [HEALTHY.get(loss or "", ANY)]),
        ("Ctrl-C", ["saves and stops; to go on:", again(run, seconds)]),
    ]
    return [printable(line) for name, parts in rows for line in _lines(name, parts)]


def _pictures(step: int, every: int) -> str:
    early = [str(n) for n in DENSE if step < n < every]
    if not early:
        return f"every {every:,} steps"
    return f"at step{'s' * (len(early) > 1)} {', '.join(early)}, then every {every:,}"


def _time(steps: int | None, seconds: float | None, now: float) -> str:
    length = f"{steps:,} steps" if steps is not None else "until Ctrl-C"
    if seconds is None:
        return f"{length}; the time left is shown below"
    end = time.strftime("%H:%M" if seconds < 72000 else "%a %H:%M", time.localtime(now + seconds))
    limit = f"{whole(seconds)}, until {end}"
    return f"{limit}, or {length} where those are done before" if steps is not None else limit


def _lines(name: str, parts: Sequence[str]) -> list[str]:
    """One line, or one for each part where they are too long: a command is never broken."""
    line = f"  {name:<{INDENT - 2}}{' '.join(parts)}"
    if len(line) <= WIDTH:
        return [line]
    first, *rest = parts
    return [f"  {name:<{INDENT - 2}}{first}", *(" " * INDENT + part for part in rest)]


def _typed(seconds: float) -> str:
    """A duration as `--for` takes it: `90s`, `30m`, `2h`."""
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"
