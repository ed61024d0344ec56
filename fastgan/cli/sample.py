"""`fastgan sample`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from fastgan.cli.options import of_run
from fastgan.errors import FastganError
from fastgan.recipes.translation.base import FromImage


@click.command()
@click.argument("run")
@click.option("--n", "count", type=int, default=64, show_default=True, help="how many images")
@click.option(
    "--out",
    default="samples.png",
    show_default=True,
    help="a picture of them all (.png, .jpg or .webp), or a folder (ends in /) for one file each",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="other seeds give other images"
)
@click.option("--label", type=int, help="only this class, for label-conditional runs")
@click.option(
    "--text",
    multiple=True,
    help="a caption, for text-to-image runs; several take turns  [default: some of the data]",
)
@click.option(
    "--traverse",
    metavar="NAME",
    help="10 x 10 images: along a row this input of the generator changes alone, such as class or "
    "codes.0 of infogan, z.0 of others",
)
@click.option("--step", type=int, help="another kept checkpoint than the newest")
@click.option("--data", help="what a generator of images from images is given")
@click.option(
    "--input",
    "given",
    help="a folder of images, or one, that a generator of images from images is given as it is "
    "[default: held-out data of the run]",
)
@click.option("--mask", help="with --input, for inpainting: white is what to fill in")
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--trust", is_flag=True, help="run the code that RUN names, if you know where it comes from"
)
def command(
    run: str,
    count: int,
    out: str,
    seed: int,
    label: int | None,
    text: tuple[str, ...],
    traverse: str | None,
    step: int | None,
    data: str | None,
    given: str | None,
    mask: str | None,
    device: str,
    trust: bool,
) -> None:
    """Make images from RUN's averaged generator.

    Where it makes images from images, a picture shows input, output and, where there is one, the
    target side by side; a folder gets the outputs alone, under the names of --input.
    """
    from fastgan import files
    from fastgan.monitor import pictures
    from fastgan.runs.run_folder import refuse_own
    from fastgan.trainer import load
    from fastgan.trainer.traversal import traverse as traverse_run

    if count < 1:
        raise FastganError(f"--n {count}: ask for at least one image")
    for name, value in {"data": data, "input": given, "mask": mask}.items():
        if value == "":
            raise FastganError(f"--{name} is empty: name a folder or file, or leave it out")
    path = files.path_of(out, "--out")
    refuse_own(path)
    if not (out.endswith("/") or files.kind(path) == "folder"):
        pictures.ending_of(path)
    config = of_run(run)
    if isinstance(config, FromImage) and data is None:
        datasets = (
            config.inputs(run, given, mask) if given is not None else config.streams(held_out=True)
        )
        options = {"seed": seed, "label": label, "step": step, "device": device, "trust": trust}
        made, shown = translated(run, datasets, count if given is None else None, options)
        names = next(iter(datasets.values())).names if given is not None else None
        save(out, path, made, shown, names)
        return
    if given is not None or mask is not None:
        raise FastganError(f"{run} makes images from nothing but noise: leave --input out")
    if traverse is not None:
        if label is not None or data is not None or text or given is not None:
            raise FastganError("--traverse stands alone: leave labels, data and text out")
        images = traverse_run(run, traverse, seed=seed, step=step, device=device, trust=trust)
    else:
        images = load.sample(
            run,
            count,
            seed=seed,
            labels=label,
            step=step,
            device=device,
            data=data,
            text=text,
            trust=trust,
        )
    save(out, path, images, images, None)


def translated(
    run: str, datasets: dict[str, Any], count: int | None, options: dict[str, Any]
) -> tuple[Any, Any]:
    """(outputs, what a picture shows) for the first samples of the data, in [0, 1]."""
    import torch

    from fastgan.metrics.fidelity import head
    from fastgan.trainer.load import walk
    from fastgan.trainer.sampling import beside

    made, shown = [], []
    for step, images in walk(run, head(datasets, count) if count else datasets, **options):
        made.append(images.float().cpu())
        shown.append(beside(step.panels(images)).cpu())
    both = (torch.cat(part).add(1).div(2).clamp(0, 1) for part in (made, shown))
    return next(both), next(both)


def save(out: str, path: Path, images: Any, shown: Any, names: Sequence[str] | None) -> None:
    """One picture of what is shown, or a folder of the images."""
    from fastgan import files
    from fastgan.data.listing import stem
    from fastgan.monitor import pictures

    if out.endswith("/") or files.kind(path) == "folder":
        for i, image in enumerate(images):
            file = path / (f"{stem(names[i])}.png" if names else f"{i:06d}.png")
            with files.explained(f"can't write to {path}"):
                file.parent.mkdir(parents=True, exist_ok=True)
            picture = pictures.grid(image[None], padding=0, scale=1)
            files.save_with(file, lambda f, picture=picture: picture.save(f, "PNG"))
        click.echo(f"{len(images)} images in {path}/")
        return
    with files.explained(f"can't write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
    ending = pictures.ending_of(path)
    files.save_with(path, lambda f: pictures.save_grid(f, shown, ending=ending))
    click.echo(f"{len(images)} images in {path}")
