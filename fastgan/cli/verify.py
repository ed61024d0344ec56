"""``fastgan verify``: the proof, from the command line."""

from __future__ import annotations

import sys

import click


@click.command()
@click.option(
    "--quick", "level", flag_value="quick", default="quick", help="Small adversarial shapes, under a minute (the default)."
)
@click.option("--full", "level", flag_value="full", help="Every shape and launch configuration; the large ones need a GPU.")
@click.option("--op", multiple=True, metavar="NAME", help="Only this op; may repeat.")
@click.option("--aot", is_flag=True, help="Compile every kernel for the TARGETS (default: sm_80 sm_90) instead of running it.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--all", "everything", is_flag=True, help="A row for every output and configuration.")
@click.option("--jobs", type=click.IntRange(1), help="Processes without a GPU (default: the cores, at most 4).")
@click.option("--defaults", is_flag=True, help="With --aot: leave out the tuner's candidates.")
@click.option("--no-cache", is_flag=True, help="With --aot: compile again what was compiled before.")
@click.argument("targets", nargs=-1)
def command(
    level: str,
    op: tuple[str, ...],
    aot: bool,
    as_json: bool,
    everything: bool,
    jobs: int | None,
    defaults: bool,
    no_cache: bool,
    targets: tuple[str, ...],
) -> None:
    """Check every operator against float64: on the GPU if there is one, else the real kernels in Triton's interpreter.

    With --aot, compile every kernel and shipped configuration for TARGETS (sm_80 sm_86 sm_89 sm_90 sm_100 sm_120), which need
    not be there, and report registers, spills, shared memory and matrix instructions. Exit code 1 if anything failed.
    """
    from fastgan.verify.__main__ import main

    if targets and not aot:
        raise click.UsageError(f"what is {targets[0]!r}? Targets come with --aot, ops with --op.")
    arguments = [f"--{level}"]
    for name in op:
        arguments += ["--op", name]
    arguments += ["--aot", *(targets or ("sm_80", "sm_90"))] if aot else []
    arguments += ["--json"] * as_json + ["--all"] * everything + ["--defaults"] * defaults + ["--no-cache"] * no_cache
    arguments += ["--jobs", str(jobs)] if jobs else []
    sys.exit(main(arguments))
