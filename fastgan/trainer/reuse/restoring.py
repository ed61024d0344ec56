"""A run made ready to use: its networks and objective made again, with a checkpoint's weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as deserialise
from torch import Tensor, nn

from fastgan import arguments, files
from fastgan.data import Dataset
from fastgan.devices import is_out_of_memory, pick_device
from fastgan.errors import FastganError
from fastgan.objectives import Objective
from fastgan.objectives.base import draw
from fastgan.precision import resolve
from fastgan.runs import schema
from fastgan.runs.checkpoint import Checkpoints
from fastgan.runs.run_folder import read_checkpoint, read_facts
from fastgan.runs.serialize import import_named, rebuild, shapes_alone
from fastgan.trainer import sampling
from fastgan.trainer.networks import check_network, load_network
from fastgan.trainer.stages.stage import open_streams

CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""What an exported folder holds."""

EXPORT_FORMAT = "fastgan generator 1"

LARGEST_NOISE = 2**22
"""Random numbers of one image; an image of 1024x1024 pixels in colour has 3 million."""


@dataclass(frozen=True)
class OpenRun:
    """A run whose networks are ready to make images.

    path: its folder. facts: its run.json. nets: the averaged networks where there are averages.
    left: networks that could not be made, and why. scalar: the schedule's values at `step`.
    """

    path: Path
    facts: dict[str, Any]
    step: int
    objective: Objective
    nets: dict[str, nn.Module]
    left: dict[str, FastganError]
    datasets: dict[str, Dataset]
    scalar: dict[str, Tensor]
    device: torch.device

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes that images can be asked of."""
        conditional = getattr(self.objective, "conditional", True)
        return self.facts["classes"] if conditional else None

    def noise(
        self, n: int, seed: int | None = None, seeds: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """The random inputs of the first n samples of a seed, by default the run's, or of the first
        sample of each of n seeds; on the CPU. Raises FastganError."""
        with self.explained():
            self._check_noise(n)
            if seeds is not None:
                return sampling.noise_of_seeds(self.objective.noise, seeds)
            first = torch.tensor(0, dtype=torch.int64)
            drawn = draw(
                self.objective.noise, self.facts["seed"] if seed is None else seed, first, n
            )
            return dict(drawn)

    def images(
        self,
        n: int,
        *,
        seed: int | None = None,
        labels: Any = None,
        noise: Mapping[str, Tensor] | None = None,
        text: Sequence[str] = (),
    ) -> Tensor:
        """float32 (n, C, H, W) in [0, 1], on the CPU. labels, text: as for `sample`. noise: by
        name, (n, ...) each, instead of the seed's. Raises FastganError."""
        if labels is not None:
            labels = class_numbers(labels, n, self.classes, self.path)
        elif not self.datasets and self.facts["classes"] and self.objective.turns:
            labels = classes_in_turn(self.facts, n)
        with self.explained():
            self._check_noise(n)
            return sampling.generate(
                self.objective,
                self.nets,
                n,
                seed=self.facts["seed"] if seed is None else seed,
                device=self.device,
                precision=resolve("fp32", self.device),
                datasets=self.datasets,
                labels=labels,
                given={} if self.datasets else self.texts(n, text),
                scalar=self.scalar,
                noise=noise,
            )

    def texts(self, n: int, text: Sequence[str]) -> dict[str, Tensor]:
        """{"tokens": int64 (n, length)} of captions in turn, by default those that the objective
        keeps. Raises FastganError for text that such a run has no use for."""
        wanted = list(text or getattr(self.objective, "prompts", ()))
        encoder: Any = next((net for net in self.nets.values() if hasattr(net, "tokens")), None)
        if encoder is None or not wanted:
            if text:
                raise FastganError(f"{self.path} was trained without captions: leave the text out")
            return {}
        rows = encoder.tokens(wanted)
        return {"tokens": rows[torch.arange(n) % len(rows)]}

    def _check_noise(self, n: int) -> None:
        arguments.samples(n)
        numbers = sum(math.prod(noise.shape) for noise in self.objective.noise.values())
        if numbers > LARGEST_NOISE:
            raise FastganError(
                f"run.json is damaged: it asks for {numbers} random numbers an image"
            )

    @contextmanager
    def explained(self) -> Iterator[None]:
        """A failure inside of networks and objective, which come from a file, is one line."""
        try:
            yield
        except FastganError as error:
            for name, reason in self.left.items():
                if f"no {name!r} here" in str(error):
                    raise reason from error
            raise
        except MemoryError:
            raise
        except Exception as error:
            if isinstance(error, RuntimeError) and is_out_of_memory(error):
                raise
            if not self.datasets and isinstance(error, KeyError):
                raise FastganError(
                    f"{self.path} makes images from images: give data=, or use fastgan sample "
                    "--input"
                ) from error
            why = " ".join(str(error).split())
            raise FastganError(
                f"the run's networks and objective make no images: {type(error).__name__}: {why}"
            ) from error


