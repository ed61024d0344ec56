"""``fastgan verify``: the proof, from the command line."""

from __future__ import annotations

import sys

import click


# python -m fastgan.verify has to do without click, so its parser reads the arguments for both
@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    from fastgan.verify.__main__ import main

    sys.exit(main(arguments))
