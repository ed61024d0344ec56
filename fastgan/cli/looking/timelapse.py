"""`fastgan timelapse`."""

from __future__ import annotations

import click

from fastgan import arguments
from fastgan.cli.completion import PATH
from fastgan.errors import FastganError
from fastgan.files import path_of

MOST = 600
"""Frames of one film; longer runs leave some grids out."""


@click.command(epilog="Example: fastgan timelapse runs/mine --out training.webp")
@click.argument("run", type=PATH)
@click.option(
    "--out", default="timelapse.gif", show_default=True, help=".gif, .webp, or .mp4 where ffmpeg is"
)
@click.option("--fps", type=float, default=5.0, show_default=True, help="grids a second")
def command(run: str, out: str, fps: float) -> None:
    """Show how RUN learned: its sample grids one after the other, with their steps."""
    from fastgan.monitor.pictures import animation
    from fastgan.reports.reading import evenly, read_story, timelapse
    from fastgan.runs.run_folder import refuse_own

    path = path_of(out, "--out")
    refuse_own(path)
    animation.check_moving(path)
    arguments.number(fps, "--fps", 1, 100)
    story = read_story(run)
    frames = timelapse({step: story.grids[step] for step in evenly([*story.grids], MOST)})
    if len(frames) < 2:
        raise FastganError(
            f"{run} has {len(frames)} sample grid{'' if len(frames) == 1 else 's'}: a time lapse "
            "needs two; train on, or make more with --sample-every"
        )
    animation.save_moving(frames, path, fps=fps, hold=2.0)
    click.echo(f"{len(frames)} grids up to step {max(story.grids)}: {path}")
