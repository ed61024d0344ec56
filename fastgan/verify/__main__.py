"""``python -m fastgan.verify``: what ``fastgan verify`` runs, with torch, triton and numpy alone."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence

from fastgan.errors import FastganError


def parser() -> argparse.ArgumentParser:
    """The arguments, shared with the command line."""
    p = argparse.ArgumentParser(
        "fastgan verify", description="Check every operator against float64; --aot compiles every kernel without a GPU."
    )
    p.add_argument(
        "--quick",
        dest="level",
        action="store_const",
        const="quick",
        default="quick",
        help="small adversarial shapes (the default)",
    )
    p.add_argument(
        "--full",
        dest="level",
        action="store_const",
        const="full",
        help="every shape and launch configuration; large ones on a GPU",
    )
    p.add_argument("--op", action="append", default=[], metavar="NAME", help="only this op; may repeat")
    p.add_argument(
        "--family", action="append", default=None, metavar="NAME", help="load only this module of fastgan.ops; may repeat"
    )
    p.add_argument("--aot", nargs="+", metavar="sm_90", help="compile for these targets instead of running")
    p.add_argument("--json", action="store_true", help="print the report as JSON")
    p.add_argument("--all", action="store_true", help="a row for every output and configuration")
    p.add_argument("--jobs", type=int, default=0, help="processes (default: the cores, at most 4)")
    p.add_argument(
        "--defaults", action="store_true", help="--aot: untuned and committed configurations, not the tuner's candidates"
    )
    p.add_argument("--no-cache", action="store_true", help="--aot: compile again whatever was compiled before")
    return p


def needed_environment(aot: bool) -> dict[str, str | None] | None:
    """Variables to change before Triton may be imported, or None if this process will do.

    TRITON_INTERPRET is read when @triton.jit decorates: without a GPU a run needs it set, ahead-of-time compilation needs it
    unset.
    """
    interpreting = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")
    if aot:
        return {"TRITON_INTERPRET": None} if interpreting else None
    if interpreting:
        return None
    import torch

    return None if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}


def again(arguments: Sequence[str], change: dict[str, str | None]) -> int:
    """Runs ``python -m fastgan.verify`` with the same arguments in a child with a changed environment; its exit code."""
    env = {**os.environ, **{k: v for k, v in change.items() if v is not None}}
    for key, value in change.items():
        if value is None:
            env.pop(key, None)
    return subprocess.run([sys.executable, "-m", "fastgan.verify", *arguments], env=env, check=False).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 if everything held, 1 if something failed, 2 for a bad request."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(arguments)
    change = needed_environment(bool(options.aot))
    if change:
        return again(arguments, change)
    try:
        return _aot(options) if options.aot else _verify(options)
    except FastganError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{total} checks", end="" if done < total else "\r\033[K", file=sys.stderr, flush=True)


def _verify(options: argparse.Namespace) -> int:
    from fastgan.kernels import toolchain
    from fastgan.verify import report, run

    if toolchain.INTERPRET and (reason := toolchain.lacking()):
        raise FastganError(f"nothing can be verified here: {reason}")
    result = run.run(options.op, options.level, None, options.jobs or run.default_workers(), options.family, _progress)
    print(json.dumps(result.as_json(), indent=1) if options.json else report.text(result, options.all))
    return int(result.failed)


def _aot(options: argparse.Namespace) -> int:
    from fastgan.verify.aot import command

    return command(options.aot, options.op, options.family, options.jobs, not options.no_cache, options.json, options.defaults)


if __name__ == "__main__":
    sys.exit(main())
