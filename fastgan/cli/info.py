"""`fastgan info`: what this machine has and what fastgan can do on it."""

from __future__ import annotations

import json

import click


@click.command(epilog="Example: fastgan info")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def command(as_json: bool) -> None:
    """Show versions, devices, whether the Triton kernels can run (and if not, why), compiler,
    precision and cache."""
    from fastgan.info import collect, render

    facts = collect()
    click.echo(json.dumps(facts, indent=2) if as_json else render(facts))