def open_run(
    path: str | Path,
    *,
    step: int | str | None = None,
    device: str = "auto",
    data: Any = None,
    trust: bool = False,
) -> OpenRun:
    """A run's objective and networks on a device; arguments as for `sample`.

    Raises FastganError.
    """
    run, groups, state = open_checkpoint(path, step)
    described = run["stages"][state["stage"]]
    if "spec" not in described["objective"]:
        raise FastganError(
            f"can't sample {path} without its script: {described['objective']['why_not']}; use "
            "Trainer(..., resume=True).sample()"
        )
    where = pick_device(device)
    objective = objective_of(described, folders_of(run, trust))
    nets: dict[str, nn.Module] = {}
    left: dict[str, FastganError] = {}
    for name in groups["nets"]:
        weights = groups["ema"].get(name, groups["nets"][name])
        try:
            net = network_of(run, state, name, weights, Path(path), trust)
        except FastganError as error:
            if name in described["ema"]:
                raise
            left[name] = error  # such as a discriminator: sampling has no use for it
            continue
        load_network(net, weights, name)
        nets[name] = net.to(where)
    datasets = (
        open_streams(data, size=described["size"], channels=None, strict=False)
        if data is not None
        else {}
    )
    first_step = sum(stage["steps"] for stage in run["stages"][: state["stage"]])
    scalar = scalars(objective, state["step"] - first_step, where)
    folder = files.path_of(path, "the run folder")
    return OpenRun(folder, run, state["step"], objective, nets, left, datasets, scalar, where)


