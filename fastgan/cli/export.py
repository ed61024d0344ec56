"""`fastgan export`."""

from __future__ import annotations

import click

from fastgan.cli.completion import PATH
from fastgan.cli.options import of_run
from fastgan.errors import FastganError
from fastgan.files import path_of

ENDINGS = {"torch": ".pt2", "onnx": ".onnx", "web": ".html"}


@click.command(
    epilog="Example: fastgan export runs/mine --format onnx --uint8 --out my-generator.onnx"
)
@click.argument("run", type=PATH)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["folder", *ENDINGS]),
    default="folder",
    show_default=True,
    help="folder: for fastgan.load; torch: for torch.export.load; onnx: for everything else; web: "
    "a page that makes images by itself",
)
@click.option("--out", required=True, help="where to write; nothing may lie there yet")
@click.option(
    "--uint8", is_flag=True, help="torch, onnx: images as bytes 0 ... 255 instead of -1 ... 1"
)
@click.option(
    "--trust", is_flag=True, help="run the code that RUN names, if you know where it comes from"
)
def command(run: str, kind: str, out: str, uint8: bool, trust: bool) -> None:
    """Write RUN's averaged generator for other places.

    A folder holds the network as it was trained, with a model card and samples; the other formats
    are one file, for any number of images at once (web: one), in which spectral and batch
    normalisation are folded into the layers. What was written is loaded again and compared.
    """
    from fastgan.export.folder import export_folder
    from fastgan.recipes.translation.base import FromImage
    from fastgan.runs.run_folder import refuse_own

    path = path_of(out, "--out")
    refuse_own(path)
    if kind == "folder" and path.suffix in ENDINGS.values():
        raise FastganError(f"--out {out} names a file: add --format, or name a folder")
    if kind != "folder" and path.suffix != ENDINGS[kind]:
        raise FastganError(f"--out {out}: a file of --format {kind} ends in {ENDINGS[kind]}")
    if uint8 and kind not in ("torch", "onnx"):
        raise FastganError(f"--uint8 is for torch and onnx, not for {kind}")
    if kind == "folder":
        config = of_run(run)
        given = config.streams(held_out=True) if isinstance(config, FromImage) else None
        difference = export_folder(run, path, given=given, trust=trust)
        click.echo(f"folder {path}: largest difference to the run's images {difference:.1e}")
        return
    if kind == "web":
        from fastgan.export.web import export_web

        traced, levels = export_web(run, path, trust=trust)
        measured = f"{levels} of 255 (weights of 16 bits)"
    else:
        from fastgan.export.program import export_program

        traced, difference = export_program(run, path, kind, uint8=uint8, trust=trust)
        measured = f"{difference:.0f} of 255" if uint8 else f"{difference:.1e}"
    takes = []
    for name, value in traced.inputs.items():
        shape = ", ".join(map(str, ("B", *value.shape[1:])))
        takes.append(f"{name} {str(value.dtype).removeprefix('torch.')} ({shape})")
    click.echo(f"{kind} {path}: {path.stat().st_size / 2**20:.1f} MiB, takes {', '.join(takes)}")
    click.echo(
        f"{traced.folded} normalisations folded; largest difference to the run's images {measured}"
    )
