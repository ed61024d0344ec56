"""`fastgan sample`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastgan.cli.completion import PATH
from fastgan.cli.options import of_run, step_option
from fastgan.errors import FastganError
from fastgan.recipes.translation.base import FromImage

if TYPE_CHECKING:
    from fastgan.objectives.medium import Medium
    from fastgan.recipes.config import Config

MOST = 10_000
"""Seeds of one command."""

FILMS, FPS = (".gif", ".mp4"), 8.0
"""Endings that are films where the run's kind makes such, and their frames a second."""

FILMED, MOST_FILMED = 16, 256
"""Cells of a film: where nothing is asked, and at most."""

HIGHEST, LARGEST = 4096, 2**26
"""Pixels: the height of one image, and all images of one picture together."""


@click.command(
    epilog="Example: fastgan sample runs/mine --seeds 1,5-9 --truncation 0.7 --label sneaker "
    "--label 3 --size 256 --out grid.png"
)
@click.argument("run", type=PATH)
@click.option("--n", "count", type=int, help="how many images  [default: 64]")
@click.option(
    "--out",
    help="a picture of them all (.png, .jpg or .webp), or a folder (ends in /) for one file each; "
    "clips that go on: a film (.gif, or .mp4 where ffmpeg is); rows: a .csv file; sounds: a .wav "
    "file or a folder; strings: a .txt or .smi file  [default: "
    "samples.png, rows.csv, voice.wav, strings.txt]",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="other seeds give other images"
)
@click.option("--seeds", help="the first image of each of these seeds, such as 1,5-9")
@click.option(
    "--label",
    "labels",
    multiple=True,
    help="only this class, by name or number; several take turns",
)
@click.option(
    "--truncation",
    type=float,
    metavar="NUMBER",
    help="cut latents at so many standard deviations, such as 0.7: better images, more alike",
)
@click.option(
    "--size",
    type=int,
    metavar="PIXELS",
    help="height of each image as it is written, scaled from what the generator makes",
)
@click.option(
    "--text",
    multiple=True,
    help="a caption, for text-to-image runs; several take turns  [default: some of the data]",
)
@click.option(
    "--traverse",
    metavar="NAME",
    help="10 x 10 images: along a row this input of the generator changes alone, such as class or "
    "codes.0 of infogan, z.0 of others",
)
@step_option
@click.option("--data", help="what a generator of images from images is given")
@click.option(
    "--input",
    "given",
    help="an image or a folder of them, for a generator of images from images; for video clips",
)
@click.option("--mask", help="with --input, for inpainting: white is what to fill in")
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--trust", is_flag=True, help="run the code that RUN names, if you know where it comes from"
)
def command(
    run: str,
    count: int | None,
    out: str | None,
    seed: int,
    seeds: str | None,
    labels: tuple[str, ...],
    truncation: float | None,
    size: int | None,
    text: tuple[str, ...],
    traverse: str | None,
    step: int | str | None,
    data: str | None,
    given: str | None,
    mask: str | None,
    device: str,
    trust: bool,
) -> None:
    """Make images from RUN's averaged generator.

    Where it makes images from images, a picture shows input, output and, where there is one, the
    target side by side; a folder gets the outputs alone, under the names of --input.
    """
    from fastgan import files
    from fastgan.monitor import pictures
    from fastgan.monitor.pictures import formats
    from fastgan.runs.run_folder import read_facts, refuse_own
    from fastgan.trainer.reuse import load
    from fastgan.trainer.reuse.traversal import traverse as traverse_run

    for name, value in {"data": data, "input": given, "mask": mask}.items():
        if value == "":
            raise FastganError(f"--{name} is empty: name a folder or file, or leave it out")
    if seeds is not None and count is not None:
        raise FastganError("--seeds says how many images: leave --n out")
    chosen = None if seeds is None else seeds_of(seeds)
    medium = load.medium_of(run, trust=trust)
    out = medium.out if out is None else out
    path = files.path_of(out, "--out")
    refuse_own(path)
    into_folder = out.endswith("/") or files.kind(path) == "folder"
    common: dict[str, Any] = {"step": step, "device": device, "trust": trust}
    if not into_folder and (kind := filming(run, path)) is not None:
        refused = (labels, seeds, text, traverse, truncation, mask)
        film(kind, run, path, count, given, data, size, {"seed": seed, **common}, refused)
        return
    if not into_folder:
        check_ending(out, path, medium)
    if chosen is not None and labels:  # every seed in every class
        chosen, labels = [s for s in chosen for _ in labels], labels * len(chosen)
    n = len(chosen) if chosen is not None else 64 if count is None else count
    if n < 1:
        raise FastganError(f"--n {n}: ask for at least one")
    if not medium.drawn_by_pixel:
        for flag, used in {
            "--size": size is not None,
            "--text": bool(text),
            "--traverse": traverse is not None,
            "--data": data is not None,
            "--input": given is not None,
            "--mask": mask is not None,
        }.items():
            if used:
                medium.only_images(flag)
        if into_folder and not medium.single:
            raise FastganError(f"--out {out}: {medium.noun} go into one file, such as {medium.out}")
    scale = None if size is None else 1
    check_size(size, 100 if traverse is not None else n, into_folder)
    config = of_run(run)
    if isinstance(config, FromImage) and data is None:
        datasets = (
            config.inputs(run, given, mask) if given is not None else config.streams(held_out=True)
        )
        if len(labels) > 1 or chosen is not None or truncation is not None:
            raise FastganError("images from images take one --label, --seed, and no --truncation")
        options = {"seed": seed, "label": labels[0] if labels else None, **common}
        made, shown = translated(run, datasets, n if given is None else None, options, size)
        names = next(iter(datasets.values())).names if given is not None else None
        save(out, path, made, lambda: pictures.grid(shown, scale=scale), names, size)
        return
    if given is not None or mask is not None:
        raise FastganError(f"{run} makes images from nothing but noise: leave --input out")
    if traverse is not None:
        if labels or data is not None or text or chosen is not None or truncation is not None:
            raise FastganError("--traverse stands alone: leave labels, seeds, data and text out")
        images = traverse_run(run, traverse, seed=seed, **common)
        save(out, path, images, lambda: pictures.grid(sized(images, size), scale=scale), None, size)
        return
    turns: Any = [labels[i % len(labels)] for i in range(n)] if labels else None
    images = load.sample(
        run,
        n,
        seed=None if chosen is not None else seed,
        labels=turns,
        data=data,
        text=text,
        seeds=chosen,
        truncation=truncation,
        **common,
    )
    if not medium.drawn_by_pixel:
        return write(medium, images, path, into_folder)
    facts = read_facts(files.path_of(run, "RUN"))
    captions, columns = captions_of(n, facts, turns, chosen) if data is None else ([], None)

    def picture() -> Any:
        cells = sized(images, size)
        if captions:
            return formats.labelled_grid(cells, captions, columns=columns, scale=scale)
        return pictures.grid(cells, scale=scale)

    save(out, path, images, picture, None, size)


