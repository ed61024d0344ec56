"""`fastgan evaluate`."""

from __future__ import annotations

import dataclasses
import io
import json
import textwrap
from typing import Any

import click

from fastgan import files
from fastgan.cli.completion import PATH
from fastgan.cli.options import of_run, step_option, trained_on
from fastgan.errors import FastganError, printable
from fastgan.runs.layout import COPIES, EVALUATION


@click.command(epilog="Example: fastgan evaluate runs/mine --n 2000")
@click.argument("run", type=PATH)
@click.option(
    "--n", "count", type=int, default=1000, show_default=True, help="how many samples to measure"
)
@click.option(
    "--data", help="the real images to compare with  [default: what the run was trained on]"
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="seed of the samples and of the split of the reals",
)
@step_option
@click.option(
    "--fid",
    "weights",
    metavar="FILE",
    help="also FID, KID and IS, by the standard Inception weights in FILE (docs/measuring.md says "
    "which)",
)
@click.option(
    "--trust", is_flag=True, help="run the code that RUN names, if you know where it comes from"
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of text")
def command(
    run: str,
    count: int,
    data: str | None,
    seed: int,
    step: int | str | None,
    weights: str | None,
    trust: bool,
    as_json: bool,
) -> None:
    """Measure images from RUN's averaged generator against the real ones.

    A kind that makes images from images is measured on held-out ones, beside its baseline (L1,
    PSNR, SSIM, or what its page in docs/kinds says), rows, sounds and strings by measures of
    their own. All others as sets: kernel and Frechet distance, precision, recall, density,
    coverage, memorisation, classes seen; docs/measuring.md says what each number means. The first
    time on some data a small network is fitted on it (about half a minute on two cores); it is
    kept for later. `pip install 'fastgan[metrics]'` adds a general network. RUN keeps
    evaluation.json, and copies.png: samples above the real images that
    they are nearest to.
    """
    from fastgan import data as datasets
    from fastgan.metrics.evaluate import evaluate
    from fastgan.metrics.modes import count_modes
    from fastgan.monitor import pictures
    from fastgan.trainer.reuse.load import samples_of
    from fastgan.trainer.reuse.subject import Subject

    if count < 1:
        raise FastganError(f"--n {count}: ask for at least one sample")
    config = of_run(run)
    at = _measured_at(run, step, seed)
    net = _inception(weights) if weights is not None else None
    own = config.measure(run, count, seed, data, trust) if config is not None else None
    if own is not None:
        if step is not None or net is not None:
            flag = "--fid" if net is not None else "--step"
            raise FastganError(f"{flag}: this kind is measured by its own numbers: leave it out")
        found = {**at, **own.as_dict()}
        click.echo(json.dumps(found, indent=2) if as_json else str(own))
        _keep(run, {EVALUATION: _bytes(found)})
        return
    if count < 100:
        raise FastganError(f"--n {count}: distances of fewer than 100 samples say nothing")
    images, untrained = samples_of(run, count, seed=seed, step=step, trust=trust)
    _, channels, height, width = images.shape
    named = data or trained_on(files.path_of(run, "RUN"), config)
    reals = None
    if config is not None and not config.model and height == width:
        mine = dataclasses.replace(config, data=named, size=height, channels=channels)
        try:
            reals = mine.open_data()
        except FastganError:
            if data is None:
                raise  # else images without what the kind learns from: distances are left
    if reals is None:
        reals = datasets.open(named, size=(height, width), channels=channels)
    report = evaluate(images, reals, count, untrained=untrained, seed=seed, name=run)
    subject = Subject(run, reals, seed, step, trust)
    measured = config.beside_distances(subject) if config is not None and not config.model else {}
    measured |= count_modes(subject)
    found = {**at, **report.as_dict(), "measures": measured}
    if circular := config.looks_through if config is not None and report.general else "":
        found["circular"] = circular
    if net is not None:
        from fastgan.metrics.standard import standard

        inception = standard(net, images, reals, seed)
        found |= inception.as_dict()
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(str(report))
        if net is not None:
            click.echo(f"\n{inception}\n")
            click.echo(textwrap.indent(textwrap.fill(inception.protocol, 77), "  "))
        if circular:
            click.echo(f"  circular: D looked through {circular}, so only the small judge counts")
        for name, value in measured.items():
            click.echo(f"  {name}: {value:.4g}")
    kept = {EVALUATION: _bytes(found)}
    if channels in pictures.DRAWN:
        kept[COPIES] = _picture(report.worst)
    _keep(run, kept)


def _inception(weights: str) -> Any:
    """The network in `weights`, before anything else is done: on a GPU where there is one."""
    from fastgan.devices import pick_device
    from fastgan.judges import inception

    if not weights:
        raise FastganError("--fid is empty: name the file of weights, or leave it out")
    return inception.load(files.path_of(weights, "--fid")).to(pick_device("auto"))


def _measured_at(run: str, step: int | str | None, seed: int) -> dict[str, Any]:
    """What a number must be read with."""
    import fastgan
    from fastgan.machine import commit
    from fastgan.runs.run_folder import RunFolder

    checkpoints = RunFolder(run).checkpoints
    at = checkpoints.named(step) if step is not None else max(checkpoints.steps(), default=None)
    return {"step": at, "seed": seed, "fastgan": fastgan.__version__, "commit": commit()}


def _bytes(found: dict[str, Any]) -> bytes:
    return json.dumps(found, indent=1).encode()


def _picture(worst: Any) -> bytes:
    from fastgan.monitor import pictures

    target = io.BytesIO()
    pictures.save_grid(target, worst.flatten(0, 1) / 255, columns=worst.shape[1])
    return target.getvalue()


def _keep(run: str, content: dict[str, bytes]) -> None:
    """In the run's folder, where that can be written; the numbers have been shown already."""
    from fastgan.runs.run_folder import refuse_links

    folder = files.path_of(run, "RUN")
    try:
        refuse_links(folder, writing=True)
        for name, data in content.items():
            files.replace(folder / name, data)
    except FastganError as error:
        click.echo(printable(f"fastgan: {error}; nothing is kept there"), err=True)
