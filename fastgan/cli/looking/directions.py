"""`fastgan directions`."""

from __future__ import annotations

import click

from fastgan import arguments
from fastgan.cli.completion import PATH
from fastgan.cli.options import step_option
from fastgan.errors import FastganError
from fastgan.files import path_of

COLUMNS, FIRST = 7, 6


@click.command(
    epilog="Example: fastgan directions runs/mine --which 1,3-5 --reach 4 --out directions.png"
)
@click.argument("run", type=PATH)
@click.option(
    "--which", help="which directions, such as 1,3-5; 1 is the strongest  [default: the first 6]"
)
@click.option(
    "--reach", type=float, default=3.0, show_default=True, help="how far to go to both sides"
)
@click.option(
    "--out", default="directions.png", show_default=True, help="a picture (.png, .jpg, .webp)"
)
@click.option("--seed", type=int, default=0, show_default=True, help="of the image in the middle")
@click.option("--label", help="a class, by name or number")
@step_option
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--trust", is_flag=True, help="run the code that RUN names, if you know where it comes from"
)
def command(
    run: str,
    which: str | None,
    reach: float,
    out: str,
    seed: int,
    label: str | None,
    step: int | str | None,
    device: str,
    trust: bool,
) -> None:
    """Show the directions in RUN's latent space in which its images change most, in closed form
    (SeFa: Shen & Zhou 2021): a row for each, the same image in the middle of all."""
    import torch

    from fastgan.cli.sample import seeds_of
    from fastgan.latent.directions import directions
    from fastgan.monitor.pictures import ending_of, formats
    from fastgan.runs.run_folder import refuse_own
    from fastgan.trainer.reuse.restoring import open_run

    path = path_of(out, "--out")
    refuse_own(path)
    ending_of(path)
    if not 0 < reach <= 100:
        raise FastganError(f"--reach must lie between 0 and 100, not {reach:g}")
    arguments.whole(seed, "--seed", 0, 2**32 - 1)
    opened = open_run(run, step=step, device=device, trust=trust)
    opened.objective.medium.only_images("fastgan directions")
    numbers = seeds_of(which, "--which") if which is not None else [*range(1, FIRST + 1)]
    found = directions(opened, max(numbers), seed)
    known = len(found.vectors)
    if which is None:
        numbers = numbers[:known]
    for number in numbers:
        if not 1 <= number <= known:
            raise FastganError(f"no direction {number}: there are 1 to {known}")
    chosen = torch.tensor(numbers) - 1
    ways = torch.linspace(-reach, reach, COLUMNS)
    vectors = found.vectors[chosen]
    moved = vectors[:, None] * ways.view(1, -1, *[1] * (vectors.dim() - 1))
    total = len(numbers) * COLUMNS
    noise = {
        name: value.expand(total, *value.shape[1:]) for name, value in opened.noise(1, seed).items()
    }
    noise[found.noise] = noise[found.noise] + moved.flatten(0, 1)
    wanted = label if label is not None else 0 if opened.classes else None
    images = opened.images(total, noise=noise, labels=wanted)
    captions = [f"{way:+.1f}" if way else "0" for way in ways.tolist()]
    captions = [f"{n}: {text}" for n in numbers for text in captions]
    formats.save_still(formats.labelled_grid(images, captions, columns=COLUMNS), path)
    for number in numbers:
        click.echo(
            f"direction {number}: {100 * float(found.strengths[number - 1]):.1f} % of change"
        )
    click.echo(f"read from layer {found.layer!r}; picture: {path}")
