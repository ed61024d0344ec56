"""The options that every run has, by whatever door it is started: defined, described and checked
here once. Imports no torch, so that help is fast."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastgan import arguments


def option(default: Any, help: str, *, choices: tuple[str, ...] = (), group: str = "recipe") -> Any:
    """A field of options with its help text."""
    return field(default=default, metadata={"help": help, "choices": choices, "group": group})


def run_option(default: Any, help: str, *, choices: tuple[str, ...] = ()) -> Any:
    """A field that all recipes share."""
    return option(default, help, choices=choices, group="run")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is computed, what it writes and how often; `Trainer` says what each one means.

    Raises FastganError, naming the option, for a value that it cannot have.
    """

    batch_size: int = run_option(64, "images of a step")
    seed: int = run_option(0, "everything random follows from it")
    flip: bool = run_option(False, "mirror images at random")
    device: str = run_option("auto", "auto, cpu, cuda or cuda:N")
    precision: str = run_option(
        "auto",
        "auto is bf16 on Ampere and newer GPUs, measured on a CPU, fp32 elsewhere",
        choices=("auto", "fp32", "tf32", "bf16", "fp16"),
    )
    sync_bn: bool = run_option(False, "under torchrun: batch statistics of all processes together")
    impl: str = run_option(
        "auto",
        "engine of the operators: auto swaps layers on a GPU",
        choices=("auto", "reference", "cudnn", "triton"),
    )
    graph: str = run_option(
        "auto",
        "replay steps as CUDA graphs: auto is on with one GPU",
        choices=("auto", "on", "off"),
    )
    clip: float = run_option(0.0, "largest norm of the gradients of a phase, all together; 0: any")
    accumulate: int = run_option(
        1, "work off each batch in so many parts, which takes less memory and more time"
    )
    ema_decay: float = run_option(0.999, "decay of the averaged generator")
    log_every: int = run_option(50, "steps between rows of metrics")
    sample_every: int = run_option(500, "steps between sample pictures")
    checkpoint_every: int = run_option(1000, "steps between checkpoints")
    checkpoint_minutes: float = run_option(
        10.0, "save also when the last checkpoint is so old; 0: by steps alone"
    )
    keep: int = run_option(3, "checkpoints kept")
    watch: bool = run_option(True, "look for what goes wrong, such as a collapse, and warn")
    strict: bool = run_option(False, "stop at an image that can't be read")
    resident_bytes: int = run_option(2**31, "data sets of at most so many bytes lie on the device")
    progress: bool = run_option(True, "show a progress line")

    def __post_init__(self) -> None:
        for field_ in dataclasses.fields(RunOptions):
            name, kind = field_.name, field_.type
            value = getattr(self, name)
            if kind == "int":
                least = 0 if name in ("seed", "resident_bytes") else 1
                most = 2**32 - 1 if name == "seed" else arguments.MOST
                value = arguments.whole(value, name, least, most)
            elif kind == "float":
                value = arguments.number(value, name)
            elif kind == "bool":
                arguments.flag(value, name)
            else:
                arguments.text(value, name, field_.metadata["choices"])
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> RunOptions:
        """Those of `values` that are options of every run."""
        return RunOptions(
            **{f.name: values[f.name] for f in dataclasses.fields(RunOptions) if f.name in values}
        )
