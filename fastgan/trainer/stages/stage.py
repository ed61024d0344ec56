"""A stretch of training with one set of networks: what it is, and its data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from fastgan.data import Dataset
from fastgan.data import open as open_data
from fastgan.objectives import Objective
from fastgan.trainer.optimization.optimizers import OptimizerSpec, Schedule


@dataclass
class Stage:
    """One stretch of training: a pyramid level, a resolution, a warm-up.

    Stages follow each other, each with its own networks, objective and data. What is None here is
    the trainer's.

    Args:
        nets: Networks by name. A module object that stands in two stages keeps its weights.
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
