"""``fastgan tune``: tuning tables for this GPU, from the command line."""

from __future__ import annotations

import sys

import click


@click.command()
@click.option(
    "--op",
    multiple=True,
    metavar="NAME",
    help="Only this op, a family (norm, conv, ...) or flat_adam; may repeat.",
)
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

    Without a GPU: which form of each convolution is fastest on this CPU, in fp32 or bf16, into the
    table under FASTGAN_CACHE that trainings on this CPU read. Example: fastgan tune --type bf16
    --type fp32 --budget 60
    """
    import torch

    if not (recheck or ship or op or torch.cuda.is_available()):
        from fastgan.verify.tuner import cpu as tune_cpu

        sys.exit(tune_cpu.run(types, budget, click.echo))
    from fastgan.verify.tune import run
    from fastgan.verify.tuning_tables import recheck as take_over

    sys.exit(take_over(ship, click.echo) if recheck else run(op, types, budget, ship, click.echo))