def write(medium: Medium, samples: Any, path: Path, into_folder: bool) -> None:
    """Samples that are no images: a file of them all, a folder with one each, or a picture."""
    from fastgan import files
    from fastgan.monitor import pictures
    from fastgan.monitor.pictures import formats

    formats.make_parent(path)
    if into_folder:
        for i, one in enumerate(samples):
            file = path / f"{i:06d}{medium.single}"
            formats.make_parent(file)
            files.replace(file, medium.encode(one[None], medium.single))
    elif path.suffix.lower() in medium.endings:
        files.replace(path, medium.encode(samples, path.suffix.lower()))
    else:
        formats.save_still(pictures.grid(medium.picture(samples)), path)
    click.echo(f"{len(samples):,} {medium.noun} in {path}{'/' * into_folder}")


def check_ending(out: str, path: Path, medium: Medium) -> None:
    """Raises FastganError for the name of a file that can't hold the samples."""
    from fastgan.monitor import pictures

    ending = path.suffix.lower()
    if medium.endings and ending not in (*medium.endings, *pictures.FORMATS):
        known = ", ".join(medium.endings)
        raise FastganError(f"--out {out}: name it {known}, or .png for a picture of them")
    if ending not in medium.endings:
        pictures.ending_of(path)


def filming(run: str, path: Path) -> Config | None:
    """The configuration of a run that makes films, where the path is one's."""
    config = of_run(run) if path.suffix.lower() in FILMS else None
    return config if config is not None and config.films else None


def film(
    config: Config,
    run: str,
    path: Path,
    count: int | None,
    given: str | None,
    data: str | None,
    size: int | None,
    options: dict[str, Any],
    refused: Sequence[Any],
) -> None:
    """Write the film of a run. refused: values of options that mean nothing to it."""
    from fastgan.monitor.pictures import animation

    if any(value not in (None, ()) for value in refused):
        raise FastganError("a film takes --n, --input, --data, --seed and --size alone")
    n = FILMED if count is None else count
    if not 1 <= n <= MOST_FILMED:
        raise FastganError(f"--n {n}: from 1 to {MOST_FILMED} cells of a film")
    check_size(size, 2 * n, False)
    animation.check_moving(path)
    frames, line = config.film(run, n, given, data, size, options)
    animation.save_moving(frames, path, fps=FPS, hold=1.0)
    click.echo(f"{line}: {path}")


