"""What all recipes share: their options (torch-free, so that help is fast) and what a recipe
builds."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from fastgan.errors import FastganError
from fastgan.trainer.run_options import RunOptions, checked, run_option
from fastgan.trainer.run_options import option as option  # recipes take it from here

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn

    from fastgan.data import Dataset
    from fastgan.objectives import Objective
    from fastgan.trainer.reuse.subject import Subject
    from fastgan.trainer.stages.stage import Stage


@dataclass(frozen=True)
class ImageSpec:
    """What a recipe must know of the data: side in pixels, channels, number of classes (0 without
    labels), channels of the images that its generator is given (0 without such); where images have
    captions, the words they are made of and all captions. Where samples are no images: numbers in
    one (size), and the data set itself."""

    size: int
    channels: int
    classes: int = 0
    source_channels: int = 0
    words: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    data: Dataset | None = None


@dataclass
class RecipeParts:
    """What a recipe builds: networks by name, objective, optimiser factories and schedules by
    network; or the stages of one that trains several sets of networks in turn."""

    nets: dict[str, nn.Module] = field(default_factory=dict)
    objective: Objective | None = None
    optimizers: dict[str, Callable] = field(default_factory=dict)
    schedules: dict[str, dict[str, Callable[[int], float]]] = field(default_factory=dict)
    ema: tuple[str, ...] = ("G",)
    stages: Sequence[Stage] = ()


@dataclass(frozen=True, kw_only=True)
class Config(RunOptions):
    """The options of every recipe: those of a run, its data and length. A recipe adds its own and
    `build`."""

    recipe: ClassVar[str]
    summary: ClassVar[str]
    generated: ClassVar[tuple[str, ...]] = ()
    """Values of --data that are no files: the recipe draws such images itself."""
    makes: ClassVar[str] = "images"
    """What its samples are, in the plural."""
    without: ClassVar[tuple[str, ...]] = ()
    """Options of every recipe that mean nothing to what this one makes: it has them not."""
    films: ClassVar[bool] = False
    """Whether what it makes goes on in time, so that `film` shows it."""
    looks_through: ClassVar[str] = ""
    """The judge of `fastgan evaluate` that training sees through; what it says is circular."""

    data: str = run_option(
        "fashion-mnist",
        "folder, .zip, .npz, .npy or idx file of images, or fashion-mnist (bundled)",
    )
    size: int | None = run_option(
        None, "side of the images in pixels; default: what the data have, or the recipe's"
    )
    channels: int | None = run_option(None, "1 (grey) or 3 (colour); default: what the data have")
    steps: int = run_option(20_000, "updates of the generator")
    out: str | None = run_option(None, "run folder; default: runs/<recipe>")
    init_from: str | None = run_option(
        None, "begin with the weights of that run, checkpoint or folder, where layers fit"
    )
    freeze_d: int = run_option(0, "first layers of the discriminator that are not trained")
    augment: str = run_option(
        "none",
        "change reals and fakes alike before D sees them, for few images: "
        "color,translation,cutout or a part of it (DiffAugment), or ada",
    )
    augment_p: float | None = run_option(
        None, "strength of --augment ada in [0, 1]; default: it follows how D overfits", most=1
    )
    log: str = run_option(
        "none",
        "also log there (installed by the extra of that name)",
        choices=("none", "tensorboard", "wandb", "mlflow"),
    )
    model: str | None = run_option(
        None, "pkg.mod:build, a function that returns your own (generator, discriminator)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.without:
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise FastganError(without(type(self), name))

    def build(self, images: ImageSpec) -> RecipeParts:
        """Networks, objective and optimisers for these images. Raises FastganError where they do
        not fit."""
        raise NotImplementedError

    def check_labels(self, images: ImageSpec, instead: str) -> None:
        """Raises FastganError for images without labels. instead: a recipe that needs none."""
        if not images.classes:
            raise FastganError(
                f"recipe {self.recipe} needs labels: put the images of each class into a folder of "
                f"its own, or use --recipe {instead}"
            )

    def check_no_model(self) -> None:
        """Raises FastganError where the networks are to be somebody's own."""
        if self.model:
            raise FastganError(
                f"recipe {self.recipe} trains its own networks: use --model with --recipe dcgan"
            )

    def open_data(self) -> Dataset:
        """The data set of --data, as the recipe's networks are to see it. Raises FastganError."""
        from fastgan import data

        size, channels = self.defaults_for()
        return data.open(self.data, size=size, channels=channels, strict=self.strict)

    def streams(self, held_out: bool = False) -> dict[str, Dataset]:
        """The data by stream name; held_out: those that training never sees, for a recipe that
        keeps some."""
        return {"image": self.open_data()}

    def settled(self) -> Self:
        """These options with those filled in that follow from others."""
        return self

    def measure(self, run: str, n: int, seed: int, data: str | None, trust: bool) -> Any:
        """The kind's own measure of a run (`as_dict`, and a text by `str`) beside its baseline;
        None where images are compared as sets.

        data: other held-out data. Raises FastganError.
        """
        return None

    def film(
        self,
        run: str,
        n: int,
        given: str | None,
        data: str | None,
        size: int | None,
        options: Mapping[str, Any],
    ) -> tuple[Sequence[Image], str]:
        """What `fastgan sample --out x.gif` shows of a run, frames of one size, and a line about
        them, for a recipe that `films`.

        n: the most cells. given, data, size: of --input, --data and --size. options: of
        `fastgan.trainer.reuse.load.walk`. Raises FastganError.
        """
        raise NotImplementedError

    def beside_distances(self, subject: Subject) -> dict[str, float]:
        """What `fastgan evaluate` tells of a run besides the distances of sets: name -> number."""
        return {}

    def defaults_for(self) -> tuple[int | None, int | None]:
        """(size, channels) to ask of the data where neither the user nor the recipe's networks
        care."""
        return self.size, self.channels


