"""Directions in latent space in which images change most, in closed form (SeFa: Shen & Zhou 2021).

They are the eigenvectors of A^T A, where A takes a latent to the outputs of the first layer that
sees it, each output's row normalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.errors import FastganError
from fastgan.objectives.base import Step
from fastgan.trainer.reuse.restoring import OpenRun

LARGEST = 4096
"""Numbers of the largest latent whose directions are searched."""

LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True)
class Directions:
    """noise: the name of the random input. vectors: (k, d), orthonormal, the strongest first.
    strengths: (k,), shares of all change, which sum to at most 1. layer: the layer they were read
    from."""

    noise: str
    vectors: Tensor
    strengths: Tensor
    layer: str


def differentiable(run: OpenRun, noise: dict[str, Tensor], labels: Tensor | None = None) -> Tensor:
    """Images (n, C, H, W) in [-1, 1] of the run's networks in eval mode, with their graph. Raises
    FastganError."""
    batch = {} if labels is None else {"label": labels}
    batch |= run.texts(len(next(iter(noise.values()))), ())
    batch = {name: value.to(run.device) for name, value in batch.items()}
    for net in run.nets.values():
        net.eval().requires_grad_(False)
    given = {name: value.to(run.device) for name, value in noise.items()}
    step = Step(
        run.objective, run.nets, run.facts["seed"], batch=batch, noise=given, scalar=run.scalar
    )
    with run.explained():
        return run.objective.sample(step)


class _Seen(Exception):
    """Ends a forward pass at the first layer that sees the latent."""


def directions(run: OpenRun, count: int = 8, seed: int = 0) -> Directions:
    """The `count` strongest directions of a run's generator.

    Raises FastganError where it has no latent, or its first layer takes a whole map.
    """
    named = [name for name, spec in run.objective.noise.items() if spec.kind != "categorical"]
    if not named:
        raise FastganError(f"{run.path} makes images from no latent: there are no directions")
    drawn = run.noise(1, seed)
    shape, size = drawn[named[0]].shape, drawn[named[0]].numel()
    if size > LARGEST:
        raise FastganError(f"a latent of {size} numbers is too large to search for directions")
    labels = torch.zeros(1, dtype=torch.int64) if run.facts["classes"] else None
    seen: dict[str, Any] = {}

    def look(layer: nn.Module, given: tuple[Any, ...]) -> None:
        if given and isinstance(given[0], Tensor) and given[0].requires_grad:
            seen["layer"], seen["input"] = layer, given[0]
            raise _Seen

    hooks = [
        module.register_forward_pre_hook(look)
        for net in run.nets.values()
        for module in net.modules()
        if isinstance(module, LAYERS)
    ]
    latent = drawn[named[0]].clone().requires_grad_()
    try:
        differentiable(run, drawn | {named[0]: latent}, labels)
    except FastganError as error:
        if not isinstance(error.__cause__, _Seen):
            raise
    finally:
        for hook in hooks:
            hook.remove()
    if "layer" not in seen or seen["input"].shape[2:].numel() != 1:
        raise FastganError(
            f"no layer of {run.path} takes its latent as one vector: there are no directions"
        )
    layer, given = seen["layer"], seen["input"].flatten()
    jacobian = torch.stack(
        [torch.autograd.grad(value, latent, retain_graph=True)[0].flatten() for value in given]
    )
    weight = layer.weight.detach()
    if isinstance(layer, nn.Linear):
        matrix = weight
    elif isinstance(layer, nn.ConvTranspose2d):
        matrix = weight.flatten(1).T  # groups of one; (inputs, outputs, h, w)
    else:
        matrix = weight.permute(0, 2, 3, 1).flatten(0, 2)
    if matrix.shape[1] != len(given):
        raise FastganError(f"the first layer of {run.path} is grouped: there are no directions")
    change = (matrix @ jacobian).double()
    change = change / change.norm(dim=1, keepdim=True).clamp_min(1e-12)
    values, vectors = torch.linalg.eigh(change.T @ change)
    count = min(count, size)
    order = values.argsort(descending=True)[:count]
    chosen = vectors[:, order].T.contiguous()
    # the sign of an eigenvector is the solver's own: its largest entry is positive here
    chosen *= chosen.gather(1, chosen.abs().argmax(1, keepdim=True)).sign()
    strengths = values[order] / values.sum().clamp_min(1e-12)
    name = next(n for net in run.nets.values() for n, m in net.named_modules() if m is layer)
    return Directions(named[0], chosen.float().view(count, *shape[1:]), strengths.float(), name)
