"""`fastgan invert`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from fastgan import arguments
from fastgan.cli.completion import PATH
from fastgan.cli.options import of_run, step_option, trained_on
from fastgan.errors import FastganError
from fastgan.files import path_of

if TYPE_CHECKING:
    from fastgan.judges.identity import Identity
    from fastgan.trainer.reuse.restoring import OpenRun

WIDEST = 8
"""Columns of a picture of few classes."""


@click.command(
    epilog="Example: fastgan invert runs/faces photo.png --identity --every-class --out ages.png"
)
@click.argument("run", type=PATH)
@click.argument("photo", type=PATH)
@click.option(
    "--out", default="inverted.png", show_default=True, help="a picture (.png, .jpg, .webp)"
)
@click.option(
    "--steps", type=click.IntRange(1, 100_000), default=300, show_default=True, help="of descent"
)
@click.option("--seed", type=int, default=0, show_default=True, help="of the first latents")
@click.option("--label", help="a class, by name or number  [default: the one that fits best]")
@click.option(
    "--identity",
    is_flag=True,
    help="then follow who is shown instead of pixels, as many steps, by a network that tells the "
    "persons of --data apart; fitted the first time, about a minute",
)
@click.option(
    "--data",
    type=PATH,
    help="for --identity, images of the same persons several times: an .npz file with an array "
    "identity, or a folder with a sub-folder for each  [default: what RUN was trained on]",
)
@click.option("--every-class", is_flag=True, help="also show the latent in each class of RUN")
@click.option("--save-latent", metavar="FILE", help="keep the latent, as .safetensors")
@step_option
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--trust", is_flag=True, help="run the code that RUN names, if you know where it comes from"
)
def command(
    run: str,
    photo: str,
    out: str,
    steps: int,
    seed: int,
    label: str | None,
    identity: bool,
    data: str | None,
    every_class: bool,
    save_latent: str | None,
    step: int | str | None,
    device: str,
    trust: bool,
) -> None:
    """Find the latent whose image is nearest to PHOTO, and show the two side by side.

    What RUN can't make, it can't find: the reconstruction says what it has learned of such photos.
    Where RUN makes faces by age group, `--identity --every-class` shows a face at every age.
    """
    from tqdm import tqdm

    from fastgan import files
    from fastgan.latent import inversion
    from fastgan.monitor.pictures import ending_of, formats
    from fastgan.runs.checkpoint import pack
    from fastgan.runs.run_folder import refuse_own
    from fastgan.trainer.reuse.restoring import class_numbers, open_run

    path = path_of(out, "--out")
    kept = path_of(save_latent, "--save-latent") if save_latent is not None else None
    for target in filter(None, (path, kept)):
        refuse_own(target)
    ending_of(path)
    if kept is not None:
        formats.ending(kept, (".safetensors",))
    arguments.whole(seed, "--seed", 0, 2**32 - 1)
    if data is not None and not identity:
        raise FastganError("--data is for --identity: leave it out, or add that")
    opened = open_run(run, step=step, device=device, trust=trust)
    opened.objective.medium.only_images("fastgan invert")
    number = None
    if label is not None:
        number = int(class_numbers(label, 1, opened.classes, run)[0])
    numbers = inversion.every_class(opened) if every_class else []
    shape = tuple(opened.images(1).shape[1:])
    image = formats.open_photo(path_of(photo, "PHOTO"), shape)
    judge = _identity(opened, run, data, shape) if identity else None
    with tqdm(total=steps * (1 + identity), disable=None, leave=False, unit="step") as bar:
        found = inversion.invert(
            opened,
            image,
            steps=steps,
            seed=seed,
            label=number,
            embed=judge,
            tell=lambda _: bar.update(),
        )
    cells, names, classes = [image, found.image], ["photo", "reconstruction"], opened.classes or []
    if numbers:
        cells += inversion.in_classes(opened, found.latents, numbers).unbind()
        names += [classes[k] for k in numbers]
    elif found.label is not None and classes:
        names[1] = classes[found.label]
    picture = formats.labelled_grid(cells, names, columns=columns_for(len(cells)))
    formats.save_still(picture, path)
    if kept is not None:
        formats.make_parent(kept)
        files.replace(kept, pack(found.latents))
    if judge is not None and found.apart is not None:
        click.echo(
            f"who is shown: squared distance {found.apart[0]:.4f} after following pixels, "
            f"{found.apart[1]:.4f} now; of {judge.held_out} persons it never saw, it finds "
            f"{judge.accuracy:.0%} again by another image"
        )
    if numbers and found.label is not None:
        click.echo(f"reconstructed as {classes[found.label]}")
    how = "features of D and a pyramid" if found.features else "a pyramid of sizes"
    click.echo(f"L1 {found.l1:.4f} of 1 after {steps} steps, by {how}: {path}")


def columns_for(cells: int) -> int:
    """One row of few cells, a square of many, rows as even as can be."""
    most = max(WIDEST, math.isqrt(cells - 1) + 1)
    return -(-cells // -(-cells // most))


def _identity(opened: OpenRun, run: str, data: str | None, shape: tuple[int, ...]) -> Identity:
    """The network that tells persons apart, on the run's device. Raises FastganError."""
    from fastgan import data as datasets
    from fastgan.judges.identity import fitted

    named = data or trained_on(path_of(run, "RUN"), of_run(run))
    channels, height, width = shape
    persons = datasets.open(named, size=(height, width), channels=channels)
    by_folder = data is not None and "identity" not in persons.fields
    judge = fitted(persons, field="label" if by_folder else "identity")
    judge.network.to(opened.device)
    return judge
