"""`fastgan sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastgan.errors import FastganError

MOST = 10_000
"""Seeds of one command."""


@click.command(
    epilog="Example: fastgan sample runs/mine --seeds 1,5-9 --truncation 0.7 --label sneaker "
    "--label 3 --out grid.png"
)
@click.argument("run")
@click.option("--n", "count", type=int, help="how many images  [default: 64]")
@click.option(
    "--out",
    default="samples.png",
    show_default=True,
    help="a picture of them all (.png, .jpg, .webp), or a folder (ends in /) for one file each",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="other seeds give other images"
)
@click.option("--seeds", help="the first image of each of these seeds, such as 1,5-9")
@click.option(
    "--label",
    "labels",
    multiple=True,
    help="only this class, by name or number; several take turns",
)
@click.option(
    "--truncation",
    type=float,
    metavar="NUMBER",
    help="cut latents at so many standard deviations, such as 0.7: better images, more alike",
)
@click.option("--step", type=int, help="another kept checkpoint than the newest")
@click.option("--data", help="what a generator of images from images is given")
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--trust", is_flag=True, help="run the code that RUN names, if you know where it comes from"
)
def command(
    run: str,
    count: int | None,
    out: str,
    seed: int,
    seeds: str | None,
    labels: tuple[str, ...],
    truncation: float | None,
    step: int | None,
    data: str | None,
    device: str,
    trust: bool,
) -> None:
    """Make images from RUN's averaged generator."""
    from fastgan import files
    from fastgan.monitor import pictures
    from fastgan.monitor.pictures import formats
    from fastgan.runs.run_folder import read_facts, refuse_own
    from fastgan.trainer.load import sample

    if data == "":
        raise FastganError("--data is empty: name a folder or file, or leave it out")
    if seeds is not None and count is not None:
        raise FastganError("--seeds says how many images: leave --n out")
    chosen = None if seeds is None else seeds_of(seeds)
    path = Path(out).expanduser()
    refuse_own(path)
    single = out.endswith("/") or files.kind(path) == "folder"
    if not single:
        formats.ending(path)
    if chosen is not None and labels:  # every seed in every class
        chosen, labels = [s for s in chosen for _ in labels], labels * len(chosen)
    n = len(chosen) if chosen is not None else 64 if count is None else count
    if n < 1:
        raise FastganError(f"--n {n}: ask for at least one image")
    turns: Any = [labels[i % len(labels)] for i in range(n)] if labels else None
    images = sample(
        run,
        n,
        seed=None if chosen is not None else seed,
        labels=turns,
        step=step,
        device=device,
        data=data,
        trust=trust,
        seeds=chosen,
        truncation=truncation,
    )
    if single:
        with files.explained(f"can't write to {path}"):
            path.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images):
            picture = pictures.grid(image[None], padding=0, scale=1)
            formats.save_still(picture, path / f"{i:06d}.png")
        click.echo(f"{n} images in {path}/")
        return
    classes = None if data is not None else read_facts(Path(run).expanduser())["classes"]
    captions, columns = captions_of(n, classes, turns, chosen)
    picture = (
        formats.labelled_grid(images, captions, columns=columns)
        if captions
        else pictures.grid(images)
    )
    formats.save_still(picture, path)
    click.echo(f"{n} images in {path}")


def seeds_of(text: str, option: str = "--seeds") -> list[int]:
    """The numbers of "1,5-9". Raises FastganError."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise FastganError(f"{option} {text!r}: give numbers and ranges, such as 1,5-9")
        low, high = int(first), int(last or first)
        if high < low:
            raise FastganError(f"{option} {text!r}: {part.strip()} goes backwards")
        if len(found) + high - low >= MOST:
            raise FastganError(f"{option} {text!r}: more than {MOST} numbers, ask for fewer")
        found += range(low, high + 1)
    return found


def captions_of(
    n: int, classes: list[str] | None, turns: Any, seeds: list[int] | None
) -> tuple[list[str], int | None]:
    """Captions of a grid of n samples and its columns: classes above the columns where they come
    in turn, the seed above each image where seeds were chosen. ([], None): nothing to say."""
    from fastgan.trainer.restoring import class_number

    if classes:
        names = [*dict.fromkeys(turns)] if turns is not None else classes
        numbers = [class_number(label, classes) for label in names]
        shown = [classes[number] for number in numbers if number is not None]
        if seeds is None:
            return (shown[:n], min(n, len(shown))) if len(shown) <= 20 and n else ([], None)
        wide = len(shown) if turns is not None else None
        of_image = [shown[i % len(shown)] for i in range(n)]
        return [f"{seed} {label}" for seed, label in zip(seeds, of_image)], wide
    return ([f"seed {seed}" for seed in seeds], None) if seeds is not None else ([], None)
