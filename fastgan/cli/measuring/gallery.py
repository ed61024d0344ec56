"""`fastgan gallery`."""

from __future__ import annotations

import click

from fastgan.errors import FastganError


@click.command(epilog="Example: fastgan gallery infogan dcgan --seeds 1")
@click.argument("kinds", nargs=-1)
@click.option(
    "--seeds", type=int, default=3, show_default=True, help="trainings of each, seeds 0, 1, ..."
)
@click.option("--page", is_flag=True, help="train nothing, only write docs/gallery.md anew")
def command(kinds: tuple[str, ...], seeds: int, page: bool) -> None:
    """Train each kind of GAN (or KINDS alone) as docs/gallery.md says, and what it has to beat.

    In a checkout: results lie in bench/results/gallery, a file a training; what is there already
    is not made again, so that it goes on where it stopped. All of it takes hours on a CPU.
    """
    from fastgan import files
    from fastgan.bench.gallery import measure
    from fastgan.bench.gallery.page import PAGE, write

    if files.kind(PAGE) != "file":
        raise FastganError("the gallery is made in a checkout of fastgan, where docs/ lies")
    if seeds < 1:
        raise FastganError(f"--seeds {seeds}: ask for at least one")
    chosen = measure.known(kinds)
    if not page:
        measure.measure(chosen, range(seeds), click.echo)
    write()
    click.echo(f"the page is {PAGE}")
