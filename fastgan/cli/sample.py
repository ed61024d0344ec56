"""`fastgan sample`."""

from __future__ import annotations

import click

from fastgan.errors import FastganError


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
@click.option("--step", type=int, help="another kept checkpoint than the newest")
@click.option("--data", help="what a generator of images from images is given")
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
    step: int | None,
    data: str | None,
    device: str,
    trust: bool,
) -> None:
    """Make images from RUN's averaged generator."""
    from fastgan import files
    from fastgan.monitor import pictures
    from fastgan.runs.run_folder import refuse_own
    from fastgan.trainer.load import sample

    if count < 1:
        raise FastganError(f"--n {count}: ask for at least one image")
    if data == "":
        raise FastganError("--data is empty: name a folder or file, or leave it out")
    path = files.path_of(out, "--out")
    refuse_own(path)
    to_folder = out.endswith("/") or files.kind(path) == "folder"
    ending = None if to_folder else pictures.ending_of(path)
    images = sample(
        run, count, seed=seed, labels=label, step=step, device=device, data=data, trust=trust
    )
    if to_folder:
        with files.explained(f"can't write to {path}"):
            path.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images):
            picture = pictures.grid(image[None], padding=0, scale=1)
            files.save_with(
                path / f"{i:06d}.png", lambda f, picture=picture: picture.save(f, "PNG")
            )
        click.echo(f"{count} images in {path}/")
        return
    with files.explained(f"can't write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
    files.save_with(path, lambda f: pictures.save_grid(f, images, ending=ending))
    click.echo(f"{count} images in {path}")
