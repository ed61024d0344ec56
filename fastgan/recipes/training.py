"""From a recipe's options to a Trainer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fastgan.errors import FastganError
from fastgan.recipes import Config, ImageSpec
from fastgan.recipes.config import as_dict

if TYPE_CHECKING:
    from fastgan.trainer.trainer import Trainer


def make_trainer(config: Config, *, resume: bool, log: str | None, out: str | None) -> Trainer:
    """The trainer of a configuration: data first, because the networks depend on their size,
    channels and classes."""
    import torch

    from fastgan import data
    from fastgan.devices import pick_device
    from fastgan.distributed.context import join, local_device
    from fastgan.trainer.run_options import RunOptions
    from fastgan.trainer.stages.stage import Stage
    from fastgan.trainer.trainer import Trainer

    with join(
        pick_device(local_device(config.device))
    ).together():  # first, so that a failure from here on ends all processes
        size, channels = config.defaults_for()
        dataset = data.open(config.data, size=size, channels=channels, strict=config.strict)
        shape = dataset.fields["image"].shape
        if shape[0] != shape[1]:
            raise FastganError(
                f"the images of {config.data} are {shape[0]}x{shape[1]}: give --size to make them "
                "square"
            )
        config = dataclasses.replace(config, size=shape[0], channels=shape[2])
        images = ImageSpec(size=shape[0], channels=shape[2], classes=len(dataset.classes or ()))
        with torch.random.fork_rng([]):
            torch.manual_seed(config.seed)
            try:
                built = config.build(images)
            except ValueError as error:
                raise FastganError(f"recipe {config.recipe} can't be built: {error}") from error
    stage = Stage(
        built.nets,
        built.objective,
        optimizers=built.optimizers,
        schedules=built.schedules,
        ema=built.ema,
    )
    return Trainer(
        stages=[stage],
        data=dataset,
        out=out,
        resume=resume,
        reschedule=resume,  # by the command line --steps and --lr alone can change them
        **dataclasses.asdict(RunOptions.of(vars(config))),
        config=as_dict(config),
        log=log,
    )
