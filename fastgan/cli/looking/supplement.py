"""`fastgan supplement`."""

from __future__ import annotations

import json

import click

from fastgan.cli.completion import PATH
from fastgan.cli.options import of_run
from fastgan.errors import FastganError


@click.command(epilog="Example: fastgan supplement runs/cgan --labels-per-class 10,50,100")
@click.argument("run", type=PATH)
@click.option(
    "--labels-per-class",
    "few",
    default="10,50,100",
    show_default=True,
    help="real images of each class that a classifier is given, one number or several",
)
@click.option("--test", help="labelled images that RUN never saw  [default: a fifth of its own]")
@click.option("--seeds", default=5, show_default=True, help="choices of labels to average over")
@click.option(
    "--trust", is_flag=True, help="run the code that RUN names, if you know where it comes from"
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of text")
def command(run: str, few: str, test: str | None, seeds: int, trust: bool, as_json: bool) -> None:
    """Whether a classifier with few labels gains from RUN's images, which may well not be so.

    A small CNN is fitted on real images of each class alone, on these shifted at random, on these
    and 1, 3 and 10 times as many of RUN's, and on RUN's alone, and is tested on other real images.
    RUN is a run of a conditional kind (cgan, sagan, biggan-small) on labelled data.
    """
    import torch

    from fastgan import data
    from fastgan.metrics.supplement import supplement
    from fastgan.trainer.reuse.load import sample

    try:
        numbers = [int(part) for part in few.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1 or seeds < 1:
        raise FastganError(
            "--labels-per-class and --seeds are numbers of at least 1, such as "
            "--labels-per-class 10,50 --seeds 5"
        )
    config = of_run(run)
    if config is None:
        raise FastganError(f"{run} is no run of a recipe: its data are not known")
    if config.makes != "images":
        raise FastganError(f"fastgan supplement is for images, and this run makes {config.makes}")

    def opened(source: str) -> tuple[torch.Tensor, torch.Tensor, list[str], str]:
        found = data.open(source, size=size, channels=channels)
        if "label" not in found.fields or not found.classes:
            raise FastganError(f"{source} has no labels: put each class into a folder of its own")
        pixels = torch.from_numpy(found.array("image").copy()).permute(0, 3, 1, 2)
        labels = torch.from_numpy(found.array("label").copy())
        return pixels.float() / 255, labels, found.classes, found.fingerprint

    def generated(labels: torch.Tensor, seed: int) -> torch.Tensor:
        return sample(run, len(labels), seed=seed, labels=labels, trust=trust)

    _, channels, size, _ = generated(torch.tensor([0]), 0).shape
    images, labels, classes, seen = opened(config.data)
    if test is not None:
        held_out = opened(test)
        if held_out[3] == seen:
            raise FastganError(f"--test {test} is what RUN was trained on: name other images")
        if held_out[2] != classes:
            raise FastganError(f"{test} has other classes than {config.data}")
        note = f"RUN saw {len(images):,} images, the labelled ones among them, and none of --test"
    else:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        apart, rest = order[: len(order) // 5], order[len(order) // 5 :]
        held_out = images[apart], labels[apart], classes, ""
        images, labels = images[rest], labels[rest]
        note = (
            f"RUN saw all {len(order):,} images with their labels, test images too: what it adds "
            "is an upper bound; --test DATA takes others"
        )
    found = supplement(images, labels, held_out[:2], generated, numbers, seeds, note)
    click.echo(json.dumps(found.as_dict(), indent=2) if as_json else str(found))