def check_size(size: int | None, count: int, into_folder: bool) -> None:
    """Raises FastganError for a size at which images can't be written."""
    if size is None:
        return
    if not 1 <= size <= HIGHEST:
        raise FastganError(f"--size {size}: from 1 to {HIGHEST} pixels")
    if not into_folder and count * size**2 > LARGEST:
        raise FastganError(
            f"--size {size}: {count} images of that size are too much for one picture: ask for "
            "fewer, or for one file each with an --out that ends in /"
        )


def sized(images: Any, size: int | None) -> Any:
    from fastgan.monitor import pictures

    return images if size is None else pictures.resized(images, size)


def translated(
    run: str, datasets: dict[str, Any], count: int | None, options: dict[str, Any], size: int | None
) -> tuple[Any, Any]:
    """(outputs, what a picture shows at that size) for the first samples of the data, in [0, 1]."""
    import torch

    from fastgan.data.dataset import left_out
    from fastgan.metrics.fidelity import head
    from fastgan.trainer.reuse.load import walk
    from fastgan.trainer.sampling import beside

    def panel(images: Any) -> Any:
        if size is None:
            return images
        scaled = sized(images.float().cpu().add(1).div(2), size)
        return torch.from_numpy(scaled).float().div(127.5).sub(1)

    for part in datasets.values():
        if count is None and part.skipped:  # what was given; of held-out data training has told it
            click.echo(left_out(part.skipped), err=True)
    made, shown = [], []
    for step, images in walk(run, head(datasets, count) if count else datasets, **options):
        made.append(images.float().cpu())
        shown.append(beside([panel(each) for each in step.panels(images)]).cpu())
    both = (torch.cat(part).add(1).div(2).clamp(0, 1) for part in (made, shown))
    return next(both), next(both)


def save(
    out: str,
    path: Path,
    images: Any,
    picture: Callable[[], Any],
    names: Sequence[str] | None,
    size: int | None,
) -> None:
    """The picture, or a folder of the images, each of that size."""
    from fastgan import files
    from fastgan.data.listing import stem
    from fastgan.monitor import pictures
    from fastgan.monitor.pictures import formats

    if out.endswith("/") or files.kind(path) == "folder":
        for i, image in enumerate(images):
            file = path / (f"{stem(names[i])}.png" if names else f"{i:06d}.png")
            formats.save_still(pictures.still(sized(image[None], size)[0]), file)
        click.echo(f"{len(images)} images in {path}/")
        return
    formats.save_still(picture(), path)
    click.echo(f"{len(images)} images in {path}")


def seeds_of(text: str, option: str = "--seeds") -> list[int]:
    """The numbers of "1,5-9". Raises FastganError."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise FastganError(f"{option} {text!r}: give numbers and ranges, such as 1,5-9")
        low, high = int(first), int(last or first)
        if high < low:
            raise FastganError(f"{option} {text!r}: {part.strip()} goes backwards")
        if len(found) + high - low >= MOST:
            raise FastganError(f"{option} {text!r}: more than {MOST} numbers, ask for fewer")
        found += range(low, high + 1)
    return found


def captions_of(
    n: int, facts: dict[str, Any], turns: Any, seeds: list[int] | None
) -> tuple[list[str], int | None]:
    """Captions of a grid of n samples and its columns: classes above the columns where they come
    in turn, the seed above each image where seeds were chosen. ([], None): nothing to say."""
    from fastgan.trainer.reuse.restoring import class_number

    classes = facts["classes"]
    if classes:
        in_turn = [name for i, name in enumerate(classes) if i not in facts.get("empty", ())]
        names = [*dict.fromkeys(turns)] if turns is not None else in_turn
        numbers = [class_number(label, classes) for label in names]
        shown = [classes[number] for number in numbers if number is not None]
        if seeds is None:
            return (shown[:n], min(n, len(shown))) if len(shown) <= 20 and n else ([], None)
        wide = len(shown) if turns is not None else None
        of_image = [shown[i % len(shown)] for i in range(n)]
        return [f"{seed} {label}" for seed, label in zip(seeds, of_image)], wide
    return ([f"seed {seed}" for seed in seeds], None) if seeds is not None else ([], None)
