"""Frames made from those before them, made ones included, and how far into the future they
hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan.data import Dataset
from fastgan.judges.patches import Patches
from fastgan.metrics.fidelity import ABOUT_CLOSE, TARGETS, Table, psnr, ssim
from fastgan.objectives.base import Step
from fastgan.trainer.reuse.load import walk


def sharpness(images: Tensor, targets: Tensor) -> Tensor:
    """(B,) mean absolute differences of neighbours, as a share of the targets'."""

    def slope(x: Tensor) -> Tensor:
        across, down = (x[..., 1:] - x[..., :-1]).abs(), (x[..., 1:, :] - x[..., :-1, :]).abs()
        return across.flatten(1).mean(1) + down.flatten(1).mean(1)

    return slope(images.double()) / slope(targets.double()).clamp_min(1e-8)


def onwards(step: Step, made: Tensor, count: int) -> Iterator[Tensor]:
    """`count` frames (B, C, H, W) in [-1, 1]: `made`, then each from those before it. Changes
    `step.batch["source"]`, the frames that are given."""
    yield made
    for _ in range(count - 1):
        step.batch["source"] = torch.cat([step.batch["source"][:, made.shape[1] :], made], 1)
        made = step.sample()
        yield made


@torch.no_grad()
def continued(
    run: str, datasets: Mapping[str, Dataset], count: int, **options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """(given, made, true) frames, (n, t, C, H, W) in [0, 1] each: those of "source", the `count`
    with which a run goes on from them, those of "image".

    options: of `fastgan.trainer.reuse.load.walk`. Raises FastganError.
    """
    parts: list[tuple[Tensor, ...]] = []
    for step, first in walk(run, datasets, **options):
        given, true = (
            torch.stack(step.batch[name].split(first.shape[1], 1), 1)
            for name in ("source", "image")
        )
        parts.append((given, torch.stack([*onwards(step, first, count)], 1), true))
    given, made, true = (torch.cat(part).float().cpu() for part in zip(*parts))
    return _seen(given), _seen(made), _seen(true)


def _seen(frames: Tensor) -> Tensor:
    return frames.add(1).div(2).clamp(0, 1)


@torch.no_grad()
def recursion(
    run: str,
    datasets: Mapping[str, Dataset],
    times: Sequence[int],
    *,
    seed: int = 0,
    trust: bool = False,
) -> Table:
    """PSNR, SSIM, sharpness and the distance of `Patches` at `times` frames ahead, where
    each frame is made from those made before it, beside repeating the last one that was given.

    `batch["image"]` holds the frames to come as channels. Raises FastganError.
    """
    found: dict[str, list[Tensor]] = {"generator": [], "repeat the last": []}
    patches = {ahead: Patches(max(map(len, datasets.values())), seed) for ahead in times}
    count = 0
    for step, first in walk(run, datasets, seed=seed, trust=trust):
        truth = step.batch["image"].split(first.shape[1], 1)
        last = step.batch["source"][:, -first.shape[1] :]
        rows: dict[str, list[Tensor]] = {name: [] for name in found}
        for ahead, made in enumerate(onwards(step, first, max(times)), 1):
            if ahead in times:
                patches[ahead].add(
                    truth[ahead - 1].float(), {"generator": made, "repeat the last": last}
                )
                for name, frame in (("generator", made), ("repeat the last", last)):
                    frame, true = frame.float().clamp(-1, 1), truth[ahead - 1]
                    rows[name] += [psnr(frame, true), ssim(frame, true), sharpness(frame, true)]
        for name, values in rows.items():
            found[name].append(torch.stack(values, 1))
        count += len(first)
    columns = [f"{what} t+{t}" for t in times for what in ("PSNR", "SSIM", "sharp")]
    means = {name: torch.cat(parts).mean(0).tolist() for name, parts in found.items()}
    table = {name: dict(zip(columns, values)) for name, values in means.items()}
    for ahead, judge in patches.items():
        for name, distance in judge.distances().items():
            table.setdefault(name or TARGETS, {})[f"FD t+{ahead}"] = distance
    return Table(
        f"{run}: {count:,} held-out windows",
        table,
        "PSNR in dB; sharp is the mean slope as a share of the truth's\n"
        f"  FD is FD-patches. {ABOUT_CLOSE}",
    )
