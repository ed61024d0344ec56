"""`fastgan interpolate`."""

from __future__ import annotations

import click

from fastgan import arguments
from fastgan.cli.completion import PATH
from fastgan.cli.options import step_option
from fastgan.errors import FastganError
from fastgan.files import path_of

SHOWN = 10
"""Classes that walk side by side."""


@click.command(epilog="Example: fastgan interpolate runs/mine --keys 8 --frames 30 --out walk.gif")
@click.argument("run", type=PATH)
@click.option("--keys", type=int, help="images that the walk visits  [default: 8]")
@click.option("--seeds", help="visit the first image of each of these seeds, such as 1,5-9")
@click.option(
    "--frames", type=int, default=30, show_default=True, help="frames from one key to the next"
)
@click.option("--fps", type=float, default=30.0, show_default=True, help="frames a second")
@click.option(
    "--out", default="walk.gif", show_default=True, help=".gif, .webp, or .mp4 where ffmpeg is"
)
@click.option("--seed", type=int, default=0, show_default=True, help="of the keys")
@click.option(
    "--label", "labels", multiple=True, help="a class, by name or number; several side by side"
)
@click.option("--truncation", type=float, metavar="NUMBER", help="as for `fastgan sample`")
@step_option
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--trust", is_flag=True, help="run the code that RUN names, if you know where it comes from"
)
def command(
    run: str,
    keys: int | None,
    seeds: str | None,
    frames: int,
    fps: float,
    out: str,
    seed: int,
    labels: tuple[str, ...],
    truncation: float | None,
    step: int | str | None,
    device: str,
    trust: bool,
) -> None:
    """Walk through RUN's latents from image to image and back to the first, as an animation."""
    from fastgan.cli.sample import seeds_of
    from fastgan.latent.walk import closed_walk
    from fastgan.monitor import pictures
    from fastgan.monitor.pictures import animation, formats
    from fastgan.runs.run_folder import refuse_own
    from fastgan.trainer import sampling
    from fastgan.trainer.reuse.restoring import class_numbers, open_run

    path = path_of(out, "--out")
    refuse_own(path)
    animation.check_moving(path)
    arguments.number(fps, "--fps", 1, 100)
    if seeds is not None and keys is not None:
        raise FastganError("--seeds says which keys: leave --keys out")
    arguments.whole(seed, "--seed", 0, 2**32 - 1)
    opened = open_run(run, step=step, device=device, trust=trust)
    opened.objective.medium.only_images("fastgan interpolate")
    chosen = None if seeds is None else seeds_of(seeds)
    count = len(chosen) if chosen is not None else 8 if keys is None else keys
    drawn = opened.noise(count, seed, chosen)
    if truncation is not None:
        drawn = sampling.truncated(opened.objective.noise, drawn, truncation)
    noise = closed_walk(opened.objective.noise, drawn, frames)
    total, classes = count * frames, opened.classes
    if labels:
        shown = class_numbers(list(labels), len(labels), classes, run).tolist()
    else:
        shown = list(range(min(len(classes), SHOWN))) if classes else [None]
    made = [opened.images(total, noise=noise, labels=label) for label in shown]
    scale = max(1, round((84 if len(shown) > 1 else 252) / max(made[0].shape[2:])))
    columns = min(len(shown), 5)
    moving = []
    for i in range(total):
        cells = [images[i] for images in made]
        if classes and len(shown) > 1:
            captions = [classes[label] for label in shown if label is not None]
            moving.append(formats.labelled_grid(cells, captions, columns=columns, scale=scale))
        else:
            moving.append(pictures.grid(cells[0][None], padding=0, scale=scale))
    animation.save_moving(moving, path, fps=fps)
    click.echo(f"{total} frames through {count} keys, {total / fps:.1f} s: {path}")
