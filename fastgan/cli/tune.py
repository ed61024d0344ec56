"""``fastgan tune``: tuning tables for this GPU, from the command line."""

from __future__ import annotations

import sys

import click


@click.command()
@click.option("--op", multiple=True, metavar="NAME", help="Only this op, or flat_adam; may repeat.")
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice(["bf16", "fp16", "fp32", "tf32"]),
    default=("bf16",),
    help="May repeat; default bf16.",
)
@click.option(
    "--budget",
    type=click.FloatRange(1),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Stop after this long; run again to go on.",
)
@click.option(
    "--ship",
    is_flag=True,
    help="Write into the package's own tables, to be committed, instead of yours.",
)
@click.option(
    "--recheck",
    is_flag=True,
    help="Take over what other Triton versions measured, compiled again with this one; needs no "
    "GPU.",
)
def command(
    op: tuple[str, ...], types: tuple[str, ...], budget: float, ship: bool, recheck: bool
) -> None:
    """Find the fastest launch configurations of the kernels on this GPU, each checked against
    float64 before it is timed.

    Tables go to FASTGAN_CONFIG_DIR, or fastgan/tuning in your configuration directory, one a GPU
    model and Triton minor version. Nothing is ever tuned while training: an untuned kernel launches
    with the nearest entry that fits, or a safe default. Under another Triton minor version engines
    stay chosen as they were; launch configurations need --recheck, or to be tuned again.
    """
    from fastgan.verify.tune import run
    from fastgan.verify.tuning_tables import recheck as take_over

    sys.exit(take_over(ship, click.echo) if recheck else run(op, types, budget, ship, click.echo))
