"""From a recipe's options to a Trainer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from fastgan import files
from fastgan.data.opening import BUNDLED
from fastgan.errors import FastganError
from fastgan.recipes import Config, ImageSpec
from fastgan.recipes.config import AugmentingConfig, as_dict, fields_of

if TYPE_CHECKING:
    from fastgan.objectives import Objective
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
        raise FastganError(
            f"{run} was trained on {config.data}, where nothing is now: say where the images are, "
            "with --data"
        )


def augmented(objective: Objective, config: Config) -> Objective:
    """The recipe's objective with the augmentation of the options, if it has such options."""
    from fastgan.objectives import Adversarial

    if not isinstance(config, AugmentingConfig) or not isinstance(objective, Adversarial):
        return objective
    if config.augment == "none" and config.augment_p is None:
        return objective
    return dataclasses.replace(objective, augment=config.augment, augment_p=config.augment_p)


def make_trainer(config: Config, *, resume: bool, log: str | None, out: str | None) -> Trainer:
    """The trainer of a configuration: data first, because the networks depend on their size,
    channels and classes."""
    import torch

    from fastgan.devices import is_out_of_memory, pick_device
    from fastgan.distributed.context import join, local_device
    from fastgan.runs.transfer import freeze_first
    from fastgan.trainer.run_options import RunOptions
    from fastgan.trainer.stages.stage import Stage
    from fastgan.trainer.trainer import Trainer

    with join(
        pick_device(local_device(config.device))
    ).together():  # first, so that a failure from here on ends all processes
        if resume:
            still_there(config, str(out))
        streams = config.streams()
        dataset = streams["image"]
        shape = dataset.fields["image"].shape
        if shape[0] != shape[1]:
            raise FastganError(
                f"the images of {config.data} are {shape[0]}x{shape[1]}: give --size to make them "
                "square"
            )
        config = dataclasses.replace(config.settled(), size=shape[0], channels=shape[2])
        source = dataset.fields.get("source") or (
            streams["source"].fields["image"] if "source" in streams else None
        )
        images = ImageSpec(
            size=shape[0],
            channels=shape[2],
            classes=next((len(part.classes) for part in streams.values() if part.classes), 0),
            source_channels=source.shape[2] if source else 0,
            words=tuple(getattr(dataset, "words", ())),
            captions=tuple(getattr(dataset, "captions", ())),
        )
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
        if config.init_from is not None:  # whoever goes on from another folder finds it, too
            config = dataclasses.replace(config, init_from=files.recorded(config.init_from))
    stages = [
        dataclasses.replace(stage, objective=augmented(stage.objective, config))
        for stage in built.stages
    ]
    if built.objective is not None:
        stages.append(
            Stage(
                built.nets,
                augmented(built.objective, config),
                optimizers=built.optimizers,
                schedules=built.schedules,
                ema=built.ema,
            )
        )
    return Trainer(
        stages=stages,
        data=streams,
        out=out,
        resume=resume,
        init_from=config.init_from,
        reschedule=resume,  # the command line lets through what may change
        **dataclasses.asdict(RunOptions.of(vars(config))),
        config=recorded(config),
        log=log,
    )
