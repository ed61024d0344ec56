"""`fastgan report`."""

from __future__ import annotations

import click

from fastgan.cli.completion import PATH
from fastgan.files import path_of


@click.command(epilog="Example: fastgan report runs/mine && xdg-open runs/mine/report.html")
@click.argument("run", type=PATH)
@click.option("--out", help="where to write the page  [default: report.html in RUN]")
def command(run: str, out: str | None) -> None:
    """Write RUN as one HTML page: curves with warnings on them, samples over time beside real
    images, options, metrics, and how to go on. It needs no network and opens from disk."""
    from fastgan import files
    from fastgan.reports import page
    from fastgan.runs.run_folder import refuse_own

    path = path_of(out, "--out") if out is not None else None
    if path is not None:
        refuse_own(path)
        with files.explained(f"can't write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
    click.echo(f"report in {page.write(run, path)}")
