"""`fastgan data`: what a data set looks like to the networks, before any training."""

from __future__ import annotations

import click

from fastgan.cli.completion import PATH
from fastgan.data.opening import BUNDLED


@click.command(epilog="Example: fastgan data my_images --size 64 --preview seen.png")
@click.argument("source", default=BUNDLED, type=PATH)
@click.option(
    "--size",
    type=click.IntRange(1),
    help="Side of the square the images are fitted to; default: their own.",
)
@click.option(
    "--channels",
    type=click.Choice(["1", "3", "4"]),
    help="1 grey, 3 colour, 4 with opacity; default: 3, or 1 if all grey.",
)
@click.option("--strict", is_flag=True, help="Stop with exit code 2 at a file that can't be read.")
@click.option(
    "--preview",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write 64 of the images, as a network sees them, to a .png, .jpg or .webp.",
)
@click.option(
    "--clear-cache", is_flag=True, help="Delete all decoded images from the cache, and stop."
)
def command(
    source: str,
    size: int | None,
    channels: str | None,
    strict: bool,
    preview: str | None,
    clear_cache: bool,
) -> None:
    """Check SOURCE (a folder, .zip, .npz, .npy, idx file or fashion-mnist): decode it, count
    classes, list what is left out."""
    from fastgan import paths
    from fastgan.data import cache, open

    if clear_cache:
        folder = paths.cache_dir()
        files, freed = cache.clear(folder)
        click.echo(f"removed {files} decoded data sets, {freed / 2**20:,.1f} MiB, from {folder}")
        return
    import numpy as np

    from fastgan.errors import printable

    if preview is not None:
        from fastgan.files import explained, path_of, save_with
        from fastgan.monitor import pictures

        path = path_of(preview, "--preview")
        ending = pictures.ending_of(path)
    dataset = open(source, size=size, channels=int(channels) if channels else None, strict=strict)
    click.echo(dataset.describe())
    click.echo(
        f"decoded: {dataset.nbytes / 2**20:,.1f} MiB, fingerprint {dataset.fingerprint[:16]}"
    )
    for note in dataset.notes:
        click.echo(f"note: {note}")
    if dataset.classes:
        counts = np.bincount(dataset.array("label"), minlength=len(dataset.classes))
        for name, count in zip(dataset.classes, counts):
            click.echo(f"  class {printable(name)}: {count:,}")
    for name, reason in dataset.skipped:
        click.echo(f"  left out {printable(name)}: {printable(reason)}")
    if preview is not None:
        from fastgan.data import order

        first = order(0, "preview", len(dataset), 0, min(64, len(dataset)))
        images = dataset.read(first)["image"][..., :3].transpose(0, 3, 1, 2)
        with explained(f"can't write {preview}"):
            path.parent.mkdir(parents=True, exist_ok=True)
        save_with(path, lambda f: pictures.save_grid(f, images, ending=ending))
        click.echo(f"preview: {preview}")
