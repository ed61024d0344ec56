"""Scheduled options of optimisers: set before each step, and held on the device where steps are
captured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from fastgan import arguments
from fastgan.errors import FastganError
from fastgan.ops.adam.optimizer import FlatAdam
from fastgan.trainer.optimization.optimizers import SGD, Schedule


def checked_schedules(schedules: Any) -> dict[str, dict[str, Schedule]]:
    """{network: {option: function of the step}}; raises FastganError for anything else."""
    what = "functions of the step by network and option, {'G': {'lr': lambda step: 1e-4}}"
    found = {}
    for net, options in arguments.mapping(schedules, "schedules", what).items():
        if isinstance(options, LRScheduler) or (
            isinstance(options, type) and issubclass(options, LRScheduler)
        ):
            raise FastganError(
                f"schedules[{net!r}] is a scheduler of torch, which a resumed run can't follow: "
                f"give {{'lr': lambda step: ...}} (fastgan.objectives has Linear, Cosine)"
            )
        found[net] = dict(arguments.mapping(options, f"schedules[{net!r}]", what))
        for option, schedule in found[net].items():
            name = f"schedules[{net!r}][{option!r}]"
            arguments.function(schedule, name, "a function of the step (lambda step: value)")
            value_at(schedule, name, 0)
    return found


def value_at(schedule: Schedule, name: str, step: int) -> float:
    """What a schedule says of a step. Raises FastganError, from the error itself, where it fails or
    gives no number that an option can have."""
    try:
        value = schedule(step)
    except Exception as error:  # the user's own function
        why = (str(error).splitlines() or [""])[0]
        raise FastganError(f"{name} raised {type(error).__name__} at step {step}: {why}") from error
    return value if isinstance(value, tuple) else arguments.number(value, f"{name}({step})")


@dataclass
class ScheduledOption:
    """An option of one parameter group that became a tensor: what it was, and the number it stands
    for now."""

    net: str
    index: int
    group: dict[str, Any]
    option: str
    before: Any
    value: float
    others: dict[str, Any]


class ScheduledOptions:
    """The schedules of a stage: {network: {option: fn(step) -> value}} for optimisers by network.

    Raises FastganError for a schedule of an unknown network or option.
    """

    def __init__(
        self,
        schedules: Mapping[str, Mapping[str, Schedule]],
        optimizers: Mapping[str, torch.optim.Optimizer],
    ) -> None:
        for net, options in schedules.items():
            if net not in optimizers:
                raise FastganError(
                    f"schedules names {net!r}, which has no optimizer: {', '.join(optimizers)}"
                )
            for option in options:
                if option not in optimizers[net].param_groups[0]:
                    known = ", ".join(k for k in optimizers[net].param_groups[0] if k != "params")
                    raise FastganError(
                        f"schedules[{net!r}] sets {option!r}, which "
                        f"{type(optimizers[net]).__name__} does not have: {known}"
                    )
        self.schedules, self.optimizers = schedules, optimizers
        self._held: list[ScheduledOption] = []

    def apply(self, step: int) -> None:
        """Set every scheduled option to its value for `step`; tensors are filled in place."""
        for net, options in self.schedules.items():
            values = {
                option: value_at(schedule, f"schedules[{net!r}][{option!r}]", step)
                for option, schedule in options.items()
            }
            for group in self.optimizers[net].param_groups:
                for option, value in values.items():
                    if isinstance(group.get(option), Tensor):
                        group[option].fill_(value)
                    else:
                        group[option] = value
            for held in self._held:
                if held.net == net:
                    held.value = values[held.option]

    def hold(self, device: torch.device) -> None:
        """Turn scheduled options into device tensors, so that a captured step follows them.

        torch's SGD follows a tensor only in its fused form, which it takes then. Raises
        FastganError for options that an optimiser reads on the host, before anything is turned.
        """
        for net, options in self.schedules.items():
            for option in options:
                if option != "lr" and not (
                    option == "momentum" and isinstance(self.optimizers[net], SGD)
                ):
                    kind = type(self.optimizers[net]).__name__
                    raise FastganError(
                        f"a schedule of {option!r} can't be captured: {kind} keeps it on the host"
                    )
        self._held = []
        for net, options in self.schedules.items():
            optimizer = self.optimizers[net]
            # FlatAdam computes with float64 scalars, as torch does with Python's; the other kernels
            # read float32.
            dtype = torch.float64 if isinstance(optimizer, FlatAdam) else torch.float32
            for index, group in enumerate(optimizer.param_groups):
                for option in options:
                    before = group[option]
                    others: dict[str, Any] = {}
                    if isinstance(optimizer, torch.optim.SGD) and not isinstance(optimizer, SGD):
                        others = {key: group[key] for key in ("fused", "foreach")}
                        group |= {"fused": True, "foreach": False}
                        optimizer._step_supports_amp_scaling = True  # type: ignore[attr-defined]  # as made with fused=True
                    self._held.append(
                        ScheduledOption(net, index, group, option, before, float(before), others)
                    )
                    group[option] = torch.as_tensor(before, dtype=dtype, device=device)

    def release(self) -> None:
        """Undo `hold`, with the values of the step last applied: eager steps must not read a rate
        from the device."""
        for held in self._held:
            if isinstance(held.before, Tensor):
                held.before.fill_(held.value)
                held.group[held.option] = held.before
            else:
                held.group[held.option] = held.value
            if held.others:
                held.group |= held.others
                self.optimizers[held.net]._step_supports_amp_scaling = bool(held.others["fused"])  # type: ignore[attr-defined]
        self._held = []

    def plain(self, net: str, state: dict[str, Any]) -> dict[str, Any]:
        """An optimiser's state_dict as it is without `hold`, so that checkpoints are the same with
        graphs and without."""
        for held in self._held:
            if held.net == net:
                value = torch.tensor(held.value) if isinstance(held.before, Tensor) else held.value
                state["param_groups"][held.index] |= {**held.others, held.option: value}
        return state

    def ahead(self, step: int, steps: int = 1000) -> dict[str, float]:
        """The largest learning rate of each network's optimiser: those of now, and where they are
        scheduled those of the beginning and of `steps` steps later, too."""
        found = {}
        for net, optimizer in self.optimizers.items():
            rates = [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]
            if "lr" in self.schedules.get(net, {}):
                schedule = self.schedules[net]["lr"]
                rates = [float(schedule(at)) for at in (0, step, step + steps)]
            if rates:
                found[net] = max(rates)
        return found

    def row(self) -> dict[str, float]:
        """Scheduled learning rates, as rows of metrics show them."""
        held = {h.net: h.value for h in self._held if h.option == "lr" and h.index == 0}
        return {
            f"lr/{net}": held[net]
            if net in held
            else float(self.optimizers[net].param_groups[0]["lr"])
            for net, options in self.schedules.items()
            if "lr" in options
        }
