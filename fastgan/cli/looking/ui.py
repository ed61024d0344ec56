"""`fastgan ui`."""

from __future__ import annotations

import click

from fastgan.cli.completion import PATH


@click.command(epilog="Example: fastgan ui runs --port 8765")
@click.argument("runs", default="runs", type=PATH)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="[default: any free one]")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="another address lets other machines in, with nothing but the token between",
)
@click.option(
    "--trust", is_flag=True, help="run the code that the runs name, if you know where it comes from"
)
def command(runs: str, port: int, host: str, trust: bool) -> None:
    """Look at the runs in the folder RUNS (or at one run) in a browser while they train: their
    pages, a stop button, and a playground for finished generators. Ctrl-C ends it."""
    from fastgan.ui.server import Server

    server = Server(runs, host, port, trust=trust)
    click.echo(f"open {server.address}   (Ctrl-C ends it)")
    server.serve()
