"""Using a finished run: its averaged generator, or images from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.engine import sampling
from fastgan.engine.checkpoint import Checkpoints
from fastgan.engine.describe import rebuild
from fastgan.engine.devices import out_of_memory, pick_device
from fastgan.engine.precision import resolve
from fastgan.engine.run import read_facts
from fastgan.engine.stage import load_network, open_streams
from fastgan.errors import FastganError


def load(
    path: str | Path, *, generator: nn.Module | None = None, network: str = "G", step: int | None = None, ema: bool = True
) -> nn.Module:
    """The averaged generator of a run, on the CPU, in eval mode, ready to call.

    generator: the network to load into, for runs whose networks can't be made again from their class and arguments. network:
    another network by name.
    step: a kept checkpoint other than the newest. ema: False for the weights as trained. Raises FastganError.
    """
    run, groups, state = _open(path, step)
    described = run["stages"][state["stage"]]
    net = _network(described, network, generator, Path(path))
    kind = "ema" if ema and network in groups["ema"] else "nets"
    if network not in groups[kind]:
        raise FastganError(f"{path} has no network {network!r}: there are {', '.join(groups['nets'])}")
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
) -> Tensor:
    """n images from the averaged generator of a run, float32 (n, C, H, W) in [0, 1]; the same seed gives the same images.

    labels: int or n ints for label-conditional runs (default: round the classes). data: the data a generator of images from
    images is given. Raises FastganError, also where memory runs out.
    """
    with out_of_memory(f"out of memory while sampling {n} images on {device}: ask for fewer at a time, or use another device"):
        return _sample(path, n, seed, labels, step, device, data)


def _sample(path: str | Path, n: int, seed: int | None, labels: Any, step: int | None, device: str, data: Any) -> Tensor:
    run, groups, state = _open(path, step)
    described = run["stages"][state["stage"]]
    if "spec" not in described["objective"]:
        raise FastganError(
            f"can't sample {path} without its script: {described['objective']['why_not']}; use Trainer(..., resume=True).sample()"
        )
    where = pick_device(device)
    objective = rebuild(described["objective"]["spec"])
    nets = {}
    for name in groups["nets"]:
        if "spec" not in described["nets"][name] and name not in described["ema"]:
            continue  # such as a discriminator: sampling has no use for it
        net = _network(described, name, None, Path(path))
        load_network(net, groups["ema"].get(name, groups["nets"][name]), name)
        nets[name] = net.to(where)
    if n < 1:
        raise FastganError(f"can't sample {n} images: ask for at least one")
    if seed is not None and not 0 <= seed < 2**32:
        raise FastganError(f"seed must lie in [0, 2**32), not {seed}")
    datasets = open_streams(data, size=described["size"], channels=None, strict=False) if data is not None else {}
    first_step = sum(stage["steps"] for stage in run["stages"][: state["stage"]])
    scalar = {k: torch.tensor(v, device=where) for k, v in objective.schedule(state["step"] - first_step).items()}
    if labels is not None:
        _check_labels(labels, n, run["classes"] if getattr(objective, "conditional", True) else None, path)
    elif not datasets and run["classes"]:
        labels = torch.arange(n) % len(run["classes"])
    seed = run["seed"] if seed is None else seed
    return sampling.generate(
        objective,
        nets,
        n,
        seed=seed,
        device=where,
        precision=resolve("fp32", where),
        datasets=datasets,
        labels=labels,
        scalar=scalar,
    )


def samples_of(run: str | Path, n: int, *, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """n images (n, C, H, W) in [0, 1] of a run's averaged generator, and of the untrained one (None: it can't be made anew)."""
    images = sample(run, n, seed=seed)
    blank = _untrained(Path(run).expanduser(), n, seed)
    return images, blank if blank is not None and blank.shape == images.shape else None


def _untrained(run: Path, n: int, seed: int) -> Tensor | None:
    facts = read_facts(run)
    stage = facts["stages"][-1]
    specs = {name: how.get("spec") for name, how in stage["nets"].items()}
    if "spec" not in stage["objective"] or None in specs.values():
        return None
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        nets = {name: rebuild(spec) for name, spec in specs.items()}
    objective, where = rebuild(stage["objective"]["spec"]), torch.device("cpu")
    scalar = {key: torch.tensor(value) for key, value in objective.schedule(0).items()}
    labels = torch.arange(n) % len(facts["classes"]) if facts.get("classes") else None
    precision = resolve("fp32", where)
    return sampling.generate(objective, nets, n, seed=seed, device=where, precision=precision, labels=labels, scalar=scalar)


def _open(path: str | Path, step: int | None) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    folder = Path(path).expanduser()
    facts = read_facts(folder)
    groups, state = Checkpoints(folder / "checkpoints").load(step)
    return facts, groups, state


def _check_labels(labels: Any, n: int, classes: list[str] | None, path: str | Path) -> None:
    if not classes:
        raise FastganError(f"{path} was trained without labels: leave the label out")
    values = torch.as_tensor(labels, dtype=torch.int64).reshape(-1)
    if len(values) not in (1, n):
        raise FastganError(f"{len(values)} labels for {n} images: give one, or one for each")
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < len(classes):
        raise FastganError(f"labels of {path} go from 0 to {len(classes) - 1} ({', '.join(classes)})")


def _network(described: dict[str, Any], name: str, given: nn.Module | None, path: Path) -> nn.Module:
    if given is not None:
        return given
    if name not in described["nets"]:
        raise FastganError(f"{path} has no network {name!r}: there are {', '.join(described['nets'])}")
    how = described["nets"][name]
    if "spec" not in how:
        remedy = "make it yourself and pass it, load(path, generator=net)"
        raise FastganError(f"network {name!r} of {path} can't be made again ({how['why_not']}): {remedy}")
    with torch.random.fork_rng([]):
        return rebuild(how["spec"])
