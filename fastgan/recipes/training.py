"""From a recipe's options to a Trainer."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from fastgan import files
from fastgan.data.opening import BUNDLED
from fastgan.errors import FastganError
from fastgan.recipes import Config, ImageSpec
from fastgan.recipes.config import as_dict, fields_of

if TYPE_CHECKING:
    from fastgan.data import Dataset
    from fastgan.trainer.stages.stage import Stage
    from fastgan.trainer.trainer import Trainer


def built_in(config: Config) -> bool:
    """Whether the data are named, not lying somewhere: bundled, rendered, or the recipe's own."""
    from fastgan.data.rendered import RENDERED

    own = fields_of(type(config))["data"].default
    return config.data in (own, BUNDLED, *RENDERED, *config.generated)


def recorded(config: Config) -> dict[str, Any]:
    """The options as they stand in the run folder, which is read from other folders: paths are
    absolute."""
    values = as_dict(config)
    for name in ("data", "out"):
        if isinstance(values[name], str) and (name == "out" or not built_in(config)):
            values[name] = files.recorded(values[name])
    return values


def still_there(config: Config, run: str) -> None:
    """Raises FastganError where the data that a run goes on with are not where they were."""
    if (
        isinstance(config.data, str)
        and not built_in(config)
        and files.kind(files.path_of(config.data)) is None
    ):
        raise moved(config.data, run, config.makes)


def moved(data: str, run: object, things: str = "images") -> FastganError:
    """Of the data of a run that are not where they were."""
    return FastganError(
        f"{run} was trained on {data}, where nothing is now: say where the {things} are, "
        "with --data"
    )


def augmented(stages: list[Stage], config: Config) -> list[Stage]:
    """The recipe's stages with the augmentation of the options in those that have a discriminator
    to show it to. Raises FastganError where none has."""
    from fastgan.objectives.augmentation import Augmented

    if config.augment == "none" and config.augment_p is None:
        return stages
    if not any(isinstance(stage.objective, Augmented) for stage in stages):
        raise FastganError(
            f"--augment: {type(stages[-1].objective).__name__} shows its discriminator nothing "
            "augmented; derive it from fastgan.objectives.augmentation.Augmented"
        )
    wish: dict[str, Any] = {"augment": config.augment, "augment_p": config.augment_p}
    return [
        dataclasses.replace(stage, objective=dataclasses.replace(stage.objective, **wish))
        if isinstance(stage.objective, Augmented)
        else stage
        for stage in stages
    ]


def make_trainer(
    config: Config,
    *,
    resume: bool,
    log: str | None,
    out: str | None,
    from_step: int | str | None = None,
) -> Trainer:
    """The trainer of a configuration: data first, because the networks depend on their size,
    channels and classes. from_step: as for `Trainer`."""
    from fastgan.devices import pick_device
    from fastgan.distributed.context import join, local_device
    from fastgan.trainer.run_options import RunOptions
    from fastgan.trainer.trainer import Trainer

    with join(
        pick_device(local_device(config.device))
    ).together():  # first, so that a failure from here on ends all processes
        if resume:
            still_there(config, str(out))
        streams = config.streams()
        dataset = streams["image"]
        shape = dataset.fields["image"].shape
        drawn = dataset.fields["image"].kind == "image"
        if not drawn:
            shape = (math.prod(shape), math.prod(shape), 1)
        if shape[0] != shape[1]:
            raise FastganError(
                f"the images of {config.data} are {shape[0]}x{shape[1]}: give --size to make them "
                "square"
            )
        source = dataset.fields.get("source") or (
            streams["source"].fields["image"] if "source" in streams else None
        )
        # recorded for those who open the data again, unless sources have another number of channels
        channels = shape[2] if not source or source.shape[2] == shape[2] else config.channels
        config = config.settled()
        if drawn:
            config = dataclasses.replace(config, size=shape[0], channels=channels)
        images = ImageSpec(
            size=shape[0],
            channels=shape[2],
            classes=next((len(part.classes) for part in streams.values() if part.classes), 0),
            source_channels=source.shape[2] if source else 0,
            words=tuple(getattr(dataset, "words", ())),
            captions=tuple(getattr(dataset, "captions", ())),
            data=None if drawn else dataset,
        )
        chosen = config

        def arguments_of(changed: Config) -> dict[str, Any]:
            """What a trainer is given of a configuration."""
            return {
                "stages": stages_of(changed, images, dataset),
                "config": recorded(changed),
                **dataclasses.asdict(RunOptions.of(vars(changed))),
            }

        if chosen.init_from is not None:  # whoever goes on from another folder finds it, too
            chosen = dataclasses.replace(chosen, init_from=files.recorded(chosen.init_from))
        given = arguments_of(chosen)
    trainer = Trainer(
        data=streams,
        out=out,
        resume=resume,
        from_step=from_step,
        init_from=chosen.init_from,
        reschedule=resume,  # the command line lets through what may change
        log=log,
        **given,
    )
    trainer.remake = lambda changes: arguments_of(dataclasses.replace(chosen, **changes))
    return trainer


def stages_of(config: Config, images: ImageSpec, dataset: Dataset) -> list[Stage]:
    """Networks, objectives and optimisers of a configuration. Raises FastganError."""
    import torch

    from fastgan.devices import is_out_of_memory
    from fastgan.runs.transfer import freeze_first
    from fastgan.trainer.stages.stage import Stage

    with torch.random.fork_rng([]):
        torch.manual_seed(config.seed)
        try:
            built = config.build(images)
        except FastganError as error:
            if images.classes or "label" not in dataset.fields:
                raise
            raise FastganError(f"{error} (the data have {dataset.labels_found()})") from error
        except (ValueError, OverflowError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            why = "there is not the memory for such networks"
            why = str(error) if isinstance(error, ValueError) else why
            raise FastganError(f"recipe {config.recipe} can't be built: {why}") from error
    if config.freeze_d:
        if "D" not in built.nets:
            raise FastganError("--freeze-d: there is no network D")
        freeze_first(built.nets["D"], config.freeze_d)
    stages = [*built.stages]
    if built.objective is not None:
        stages.append(
            Stage(
                built.nets,
                built.objective,
                optimizers=built.optimizers,
                schedules=built.schedules,
                ema=built.ema,
            )
        )
    return augmented(stages, config)
