"""Using a finished run: its averaged generator, or images from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgan import arguments, files
from fastgan.data import Dataset
from fastgan.devices import out_of_memory
from fastgan.errors import FastganError
from fastgan.objectives.base import Step
from fastgan.objectives.medium import IMAGES, Medium
from fastgan.precision import resolve
from fastgan.runs.run_folder import read_facts
from fastgan.runs.serialize import rebuild
from fastgan.trainer import sampling
from fastgan.trainer.networks import load_network
from fastgan.trainer.reuse.restoring import (
    CONFIG,
    OpenRun,
    class_numbers,
    exported,
    folders_of,
    known_network,
    network_of,
    objective_of,
    open_checkpoint,
    open_run,
    scalars,
)


def load(
    path: str | Path,
    *,
    generator: nn.Module | None = None,
    network: str = "G",
    step: int | str | None = None,
    ema: bool = True,
    trust: bool = False,
) -> nn.Module:
    """The averaged generator of a run, ready to call.

    Args:
        path: The run folder, or a folder that `fastgan export` has written.
        generator: A network to load into, for runs whose networks can't be made again from their
            class and its arguments.
        network: The name of another network than "G".
        step: A kept checkpoint other than the newest; "best" is that of `evaluate_every`.
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
    if generator is not None:
        arguments.one_of(generator, "generator", nn.Module, "an nn.Module")
    arguments.text(network, "network")
    arguments.flag(ema, "ema")
    arguments.flag(trust, "trust")
    folder = files.path_of(path, "the run folder")
    if files.kind(folder / "run.json") is None and files.kind(folder / CONFIG) == "file":
        return exported(folder, generator, trust).eval().requires_grad_(False)
    run, groups, state = open_checkpoint(path, step)
    kind = "ema" if ema and network in groups["ema"] else "nets"
    known_network(network, groups[kind], path)
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
    step: int | str | None = None,
    device: str = "auto",
    data: Any = None,
    text: Sequence[str] = (),
    trust: bool = False,
    seeds: Sequence[int] | None = None,
    truncation: float | None = None,
) -> Tensor:
    """Images from the averaged generator of a run.

    Args:
        path: The run folder.
        n: How many images. Image i depends on the seed and i alone, not on n.
        seed: Default: the run's. The same seed gives the same images.
        labels: A class, its number or its name, or n of them, for label-conditional runs. Default:
            each class in turn.
        step: A kept checkpoint other than the newest.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
        data: The data that a generator of images from images is given.
        text: Captions that a generator of images from texts is given, in turn. Default: some of
            the run's data.
        trust: As for `load`.
        seeds: Instead of `n` and `seed`: the first image of each of these seeds.
        truncation: Cut normal latents at so many standard deviations, such as 0.7: better images,
            more alike.

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
    arguments.whole(n, "n")
    arguments.flag(trust, "trust")
    if truncation is not None:
        arguments.number(truncation, "truncation")
    if seeds is not None and not (isinstance(seeds, Sequence) and not isinstance(seeds, str)):
        raise FastganError(f"seeds must be a list of numbers, not {arguments.shown(seeds)}")
    for one in (*(seeds or ()), *([] if seed is None else [seed])):
        arguments.whole(one, "seed", 0, 2**32 - 1)
    with out_of_memory(
        f"out of memory while sampling {n} images on {device}: ask for fewer at a time, or use "
        "another device"
    ):
        run = open_run(path, step=step, device=device, data=data, trust=trust)
        noise = None
        if seeds is not None or truncation is not None:
            n = n if seeds is None else len(seeds)
            noise = run.noise(n, seed, seeds)
        if noise is not None and truncation is not None:
            noise = sampling.truncated(run.objective.noise, noise, truncation)
        return run.images(n, seed=seed, labels=labels, noise=noise, text=text)


def medium_of(path: str | Path, *, trust: bool = False) -> Medium:
    """What a run's samples are: how they are drawn, and which files hold them. Raises
    FastganError."""
    facts = read_facts(files.path_of(path, "the run folder"))
    stage = facts["stages"][-1]
    if "spec" not in stage["objective"]:
        return IMAGES
    return objective_of(stage, folders_of(facts, trust)).medium


def walk(
    path: str | Path,
    datasets: Mapping[str, Dataset],
    *,
    seed: int = 0,
    label: Any = None,
    step: int | str | None = None,
    device: str = "auto",
    trust: bool = False,
) -> Iterator[tuple[Step, Tensor]]:
    """What a run's averaged generator makes of each sample of `datasets` (by stream name), in
    order: (step, images (b, C, H, W) in [-1, 1]) a chunk at a time.

    label: the class, by number or name, that a conditional generator is given. Raises FastganError.
    """
    run = open_run(path, step=step, device=device, trust=trust)
    number = None if label is None else int(class_numbers(label, 1, run.facts["classes"], path))
    yield from sampling.walk(
        run.objective,
        run.nets,
        datasets,
        seed=seed,
        device=run.device,
        precision=resolve("fp32", run.device),
        scalar=run.scalar,
        label=number,
    )


def samples_of(
    run: str | Path, n: int, *, seed: int = 0, step: int | str | None = None, trust: bool = False
) -> tuple[Tensor, Tensor | None]:
    """n images (n, C, H, W) in [0, 1] of a run's averaged generator, and of the untrained one
    (None: it can't be made anew).

    step, trust: as for `load`. Raises FastganError.
    """
    images = sample(run, n, seed=seed, step=step, trust=trust)
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
            except FastganError:  # such as a discriminator whose frozen weights aren't here
                if name in stage["ema"]:
                    raise
    objective = objective_of(stage, folders)
    scalar = scalars(objective, 0, where)
    return OpenRun(run, facts, 0, objective, nets, {}, {}, scalar, where).images(n, seed=seed)
