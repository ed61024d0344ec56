"""The `fastgan` command: finds sub-commands without importing them, and turns errors into one line
and exit code 2."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import Any

import click

from fastgan import __version__
from fastgan.cli.completion import VARIABLE
from fastgan.cpu.threads import stay_within_quota, wait_quietly
from fastgan.errors import FastganError, printable

COMMANDS = {
    "demo": "train a DCGAN on real images in two minutes, then look at it",
    "train": "train a GAN on a folder of images, or go on with a run",
    "data": "what a folder, archive or array becomes, before training on it",
    "sample": "make images from a finished run",
    "interpolate": "a walk from image to image, as an animation",
    "timelapse": "how a run learned, as an animation",
    "directions": "what changes images most, in a grid",
    "invert": "the latent that is nearest to a photo",
    "export": "a run's generator for others: a folder, torch, ONNX or a web page",
    "report": "a run as one page: curves, samples over time, options, how to go on",
    "ui": "runs in the browser while they train, and a playground",
    "evaluate": "measure a run's images against the real ones",
    "supplement": "whether a classifier with few labels gains from a run's images",
    "compare": "runs side by side: measures, options that differ, samples",
    "gallery": "what each kind of GAN reaches in minutes, beside what it has to beat",
    "verify": "prove the kernels against their references",
    "tune": "measure which kernel configurations are fastest here",
    "bench": "whole training steps against the best PyTorch can do",
    "info": "versions, devices, and whether the kernels can run",
}

LOOKING = "interpolate timelapse directions invert report supplement compare ui"
FOLDERS = {
    **dict.fromkeys(LOOKING.split(), "looking."),
    **dict.fromkeys(("gallery", "verify", "tune", "bench"), "measuring."),
}
"""Where a command's file lies, if not beside this one."""


class Lazy(click.Group):
    """A group whose sub-commands live in fastgan.cli.<name>:command, or in a folder there, and are
    imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"fastgan.cli.{FOLDERS.get(name, '')}{name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1, 0.4)
            raise FastganError(
                f"no command {args[0]!r}: {f'did you mean {near[0]!r}? ' if near else ''}there are "
                f"{', '.join(COMMANDS)}"
            )
        return super().resolve_command(ctx, args)


@click.group(
    cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}
)
@click.version_option(__version__, prog_name="fastgan")
def group() -> None:
    """Train GANs fast, on kernels that are proven against PyTorch references."""


def main(args: list[str] | None = None) -> None:
    """Run the command line; exits with 0, 1 (a check failed), 2 (bad input) or 130
    (interrupted)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # one that can't encode a name shows its escapes
            stream.reconfigure(errors="backslashreplace")
    wait_quietly()
    stay_within_quota()
    try:
        code = group.main(args=args, prog_name="fastgan", standalone_mode=False)
    except FastganError as error:
        if VARIABLE in os.environ:  # nothing to offer behind words that are wrong
            sys.exit(0)
        fail(str(error))
    except click.exceptions.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = f" (see {context.command_path} --help)" if context is not None else ""
        fail(error.format_message().replace("\n", " ").rstrip(".") + where)
    except BrokenPipeError:
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def fail(message: str) -> None:
    click.echo(printable(f"fastgan: {message}"), err=True)
    sys.exit(2)