def open_checkpoint(
    path: str | Path, step: int | str | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    folder = files.path_of(path, "the run folder")
    facts = read_facts(folder)
    return facts, *read_checkpoint(Checkpoints(folder / "checkpoints"), facts, step)


def folders_of(facts: dict[str, Any], trust: bool) -> dict[str, str] | None:
    """What `rebuild` takes: where the run's modules lay, for those who trust it."""
    return facts.get("modules", {}) if trust else None


def objective_of(described: dict[str, Any], folders: dict[str, str] | None) -> Objective:
    made = rebuild(described["objective"]["spec"], folders)
    if not isinstance(made, Objective):
        raise FastganError(f"run.json is damaged: its objective is a {type(made).__name__}")
    return made


def scalars(objective: Objective, step: int, device: torch.device) -> dict[str, Tensor]:
    """The objective's numbers at a step. Raises FastganError for a schedule, of a file, that gives
    none."""
    try:
        return {
            name: torch.tensor(float(value), device=device)
            for name, value in objective.schedule(step).items()
        }
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise FastganError(f"run.json is damaged: its objective has no schedule ({why})") from error


def classes_seen(facts: dict[str, Any]) -> list[int]:
    """The numbers of the classes that had images in training, of a run that has classes."""
    return sorted(set(range(len(facts["classes"]))) - set(facts.get("empty", ()))) or [0]


def classes_in_turn(facts: dict[str, Any], n: int) -> Tensor:
    """int64 (n,): each class in turn that had images in training."""
    kept = classes_seen(facts)
    return torch.tensor(kept)[torch.arange(n) % len(kept)]


def class_numbers(labels: Any, n: int, classes: list[str] | None, path: str | Path) -> Tensor:
    """int64 (1,) or (n,): classes by number or by name. Raises FastganError where they do not fit
    the run."""
    if not classes:
        raise FastganError(f"{path} was trained without labels: leave the label out")
    wanted = labels.reshape(-1).tolist() if hasattr(labels, "reshape") else labels
    listed = list(wanted) if isinstance(wanted, (list, tuple)) else [wanted]
    arguments.one_or_each(len(listed), "labels", n)
    named = f"labels of {path} go from 0 to {len(classes) - 1} ({', '.join(classes)})"
    numbers = []
    for label in listed:
        number = class_number(label, classes)
        if number is None:
            raise FastganError(f"no label {label!r}: {named}")
        numbers.append(number)
    return torch.tensor(numbers, dtype=torch.int64)


def class_number(label: Any, classes: list[str]) -> int | None:
    """The number of a class given by its name or number; a name that is there goes first."""
    if isinstance(label, str):
        if label in classes:
            return classes.index(label)
        if not label.isdecimal():
            return None
    number = int(label)
    return number if number == float(label) and 0 <= number < len(classes) else None


def known_network(name: str, nets: Iterable[str], path: str | Path) -> None:
    """Raises FastganError where the run at `path` has no network of that name."""
    if name not in nets:
        raise FastganError(f"{path} has no network {name!r}: there are {', '.join(nets)}")


def network_of(
    run: dict[str, Any],
    state: dict[str, Any],
    name: str,
    weights: Mapping[str, Tensor],
    path: Path,
    trust: bool,
) -> nn.Module:
    """A network made again, which these weights fit. Raises FastganError."""
    described = run["stages"][state["stage"]]
    known_network(name, described["nets"], path)
    how = described["nets"][name]
    if "spec" not in how:
        remedy = "make it yourself and pass it, load(path, generator=net)"
        raise FastganError(
            f"network {name!r} of {path} can't be made again ({how['why_not']}): {remedy}"
        )
    folders = folders_of(run, trust)
    with torch.random.fork_rng([]):
        import_named(how["spec"], folders)
        with shapes_alone():  # before memory is taken for whatever sizes the file asks for
            check_network(_module(how["spec"], folders), weights, name)
        return _module(how["spec"], folders)


def _module(spec: Any, folders: dict[str, str] | None) -> nn.Module:
    made = rebuild(spec, folders)
    if not isinstance(made, nn.Module):
        raise FastganError(f"run.json is damaged: a network is a {type(made).__name__}")
    return made


def exported(folder: Path, net: nn.Module | None, trust: bool) -> nn.Module:
    """The generator of a folder that `fastgan export` wrote. Raises FastganError."""
    with files.explained(f"can't read {folder}"):
        text, data = files.read(folder / CONFIG, files.TEXT), files.read(folder / WEIGHTS)
    try:
        config = json.loads(text)
        schema.check(config, {"format": str, "network": object}, CONFIG)
        if config["format"] != EXPORT_FORMAT or schema.depth(config) > schema.DEEPEST:
            raise ValueError(f"{config['format']!r} is not {EXPORT_FORMAT!r}")
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise FastganError(f"{folder / CONFIG} is no generator's: {why}") from error
    try:
        weights = deserialise(data)
    except Exception as error:  # safetensors has errors of its own
        why = " ".join(str(error).split())
        raise FastganError(f"{folder / WEIGHTS} is damaged: {why}") from error
    if net is None:
        folders: dict[str, str] | None = {} if trust else None
        with torch.random.fork_rng([]):
            import_named(config["network"], folders)
            with shapes_alone():
                check_network(_module(config["network"], folders), weights, "G")
            net = _module(config["network"], folders)
    load_network(net, weights, "G")
    return net
