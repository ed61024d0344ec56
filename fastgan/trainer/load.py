"""Using a finished run: its averaged generator, or images from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgan import files
from fastgan.data import Dataset
from fastgan.devices import is_out_of_memory, out_of_memory
from fastgan.errors import FastganError
from fastgan.objectives import Objective
from fastgan.objectives.base import Step
from fastgan.precision import resolve
from fastgan.runs.run_folder import read_facts
from fastgan.runs.serialize import Untrusted, rebuild
from fastgan.trainer import sampling
from fastgan.trainer.networks import load_network
from fastgan.trainer.restored import (
    folders_of,
    network_of,
    objective_of,
    open_run,
    restore,
    scalars_of,
)
from fastgan.trainer.stages.stage import open_streams

LARGEST_NOISE = 2**22
"""Random numbers of one image; an image of 1024x1024 pixels in colour has 3 million."""


def load(
    path: str | Path,
    *,
    generator: nn.Module | None = None,
    network: str = "G",
    step: int | None = None,
    ema: bool = True,
    trust: bool = False,
) -> nn.Module:
    """The averaged generator of a run, ready to call.

    Args:
        path: The run folder.
        generator: A network to load into, for runs whose networks can't be made again from their
            class and its arguments.
        network: The name of another network than "G".
        step: A kept checkpoint other than the newest.
        ema: False for the weights as trained instead of their average.
        trust: Whether code that the run names may be imported. Otherwise only classes of fastgan
            and layers of torch.nn are made.

    Returns:
        The network on the CPU, in eval mode, without gradients.

    Raises:
        FastganError: There is no such run, network or checkpoint, a file is damaged, the network is
            not one that may be made without `trust`, or `generator` has other weights.

    Example:
        >>> import numpy as np, torch
        >>> from torch import nn
        >>> import fastgan
        >>> G = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
        >>> D = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
        >>> pixels = np.zeros((16, 8, 8, 1), np.uint8)
        >>> options = {"latent_shape": (16,), "batch_size": 4, "progress": False}
        >>> with fastgan.Trainer(G, D, data=pixels, out="runs/to-load", **options) as trainer:
        ...     trainer.fit(steps=2)
        >>> fastgan.load("runs/to-load")(torch.randn(3, 16)).shape
        torch.Size([3, 1, 8, 8])
    """
    run, groups, state = open_run(path, step)
    kind = "ema" if ema and network in groups["ema"] else "nets"
    if network not in groups[kind]:
        raise FastganError(
            f"{path} has no network {network!r}: there are {', '.join(groups['nets'])}"
        )
    net = (
        generator
        if generator is not None
        else network_of(run, state, network, groups[kind][network], Path(path), trust)
    )
    load_network(net, groups[kind][network], network)
    return net.eval().requires_grad_(False)


def sample(
    path: str | Path,
    n: int = 64,
    *,
    seed: int | None = None,
    labels: Any = None,
    step: int | None = None,
    device: str = "auto",
    data: Any = None,
    text: Sequence[str] = (),
    trust: bool = False,
) -> Tensor:
    """Images from the averaged generator of a run.

    Args:
        path: The run folder.
        n: How many images. Image i depends on the seed and i alone, not on n.
        seed: Default: the run's. The same seed gives the same images.
        labels: A class, or n of them, for label-conditional runs. Default: each class in turn.
        step: A kept checkpoint other than the newest.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
        data: The data that a generator of images from images is given.
        text: Captions that a generator of images from texts is given, in turn. Default: some of
            the run's data.
        trust: As for `load`.

    Returns:
        float32 (n, C, H, W) in [0, 1], on the CPU.

    Raises:
        FastganError: As for `load`; labels, data or device do not fit; or memory ran out.

    Example:
        >>> import numpy as np
        >>> from torch import nn
        >>> import fastgan
        >>> G = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
        >>> D = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
        >>> pixels = np.zeros((16, 8, 8, 1), np.uint8)
        >>> options = {"latent_shape": (16,), "batch_size": 4, "progress": False}
        >>> fastgan.Trainer(G, D, data=pixels, out="runs/to-sample", **options).close()
        >>> fastgan.sample("runs/to-sample", 5, seed=3, device="cpu").shape
        torch.Size([5, 1, 8, 8])
    """
    with out_of_memory(
        f"out of memory while sampling {n} images on {device}: ask for fewer at a time, or use "
        "another device"
    ):
        return _sample(path, n, seed, labels, step, device, data, text, trust)


def _sample(
    path: str | Path,
    n: int,
    seed: int | None,
    labels: Any,
    step: int | None,
    device: str,
    data: Any,
    text: Sequence[str],
    trust: bool,
) -> Tensor:
    restored = restore(path, step, device, trust)
    run, described, objective = restored.run, restored.described, restored.objective
    where, scalar = restored.device, restored.scalar
    if n < 1:
        raise FastganError(f"can't sample {n} images: ask for at least one")
    if seed is not None and not 0 <= seed < 2**32:
        raise FastganError(f"seed must lie in [0, 2**32), not {seed}")
    datasets = (
        open_streams(data, size=described["size"], channels=None, strict=False)
        if data is not None
        else {}
    )
    if labels is not None:
        _check_labels(
            labels, n, run["classes"] if getattr(objective, "conditional", True) else None, path
        )
    elif not datasets and run["classes"]:
        labels = _in_turn(run, n)
    seed = run["seed"] if seed is None else seed
    try:
        return _generate(
            objective,
            restored.nets,
            n,
            seed=seed,
            device=where,
            precision=resolve("fp32", where),
            datasets=datasets,
            labels=labels,
            given=_texts(objective, restored.nets, n, text, path) if not datasets else {},
            scalar=scalar,
        )
    except FastganError as error:
        for name, why in restored.left.items():
            if f"no {name!r} here" in str(error):
                raise why from error
        if data is None and isinstance(error.__cause__, KeyError):
            raise FastganError(
                f"{path} makes images from images: give data=, or use fastgan sample --input"
            ) from error
        raise


def walk(
    path: str | Path,
    datasets: Mapping[str, Dataset],
    *,
    seed: int = 0,
    label: int | None = None,
    step: int | None = None,
    device: str = "auto",
    trust: bool = False,
) -> Iterator[tuple[Step, Tensor]]:
    """What a run's averaged generator makes of each sample of `datasets` (by stream name), in
    order: (step, images (b, C, H, W) in [-1, 1]) a chunk at a time.

    label: the class that a conditional generator is given. Raises FastganError.
    """
    restored = restore(path, step, device, trust)
    if label is not None:
        _check_labels(label, 1, restored.run["classes"], path)
    yield from sampling.walk(
        restored.objective,
        restored.nets,
        datasets,
        seed=seed,
        device=restored.device,
        precision=resolve("fp32", restored.device),
        scalar=restored.scalar,
        label=label,
    )


def _generate(
    objective: Objective, nets: Mapping[str, nn.Module], n: int, **options: Any
) -> Tensor:
    """`sampling.generate`, where a failure of networks and objective that come from a file is one
    line."""
    try:
        numbers = sum(math.prod(noise.shape) for noise in objective.noise.values())
        if numbers > LARGEST_NOISE:
            raise FastganError(
                f"run.json is damaged: it asks for {numbers} random numbers an image"
            )
        return sampling.generate(objective, nets, n, **options)
    except (FastganError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        why = " ".join(str(error).split())
        raise FastganError(
            f"the run's networks and objective make no images: {type(error).__name__}: {why}"
        ) from error


def samples_of(
    run: str | Path, n: int, *, seed: int = 0, trust: bool = False
) -> tuple[Tensor, Tensor | None]:
    """n images (n, C, H, W) in [0, 1] of a run's averaged generator, and of the untrained one
    (None: it can't be made anew).

    trust: as for `load`. Raises FastganError.
    """
    images = sample(run, n, seed=seed, trust=trust)
    blank = _untrained(files.path_of(run), n, seed, trust)
    return images, blank if blank is not None and blank.shape == images.shape else None


def _untrained(run: Path, n: int, seed: int, trust: bool) -> Tensor | None:
    facts = read_facts(run)
    stage = facts["stages"][-1]
    specs = {name: how.get("spec") for name, how in stage["nets"].items()}
    if "spec" not in stage["objective"] or None in specs.values():
        return None
    folders, where = folders_of(facts, trust), torch.device("cpu")
    nets = {}
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        for name, spec in specs.items():
            try:
                nets[name] = rebuild(spec, folders)
            except Untrusted:
                if name in stage["ema"]:
                    raise
    objective = objective_of(stage, folders)
    scalar = scalars_of(objective, 0, where)
    labels = _in_turn(facts, n) if facts.get("classes") else None
    precision = resolve("fp32", where)
    return _generate(
        objective,
        nets,
        n,
        seed=seed,
        device=where,
        precision=precision,
        labels=labels,
        given=_texts(objective, nets, n, (), run),
        scalar=scalar,
    )


def _texts(
    objective: Objective,
    nets: Mapping[str, nn.Module],
    n: int,
    text: Sequence[str],
    path: str | Path,
) -> dict[str, Tensor]:
    """{"tokens": int64 (n, length)} of captions in turn, for an objective that keeps some; else
    nothing. Raises FastganError for text that such a run has no use for."""
    wanted = list(text or getattr(objective, "prompts", ()))
    encoder = next((net for net in nets.values() if hasattr(net, "tokens")), None)
    if encoder is None or not wanted:
        if text:
            raise FastganError(f"{path} was trained without captions: leave the text out")
        return {}
    rows = encoder.tokens(wanted)  # type: ignore[operator]
    return {"tokens": rows[torch.arange(n) % len(rows)]}


def _in_turn(run: dict[str, Any], n: int) -> Tensor:
    """n labels, each class in turn that had images in training."""
    kept = sorted(set(range(len(run["classes"]))) - set(run.get("empty", ())))
    return torch.tensor(kept or [0])[torch.arange(n) % max(len(kept), 1)]


def _check_labels(labels: Any, n: int, classes: list[str] | None, path: str | Path) -> None:
    if not classes:
        raise FastganError(f"{path} was trained without labels: leave the label out")
    values = torch.as_tensor(labels, dtype=torch.int64).reshape(-1)
    if len(values) not in (1, n):
        raise FastganError(f"{len(values)} labels for {n} images: give one, or one for each")
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < len(classes):
        raise FastganError(
            f"labels of {path} go from 0 to {len(classes) - 1} ({', '.join(classes)})"
        )
