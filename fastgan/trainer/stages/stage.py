"""A stretch of training with one set of networks: what it is, and its data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from fastgan import arguments
from fastgan.data import Dataset
from fastgan.data import open as open_data
from fastgan.errors import FastganError
from fastgan.objectives import Objective
from fastgan.trainer.optimization.optimizers import OptimizerSpec, Schedule
from fastgan.trainer.optimization.scheduled_options import checked_schedules


@dataclass
class Stage:
    """One stretch of training: a pyramid level, a resolution, a warm-up.

    Stages follow each other, each with its own networks, objective and data. What is None here is
    the trainer's.

    Args:
        nets: Networks by name, and those that the objective brings. A module object that stands in
            two stages keeps its weights.
        objective: What is trained against what.
        steps: How long this stage lasts. Only the last one may leave it open.
        data: What `fastgan.data.open` takes, or a dict of such sources by stream name.
        batch_size: The real images of one step.
        size: The side in pixels that images are scaled and cut to.
        channels: 1, 3 or 4 channels.
        optimizers: A function from parameters to an optimiser, for all networks or by name.
        schedules: `{"G": {"lr": fn}}`, where fn maps a step of this stage to a value.
        ema: The names of averaged networks.
        carry: A function of (nets of the stage before, nets of this one) that copies weights. It is
            called once, when this stage begins.

    Example:
        >>> from torch import nn
        >>> import fastgan
        >>> def nets(side):
        ...     G = nn.Sequential(nn.Linear(8, side**2), nn.Unflatten(1, (1, side, side)))
        ...     return {"G": G, "D": nn.Sequential(nn.Flatten(), nn.Linear(side**2, 1))}
        >>> objective = fastgan.Adversarial(latent_shape=(8,))
        >>> stages = [fastgan.Stage(nets(4), objective, steps=2, size=4)]
        >>> stages += [fastgan.Stage(nets(8), objective, size=8)]
        >>> trainer = fastgan.Trainer(stages=stages, batch_size=4, watch=False, progress=False)
        >>> trainer.fit(steps=3)
        >>> trainer.sample(2).shape
        torch.Size([2, 1, 8, 8])
    """

    nets: Mapping[str, nn.Module]
    objective: Objective
    steps: int | None = None
    data: Any = None
    batch_size: int | None = None
    size: int | None = None
    channels: int | None = None
    optimizers: Mapping[str, OptimizerSpec] | OptimizerSpec | None = None
    schedules: Mapping[str, Mapping[str, Schedule]] = field(default_factory=dict)
    ema: tuple[str, ...] = ("G",)
    carry: Callable[[Mapping[str, nn.Module], Mapping[str, nn.Module]], None] | None = None

    def __post_init__(self) -> None:
        arguments.one_of(self.objective, "objective", Objective, "an Objective")
        networks_of(self.nets)
        for name in ("steps", "batch_size"):
            if (count := getattr(self, name)) is not None:
                arguments.whole(count, f"{name} of a stage", 1)
        self.ema = names_of(self.ema)
        self.schedules = checked_schedules(self.schedules)
        if self.carry is not None:
            arguments.function(self.carry, "carry", "a function of two dicts of networks")
        own = self.objective.own_nets()
        self.nets = {**self.nets, **{k: net for k, net in own.items() if k not in self.nets}}


def networks_of(nets: Any) -> Mapping[str, nn.Module]:
    """Networks by name. Raises FastganError for what is none."""
    for name, net in arguments.mapping(nets, "nets", "networks by name such as {'G': G}").items():
        if not isinstance(net, nn.Module):
            raise FastganError(f"network {name!r} is a {type(net).__name__}, not a torch.nn.Module")
    return nets


def names_of(ema: Any) -> tuple[str, ...]:
    """Names of averaged networks: True is G, False is none, one text is one name."""
    if isinstance(ema, bool):
        return ("G",) if ema else ()
    names = (ema,) if isinstance(ema, str) else ema
    if not isinstance(names, Sequence) or not all(isinstance(n, str) and n for n in names):
        raise FastganError(
            f"ema must be names of networks such as ('G',), or False, not {arguments.shown(ema)}"
        )
    return tuple(names)


def open_streams(
    data: Any, *, size: int | None, channels: int | None, strict: bool
) -> dict[str, Dataset]:
    """Data sets by stream name: a dict of sources is several streams, anything else is the stream
    "image"."""
    sources = data if isinstance(data, Mapping) else {"image": data}
    return {
        name: open_data(source, size=size, channels=channels, strict=strict)
        for name, source in sources.items()
    }
