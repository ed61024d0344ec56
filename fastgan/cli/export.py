"""`fastgan export`."""

from __future__ import annotations

import click

from fastgan.files import path_of


@click.command(epilog="Example: fastgan export runs/mine --format folder --out my-generator")
@click.argument("run")
@click.option(
    "--format", "kind", type=click.Choice(["folder"]), default="folder", show_default=True
)
@click.option("--out", required=True, help="where to write; nothing may lie there yet")
@click.option(
    "--trust", is_flag=True, help="run the code that RUN names, if you know where it comes from"
)
def command(run: str, kind: str, out: str, trust: bool) -> None:
    """Write RUN's averaged generator as a folder that others can load: model.safetensors,
    config.json, a model card and samples. What was written is loaded again and compared."""
    from fastgan.export.folder import export_folder
    from fastgan.runs.run_folder import refuse_own

    path = path_of(out, "--out")
    refuse_own(path)
    difference = export_folder(run, path, trust=trust)
    click.echo(f"{kind} {path}: largest difference to the run's images {difference:.1e}")
