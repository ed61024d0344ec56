"""Who a rendered face is, and how old: exact, because the same person can be drawn at every age."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastgan.data import Dataset
from fastgan.data.rendered import AGES, faces
from fastgan.judges.patches import CLOSE, Patches
from fastgan.metrics.fidelity import ABOUT_CLOSE, TARGETS, Table
from fastgan.trainer.reuse.load import walk


def aging(run: str, held_out: Dataset, *, seed: int = 0, trust: bool = False) -> Table:
    """Held-out rendered faces, each turned into the age groups after its own in turn.

    Age reached: the nearest (L1) of the five drawings of that person has the age asked for; chance
    is 0.2. Identity kept: the nearest drawing of that age among all n persons is of that person;
    chance is 1 / n. L1: to the drawing of that person at that age, in units of the range. The
    distance of `Patches` is to those drawings, too.
    """
    who = held_out.array("identity")
    side, n = held_out.fields["image"].shape[0], len(held_out)
    own = held_out.array("label")
    target = (own + 1 + np.arange(n) % (len(AGES) - 1)) % len(AGES)
    drawn = torch.stack(
        [_floats(faces(int(who.max()) + 1, side, age=k, index=who)["image"]) for k in range(5)], 1
    )
    given = _floats(held_out.array("image"))
    arrays = {"image": held_out.array("image"), "label": target}
    asked = Dataset(held_out.name, arrays, {"image": "image", "label": "label"}, classes=AGES)
    made = torch.cat(
        [m.float().cpu() for _, m in walk(run, {"image": asked}, seed=seed, trust=trust)]
    )
    ways = {"generator": made.add(1).div(2).clamp(0, 1).flatten(1), "input as it is": given}
    rows = {name: _scores(images, drawn, torch.from_numpy(target)) for name, images in ways.items()}
    patches, shape = Patches(n, seed), made.shape
    right = drawn[torch.arange(n), torch.from_numpy(target)].view(shape) * 2 - 1
    patches.add(right, {name: images.view(shape) * 2 - 1 for name, images in ways.items()})
    for name, distance in patches.distances().items():
        rows.setdefault(name or TARGETS, {})[CLOSE] = distance
    return Table(
        f"{run}: {n:,} held-out persons",
        rows,
        f"nearest drawings: chance is 0.2 of ages and {1 / n:.3g} of identities\n  {ABOUT_CLOSE}",
    )


def _scores(images: Tensor, drawn: Tensor, target: Tensor) -> dict[str, float]:
    n = len(images)
    ages = (images[:, None] - drawn).abs().mean(2)
    right = ages[torch.arange(n), target]
    kept = torch.zeros(n, dtype=torch.bool)
    for age in target.unique():
        rows = target == age
        others = torch.cdist(images[rows], drawn[:, age], p=1)
        kept[rows] = others.argmin(1) == torch.arange(n)[rows]
    return {
        "age reached": (ages.argmin(1) == target).double().mean().item(),
        "identity kept": kept.double().mean().item(),
        "L1": right.double().mean().item(),
    }


def _floats(pixels: np.ndarray) -> Tensor:
    """uint8 (n, H, W, C) as (n, C * H * W) in [0, 1]."""
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).float().div(255).flatten(1)
