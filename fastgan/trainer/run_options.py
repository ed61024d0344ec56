"""The options that every run has, by whatever door it is started: defined, described and checked
here once. Imports no torch, so that help is fast."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args, get_origin, get_type_hints

from fastgan import arguments
from fastgan.errors import FastganError


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    group: str = "recipe",
    least: float | None = None,
    most: float | None = None,
    below: float | None = None,
    before: Any = None,
    on_cpu: Any = None,
) -> Any:
    """A field of options: its help text and which values it takes, of the type it is declared with.

    choices: of a text. least, most, below: of a number. Without them a count is at least 1, or 0
    where 0 is its default, and any other number at least 0; all are finite and fit 64 bits. before:
    what runs had whose config.toml is older than the option, where that is not its default. on_cpu:
    what `fastgan train` takes instead of the default where no GPU is.
    """
    bounds = {"least": least, "most": most, "below": below, "before": before, "on_cpu": on_cpu}
    return field(
        default=default, metadata={"help": help, "choices": choices, "group": group, **bounds}
    )


def on_cpu(options: type) -> dict[str, Any]:
    """Values of the options that are others without a GPU."""
    return {
        one.name: one.metadata["on_cpu"]
        for one in fields(options)
        if one.metadata.get("on_cpu") is not None
    }


def of_before(options: type) -> dict[str, Any]:
    """Values of the options that a run may be older than."""
    return {
        one.name: one.metadata["before"]
        for one in fields(options)
        if one.metadata.get("before") is not None
    }


def run_option(default: Any, help: str, **values: Any) -> Any:
    """A field that all recipes share; values: as `option` takes them."""
    return option(default, help, group="run", **values)


def type_of(options: type, name: str) -> tuple[type, bool]:
    """(Python type, may be None) of an option."""
    hint = _hints(options)[name]
    if get_origin(hint) is None:
        return hint, False
    kinds = [k for k in get_args(hint) if k is not type(None)]
    return kinds[0], len(kinds) < len(get_args(hint))


@functools.cache
def _hints(options: type) -> dict[str, Any]:
    return get_type_hints(options)


def checked(options: type, name: str, value: Any, label: str | None = None) -> Any:
    """A value of an option as that option's type, by whatever door it came. label: its name there.

    Raises FastganError, which begins with the label, for a value that the option can't have.
    """
    label, described = label or name, options.__dataclass_fields__[name]  # type: ignore[attr-defined]
    kind, optional = type_of(options, name)
    if value is None and optional:
        return None
    if kind is str:
        return arguments.text(value, label, described.metadata["choices"], written=True)
    if kind is bool:
        return arguments.flag(value, label)
    return _in_range(described, kind, value, label)


def _in_range(described: dataclasses.Field, kind: type, value: Any, label: str) -> int | float:
    least, most, below = (described.metadata[bound] for bound in ("least", "most", "below"))
    if least is None:
        least = 0 if kind is float or described.default == 0 else 1
    if kind is int:
        value = arguments.whole(value, label, least, arguments.LARGEST if most is None else most)
    else:
        value = arguments.number(value, label, least, 1e30 if most is None else most)
    if below is not None and value >= below:
        raise FastganError(f"{label} must be below {below}, not {value}")
    return value


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is computed, what it writes and how often; `Trainer` says what each one means.

    Raises FastganError, naming the option, for a value that it cannot have.
    """

    batch_size: int = run_option(64, "images of a step")
    seed: int = run_option(0, "everything random follows from it", most=2**32 - 1)
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
    ema_decay: float = run_option(0.999, "decay of the averaged generator", below=1)
    log_every: int = run_option(50, "steps between rows of metrics")
    sample_every: int = run_option(500, "steps between sample pictures; early ones at 50, 100, 200")
    checkpoint_every: int = run_option(1000, "steps between checkpoints")
    checkpoint_minutes: float = run_option(
        10.0, "save also when the last checkpoint is so old; 0: by steps alone"
    )
    keep: int = run_option(3, "checkpoints kept")
    evaluate_every: int = run_option(
        0,
        "steps between measurements of how far samples are from the images; the best checkpoint is "
        "kept, too; 0: none",
    )
    watch: bool = run_option(True, "look for what goes wrong, such as a collapse, and warn")
    rescue: bool = run_option(
        False,
        "at a collapse or a divergence go back to the last good checkpoint, once, and on with a "
        "remedy",
    )
    strict: bool = run_option(False, "stop at an image that can't be read")
    resident_bytes: int = run_option(
        2**31, "data sets of at most so many bytes lie on the device", least=0
    )
    progress: bool = run_option(True, "show a progress line")

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if one.name == "data" and not isinstance(value, str):
                continue  # images themselves, which are opened as they are
            if (kept := checked(type(self), one.name, value)) is not value:
                object.__setattr__(self, one.name, kept)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> RunOptions:
        """Those of `values` that are options of every run."""
        return RunOptions(
            **{f.name: values[f.name] for f in dataclasses.fields(RunOptions) if f.name in values}
        )
