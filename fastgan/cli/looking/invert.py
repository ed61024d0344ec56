"""`fastgan invert`."""

from __future__ import annotations

import click

from fastgan import arguments
from fastgan.cli.completion import PATH
from fastgan.cli.options import step_option
from fastgan.files import path_of


@click.command(epilog="Example: fastgan invert runs/mine photo.png --out inverted.png")
@click.argument("run", type=PATH)
@click.argument("photo", type=PATH)
@click.option(
    "--out", default="inverted.png", show_default=True, help="a picture (.png, .jpg, .webp)"
)
@click.option(
    "--steps", type=click.IntRange(1, 100_000), default=300, show_default=True, help="of descent"
)
@click.option("--seed", type=int, default=0, show_default=True, help="of the first latents")
@click.option("--label", help="a class, by name or number  [default: the one that fits best]")
@click.option("--save-latent", metavar="FILE", help="keep the latent, as .safetensors")
@step_option
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--trust", is_flag=True, help="run the code that RUN names, if you know where it comes from"
)
def command(
    run: str,
    photo: str,
    out: str,
    steps: int,
    seed: int,
    label: str | None,
    save_latent: str | None,
    step: int | str | None,
    device: str,
    trust: bool,
) -> None:
    """Find the latent whose image is nearest to PHOTO, and show the two side by side.

    What RUN can't make, it can't find: the reconstruction says what it has learned of such photos.
    """
    import torch
    from tqdm import tqdm

    from fastgan import files
    from fastgan.latent.inversion import invert
    from fastgan.monitor.pictures import ending_of, formats
    from fastgan.runs.checkpoint import pack
    from fastgan.runs.run_folder import refuse_own
    from fastgan.trainer.reuse.restoring import class_numbers, open_run

    path = path_of(out, "--out")
    kept = path_of(save_latent, "--save-latent") if save_latent is not None else None
    for target in filter(None, (path, kept)):
        refuse_own(target)
    ending_of(path)
    if kept is not None:
        formats.ending(kept, (".safetensors",))
    arguments.whole(seed, "--seed", 0, 2**32 - 1)
    opened = open_run(run, step=step, device=device, trust=trust)
    opened.objective.medium.only_images("fastgan invert")
    number = None
    if label is not None:
        number = int(class_numbers(label, 1, opened.classes, run)[0])
    shape = opened.images(1).shape[1:]
    image = formats.open_photo(path_of(photo, "PHOTO"), tuple(shape))
    with tqdm(total=steps, disable=None, leave=False, unit="step") as bar:
        found = invert(
            opened, image, steps=steps, seed=seed, label=number, tell=lambda _: bar.update()
        )
    names = ["photo", "reconstruction"]
    if found.label is not None and opened.classes:
        names[1] = opened.classes[found.label]
    picture = formats.labelled_grid(torch.stack([image, found.image]), names, columns=2, scale=None)
    formats.save_still(picture, path)
    if kept is not None:
        formats.make_parent(kept)
        files.replace(kept, pack(found.latents))
    how = "features of D and a pyramid" if found.features else "a pyramid of sizes"
    click.echo(f"L1 {found.l1:.4f} of 1 after {steps} steps, by {how}: {path}")
