"""Command-line flags made from a recipe's dataclass of options; precedence: defaults < file <
flags."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import click
from click.types import IntParamType

from fastgan.cli.completion import PATH
from fastgan.errors import FastganError
from fastgan.recipes import Config
from fastgan.recipes.config import as_dict, fields_of, merge
from fastgan.trainer.run_options import checked, of_before, type_of


class Step(click.ParamType):
    """A step, or "best"."""

    name = "STEP"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | str:
        if value == "best" or isinstance(value, int):
            return value
        if not value.isdecimal():
            self.fail(f"{value!r} is no step: give a number, or best", param, ctx)
        return int(value)


step_option = click.option(
    "--step",
    type=Step(),
    help="another kept checkpoint than the newest; best: by train --evaluate-every",
)


def default_of(field: Any, kind: type) -> str:
    """What help says of it."""
    if field.default is None:
        return ""
    value = str(field.default).lower() if kind is bool else field.default
    here = field.metadata["on_cpu"]
    return f"  [default: {value}{'' if here is None else f'; without a GPU {here}'}]"


def flags(config: type[Config]) -> list[click.Option]:
    """One typed option for each field, showing its default."""
    made = []
    for name, field in fields_of(config).items():
        kind, _ = type_of(config, name)
        flag = name.replace("_", "-")
        choices = field.metadata["choices"]
        shown = default_of(field, kind)
        made.append(
            click.Option(
                [f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}", name],
                type=click.Choice(choices)
                if choices
                else PATH
                if name in ("data", "out", "init_from")
                else _TYPES[kind],
                default=None,
                help=field.metadata["help"] + shown,
                metavar=None
                if choices or kind is bool
                else {int: "INTEGER", float: "NUMBER", str: "TEXT"}[kind],
            )
        )
    return made


OPTIONS = 2**20
"""Bytes of the largest file of options that is read."""


class _Whole(IntParamType):
    """Digits alone: Python's int takes " 5", "1_000" and those of any script."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, str) and not re.fullmatch(r"[+-]?[0-9]{1,4000}", value):
            self.fail(f"{value[:40]!r} is not a valid integer.", param, ctx)
        return super().convert(value, param, ctx)


_TYPES: dict[type, Any] = {int: _Whole(), float: click.FLOAT, str: click.STRING, bool: click.BOOL}


def read_file(path: str, *, follow: bool = True) -> dict[str, Any]:
    """A TOML file of options; follow: it may be a link. Raises FastganError for one that can't be
    read."""
    from fastgan import files

    with files.explained(f"can't read {path}"):
        data = files.read(files.path_of(path, "--config"), OPTIONS, follow=follow)
    try:
        return tomllib.loads(files.text(data))
    except (ValueError, RecursionError) as error:
        raise FastganError(f"{path} is not TOML: {' '.join(str(error).split())}") from error


def assemble(
    config: type[Config], file: dict[str, Any], given: dict[str, Any], where: str
) -> Config:
    """The configuration from the file's options and the flags that were given (None: not given)."""
    values = merge(config, {k: v for k, v in file.items() if k != "recipe"}, where)
    for name, value in given.items():
        if value is not None:
            values[name] = checked(config, name, value, f"--{name.replace('_', '-')}")
    return config(**values)


def of_run(run: str) -> Config | None:
    """The configuration that a run was trained with; None where that was no recipe's, or can't be
    read."""
    from fastgan import files, recipes

    try:
        file = read_file(str(files.path_of(run, "RUN") / "config.toml"), follow=False)
        cls = recipes.find(str(file.get("recipe")))
        return assemble(cls, {**of_before(cls), **file}, {}, f"{run}/config.toml")
    except (FastganError, ValueError):  # a name that no file can have is told by what reads it next
        return None


def trained_on(run: Path, config: Config | None) -> str:
    """The data that a run was trained on, as `fastgan.data.open` takes them. Raises FastganError
    where they are not known, or no longer there."""
    from fastgan import files
    from fastgan.data.opening import BUNDLED
    from fastgan.data.rendered import RENDERED
    from fastgan.recipes.training import built_in, moved

    if config is not None and built_in(config):
        return config.data
    try:
        named = read_file(str(run / "config.toml"), follow=False).get("data")
    except FastganError as error:
        raise FastganError(f"{error}: name the real images with --data") from error
    if not isinstance(named, str) or (
        named not in (BUNDLED, *RENDERED) and files.kind(files.path_of(named)) is None
    ):
        raise moved(named or "data", run)
    return named


def toml_text(config: Config) -> str:
    from fastgan.runs.toml import dumps

    return dumps(as_dict(config))
