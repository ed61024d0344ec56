"""``python -m fastgan.verify``: what ``fastgan verify`` runs, with torch, triton and numpy
alone."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from fastgan.errors import FastganError


class Parser(argparse.ArgumentParser):
    """Raises FastganError for what it can't read."""

    def error(self, message: str) -> NoReturn:
        raise FastganError(f"{message} (see {self.prog} --help)")


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def parser() -> Parser:
    """The arguments."""
    p = Parser(
        "fastgan verify",
        allow_abbrev=False,
        description="Check every operator against float64: on the GPU if there is one, else the "
        "real kernels in Triton's interpreter. With --aot, compile every kernel and shipped "
        "configuration for GPUs that need not be there, and report registers, spills, shared memory"
        " and matrix instructions.",
        epilog="The exit code is 1 if anything failed. Example: fastgan verify --op norm",
    )
    level: dict[str, Any] = {"dest": "level", "action": "store_const"}
    named: dict[str, Any] = {"action": "append", "metavar": "NAME"}
    switch: dict[str, Any] = {"action": "store_true"}
    add = p.add_argument
    add("--quick", const="quick", default="quick", help="small shapes (the default)", **level)
    add("--full", const="full", help="every shape and configuration; large ones on a GPU", **level)
    add(
        "--op",
        default=[],
        help="only this op, or the ops of this family (norm, conv, ...); may repeat",
        **named,
    )
    add("--family", help="only the ops of this module of fastgan.verify.cases; may repeat", **named)
    targets = "sm_80 sm_86 sm_89 sm_90 sm_100 sm_120 (default: sm_80 sm_90)"
    add("--aot", nargs="*", metavar="TARGET", help=f"compile for these and run nothing: {targets}")
    add("--json", help="print the report as JSON", **switch)
    add("--all", help="a row for every output and configuration", **switch)
    add("--jobs", type=count, metavar="N", help="processes (default: the cores, at most 4)")
    add("--defaults", help="with --aot: leave out the tuner's candidates", **switch)
    add("--no-cache", help="with --aot: compile again what was compiled before", **switch)
    return p


def needed_environment(aot: bool) -> dict[str, str | None] | None:
    """Variables to change before Triton may be imported, or None if this process will do.

    TRITON_INTERPRET is read when @triton.jit decorates: without a GPU a run needs it set,
    ahead-of-time compilation needs it unset.
    """
    interpreting = os.environ.get("TRITON_INTERPRET", "0").lower() in (
        "1",
        "true",
        "on",
        "yes",
        "y",
    )
    if aot:
        return {"TRITON_INTERPRET": None} if interpreting else None
    if interpreting:
        return None
    import torch

    return None if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}


def again(arguments: Sequence[str], change: dict[str, str | None]) -> int:
    """Runs ``python -m fastgan.verify`` with the same arguments in a child with a changed
    environment; its exit code."""
    env = {**os.environ, **{k: v for k, v in change.items() if v is not None}}
    for key, value in change.items():
        if value is None:
            env.pop(key, None)
    return subprocess.run(
        [sys.executable, "-m", "fastgan.verify", *arguments], env=env, check=False
    ).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 if everything held, 1 if something failed, 2 for a bad request."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = parser().parse_args(arguments)
        if change := needed_environment(options.aot is not None):
            return again(arguments, change)
        return _verify(options) if options.aot is None else _aot(options)
    except FastganError as e:
        print(f"fastgan: {e}", file=sys.stderr)
        return 2


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(
            f"\r{done}/{total} checks",
            end="" if done < total else "\r\033[K",
            file=sys.stderr,
            flush=True,
        )


def _verify(options: argparse.Namespace) -> int:
    from fastgan.kernels import toolchain
    from fastgan.verify import report, runner

    if toolchain.INTERPRET and (reason := toolchain.lacking()):
        raise FastganError(f"nothing can be verified here: {reason}")
    result = runner.run(
        options.op,
        options.level,
        None,
        options.jobs or runner.default_workers(),
        options.family,
        _progress,
    )
    print(
        json.dumps(result.as_json(), indent=1) if options.json else report.text(result, options.all)
    )
    return int(result.failed)


def _aot(options: argparse.Namespace) -> int:
    from fastgan.verify.aot import command

    return command(
        options.aot or ["sm_80", "sm_90"],
        options.op,
        options.family,
        options.jobs,
        not options.no_cache,
        options.json,
        options.defaults,
    )


if __name__ == "__main__":
    sys.exit(main())
