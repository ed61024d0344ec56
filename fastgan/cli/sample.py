"""`fastgan sample`."""

from __future__ import annotations

from pathlib import Path

import click

from fastgan.errors import FastganError


@click.command()
@click.argument("run")
@click.option("--n", "count", type=int, default=64, show_default=True, help="how many images")
@click.option(
    "--out",
    default="samples.png",
    show_default=True,
    help="a picture of them all, or a folder (ends in /) for one file each",
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
    device: str,
    trust: bool,
) -> None:
    """Make images from RUN's averaged generator."""
    from fastgan import files
    from fastgan.monitor import pictures
    from fastgan.runs.run_folder import refuse_own
    from fastgan.trainer import load
    from fastgan.trainer.traversal import traverse as traverse_run

    if count < 1:
        raise FastganError(f"--n {count}: ask for at least one image")
    if data == "":
        raise FastganError("--data is empty: name a folder or file, or leave it out")
    path = Path(out).expanduser()
    refuse_own(path)
    if traverse is not None:
        if label is not None or data is not None or text:
            raise FastganError("--traverse stands alone: leave --label, --data and --text out")
        count = 100
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
    if out.endswith("/") or files.kind(path) == "folder":
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
    files.save_with(path, lambda f: pictures.save_grid(f, images))
    click.echo(f"{count} images in {path}")
