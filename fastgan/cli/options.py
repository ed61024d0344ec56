"""Command-line flags made from a recipe's dataclass of options; precedence: defaults < file <
flags."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import click

from fastgan.errors import FastganError
from fastgan.recipes import Config
from fastgan.recipes.config import as_dict, fields_of, merge, type_of


def flags(config: type[Config]) -> list[click.Option]:
    """One typed option for each field, showing its default."""
    made = []
    for name, field in fields_of(config).items():
        kind, _ = type_of(config, name)
        flag = name.replace("_", "-")
        choices = field.metadata["choices"]
        shown = (
            ""
            if field.default is None
            else f"  [default: {str(field.default).lower() if kind is bool else field.default}]"
        )
        made.append(
            click.Option(
                [f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}", name],
                type=click.Choice(choices) if choices else (bool if kind is bool else kind),
                default=None,
                help=field.metadata["help"] + shown,
                metavar=None
                if choices or kind is bool
                else {int: "INTEGER", float: "NUMBER", str: "TEXT"}[kind],
            )
        )
    return made


def check_values(config: type[Config], values: dict[str, Any]) -> None:
    """Raise FastganError for a value that no option can be: an empty text (which would mean the
    current folder), a number that is not finite, below 0, or 0 where a count is meant.

    An option whose default is 0 is one that 0 turns off.
    """
    known = fields_of(config)
    for name, value in values.items():
        field = known[name]
        if value == "":
            raise FastganError(
                f"--{name.replace('_', '-')} is empty: give it a value, or leave it out"
            )
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        flag = f"--{name.replace('_', '-')}"
        if not math.isfinite(value):
            raise FastganError(f"{flag} must be a finite number, not {value}")
        least = 0 if isinstance(value, float) or field.default == 0 else 1
        if value < least:
            raise FastganError(f"{flag} must be at least {least}, not {value}")


def read_file(path: str, *, follow: bool = True) -> dict[str, Any]:
    """A TOML file of options; follow: it may be a link. Raises FastganError for one that can't be
    read."""
    from fastgan import files

    with files.explained(f"can't read {path}"):
        data = files.read(Path(path).expanduser(), files.TEXT, follow=follow)
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise FastganError(f"{path} is not TOML: {' '.join(str(error).split())}") from error


def assemble(
    config: type[Config], file: dict[str, Any], given: dict[str, Any], where: str
) -> Config:
    """The configuration from the file's options and the flags that were given (None: not given)."""
    values = merge(config, {k: v for k, v in file.items() if k != "recipe"}, where)
    values |= {name: value for name, value in given.items() if value is not None}
    check_values(config, values)
    return config(**values)


def toml_text(config: Config) -> str:
    from fastgan.runs.toml import dumps

    return dumps(as_dict(config))
