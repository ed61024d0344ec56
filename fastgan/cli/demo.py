"""`fastgan demo`: the first two minutes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

STEPS = 4500
SECONDS = 130


@click.command(epilog="Example: fastgan demo --out runs/demo")
@click.option(
    "--out",
    default="runs/demo",
    show_default=True,
    help="run folder; an older demo there is replaced",
)
@click.option(
    "--steps",
    type=int,
    default=STEPS,
    show_default=True,
    help="stop after so many updates of the generator",
)
@click.option(
    "--seconds", type=float, default=SECONDS, show_default=True, help="stop after that time"
)
def command(out: str, steps: int, seconds: float) -> None:
    """Train a DCGAN on 10,000 real images of clothes (Fashion-MNIST, bundled) and say where the
    pictures are."""
    import json

    from fastgan import files
    from fastgan.recipes.dcgan import Dcgan
    from fastgan.recipes.training import make_trainer
    from fastgan.runs.run_folder import RunFolder

    folder = files.path_of(out, "--out")
    if RunFolder(folder).exists():
        RunFolder(folder).remove_demo()
    out = str(folder)
    config = Dcgan(
        out=out,
        steps=steps,
        base_width=32,
        ema_decay=0.995,
        log_every=50,
        sample_every=250,
        checkpoint_every=500,
    )
    with make_trainer(config, resume=False, log=None, out=out) as trainer:
        if trainer.folder is not None:
            trainer.folder.write(
                "run.json", json.dumps({**trainer.folder.facts(), "demo": steps}, indent=1)
            )
        click.echo(f"training a DCGAN on {trainer.datasets['image'].describe()}")
        click.echo(
            f"at most {seconds:.0f} s on this machine's {trainer.device}; real images: "
            f"{folder}/reals.png"
        )
        trainer.fit(steps, seconds=seconds)
        done = trainer.step
    newest = sorted((folder / "samples").glob("*.png"))[-1]
    click.echo(f"\n{done} steps done. Look at:")
    click.echo(f"  {newest}   what the generator makes now")
    click.echo(f"  {folder}/samples/   how it got there")
    click.echo(f"  {folder}/curves.png   losses, logits, accuracies")
    program = sys.argv[0] if Path(sys.argv[0]).name == "fastgan" else "python -m fastgan"
    again = shlex.quote(out)
    click.echo(f"\nGo on training:  {program} train --resume {again} --steps {2 * steps}")
    click.echo(f"More images:     {program} sample {again} --n 100 --out more.png")
    click.echo(f"How good is it:  {program} evaluate {again}")