def fields_of(config: type[Config]) -> dict[str, dataclasses.Field]:
    """By name: data and length first, then how a run is computed; those that it has not left
    out."""
    shared = RunOptions.__dataclass_fields__
    fields = sorted(dataclasses.fields(config), key=lambda f: f.name in shared)
    return {f.name: f for f in fields if f.name not in config.without}


def without(config: type[Config], name: str) -> str:
    """Why a recipe does not take an option that others have."""
    return (
        f"--{name.replace('_', '-')} is for recipes that make images, and {config.recipe} makes "
        f"{config.makes}: leave it out"
    )


def merge(config: type[Config], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check names and types of options that come from a file. Raises FastganError naming the
    nearest known option."""
    known = fields_of(config)
    given = {}
    for name, value in values.items():
        key = name.replace("-", "_")
        if key in config.without:
            raise FastganError(f"{where}: {without(config, key)}")
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5)
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else f"the options of {config.recipe} are: {', '.join(known)}"
            )
            raise FastganError(f"{where}: unknown option {name!r}; {hint}")
        given[key] = checked(config, key, value, f"{where}: {name}")
    return given


def load_networks(name: str, images: ImageSpec, latent: int) -> dict[str, nn.Module]:
    """Somebody's own networks from "pkg.mod:build": called with those of size, channels, classes
    and latent that it takes; returns (G, D) or a dict.
    """
    import inspect
    import os
    import traceback

    from fastgan.runs import imports

    module, _, function = name.partition(":")
    if not module or not function:
        raise FastganError(f"--model {name}: write it as pkg.mod:build")
    try:
        build = imports.find(name)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise FastganError(f"--model {name}: {error}") from error
    offered = {
        "size": images.size,
        "channels": images.channels,
        "classes": images.classes,
        "latent": latent,
    }
    parameters = inspect.signature(build).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    try:
        made = build(
            **{key: value for key, value in offered.items() if takes_all or key in parameters}
        )
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(line.filename)} line {line.lineno}"
        why = " ".join(str(error).split())
        raise FastganError(
            f"--model {name} failed: {type(error).__name__}: {why} ({where})"
        ) from error
    if isinstance(made, tuple) and len(made) == 2:
        return {"G": made[0], "D": made[1]}
    if isinstance(made, dict):
        return made
    raise FastganError(
        f"--model {name} returned {type(made).__name__}: return (generator, discriminator), or a "
        "dict of networks"
    )


def as_dict(config: Config) -> dict[str, Any]:
    return {
        "recipe": config.recipe,
        **{name: getattr(config, name) for name in fields_of(type(config))},
    }
