"""`fastgan compare`."""

from __future__ import annotations

import json

import click


@click.command(epilog="Example: fastgan compare runs/plain runs/r1 --out compare.png")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option(
    "--out",
    default="compare.png",
    show_default=True,
    help="where the picture goes: .png, .jpg or .webp",
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of text")
def command(runs: tuple[str, ...], out: str, as_json: bool) -> None:
    """Show runs side by side: what `fastgan evaluate` found, how they were trained, which options
    differ, and a picture of their newest samples. It reads what lies
    in the folders, runs no network, and warns where distances can't be compared."""
    from fastgan import files
    from fastgan.monitor import pictures
    from fastgan.monitor.pictures import formats
    from fastgan.reports.compare import compare
    from fastgan.runs.run_folder import refuse_own

    path = files.path_of(out, "--out")
    pictures.ending_of(path)
    refuse_own(path)
    found = compare(runs)
    click.echo(json.dumps(found.as_dict(), indent=2) if as_json else str(found))
    picture = found.picture()
    if picture is None:
        click.echo("the runs have no pictures yet", err=True)
        return
    formats.save_still(picture, path)
    if not as_json:
        click.echo(f"samples side by side: {out}")
