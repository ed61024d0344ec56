"""How near images are to the right ones (L1, PSNR, SSIM), and how like real ones they look (a
distance of patches), on held-out data, beside baselines."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.data import Dataset
from fastgan.judges.patches import CLOSE, Patches
from fastgan.objectives.base import Step
from fastgan.trainer.reuse.load import walk


def psnr(images: Tensor, targets: Tensor, where: Tensor | None = None) -> Tensor:
    """(B,) peak signal-to-noise ratios in dB of images in [-1, 1], over the pixels that `where`
    (B, 1, H, W) tells; 100 dB where they are equal."""
    square = ((images - targets) / 2).double().square()
    return -10 * torch.log10(_mean(square, where).clamp_min(1e-10))


def l1(images: Tensor, targets: Tensor, where: Tensor | None = None) -> Tensor:
    """(B,) mean absolute differences of images in [-1, 1], in units of the range 0 to 1."""
    return _mean(((images - targets) / 2).double().abs(), where)


def _mean(values: Tensor, where: Tensor | None) -> Tensor:
    if where is None:
        return values.flatten(1).mean(1)
    weight = where.to(values.dtype).expand_as(values)
    return (values * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp_min(1)


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """(B,) structural similarities (Wang et al. 2004): Gaussian windows of 11 pixels and sigma 1.5
    (smaller where the image is), K1 = 0.01, K2 = 0.03, over whole windows."""
    a, b = (((x.clamp(-1, 1) + 1) / 2).double() for x in (images, targets))
    side = min(11, *a.shape[2:])
    at = torch.arange(side, dtype=a.dtype, device=a.device) - (side - 1) / 2
    line = torch.exp(-(at**2) / (2 * 1.5**2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    channels = a.shape[1]

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(x, kernel.expand(channels, 1, -1, -1), groups=channels)

    ma, mb = mean(a), mean(b)
    va, vb, ab = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    top = (2 * ma * mb + 0.01**2) * (2 * ab + 0.03**2)
    return (top / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2))).flatten(1).mean(1)


def iou(masks: Tensor, targets: Tensor) -> Tensor:
    """(B,) intersection over union of masks in [-1, 1], cut at 0: the mean of thing and background;
    1 where both lack one."""
    a, b = (x.flatten(1) > 0 for x in (masks, targets))
    shares = []
    for one, other in ((a, b), (~a, ~b)):
        union = (one | other).sum(1)
        shares.append(torch.where(union > 0, (one & other).sum(1) / union.clamp_min(1), 1.0))
    return torch.stack(shares).double().mean(0)


@dataclass(frozen=True)
class Table:
    """Named numbers of several ways to do one thing; `str` is a table."""

    title: str
    rows: Mapping[str, Mapping[str, float]]
    note: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        columns = list(dict.fromkeys(key for row in self.rows.values() for key in row))
        wide = max(22, *(len(name) + 2 for name in self.rows))
        lines = [self.title, "", f"  {'':<{wide}}" + "".join(f"{c:>16}" for c in columns)]
        for name, row in self.rows.items():
            cells = [f"{row[c]:>16.4g}" if c in row else f"{'':>16}" for c in columns]
            lines.append(f"  {name:<{wide}}" + "".join(cells))
        return "\n".join([*lines, "", f"  {self.note}"])


class ByShare(Table):
    """A table whose columns of some images alone, which end with %, are shown below the others, so
    that it fits a terminal. The part of the note after an empty line is theirs."""

    def __str__(self) -> str:
        all_of, some = {}, {}
        for name, row in self.rows.items():
            all_of[name] = {key: value for key, value in row.items() if not key.endswith("%")}
            if apart := {key: value for key, value in row.items() if key.endswith("%")}:
                some[name] = apart
        note, _, counts = self.note.partition("\n\n")
        title = "by its share of the image"
        return f"{Table(self.title, all_of, note)}\n\n{Table(title, some, counts)}"


Candidate = Callable[[Step], Tensor]

PSNR_IN = "PSNR in it, dB"
"""The column of the PSNR over the pixels that are compared alone."""

TARGETS = "targets"
"""The row of the right images themselves: the floor of `CLOSE`, all else being perfect."""

ABOUT_CLOSE = (
    f"{CLOSE}: do they look real? 0 is alike, 1 one flat colour; targets against other "
    "targets\n  are the floor"
)


def head(datasets: Mapping[str, Dataset], n: int) -> dict[str, Dataset]:
    """The first n samples of each data set."""
    return {name: d if len(d) <= n else d.take(np.arange(n)) for name, d in datasets.items()}


def made_from(
    run: str, datasets: Mapping[str, Dataset], *, seed: int = 0, trust: bool = False
) -> Tensor:
    """What a run makes of the data sets, (n, C, H, W) in [0, 1]."""
    made = [images.float().cpu() for _, images in walk(run, datasets, seed=seed, trust=trust)]
    return torch.cat(made).add(1).div(2).clamp(0, 1)


def fidelity(
    run: str,
    datasets: Mapping[str, Dataset],
    *,
    baselines: Mapping[str, Candidate],
    where: Candidate | None = None,
    shares: Sequence[float] = (),
    measures: Mapping[str, Callable[[Tensor, Tensor], Tensor]] | None = None,
    as_sets: bool = True,
    seed: int = 0,
    trust: bool = False,
) -> Table:
    """L1, PSNR and SSIM (in `where`: L1 and PSNR; or other `measures`) of what a run makes of the
    data sets, and of baselines, which are functions of the step; as_sets: and the distance
    of `Patches` to the targets, of `TARGETS` as well. shares: rising bounds of the share of an
    image's pixels that `where` tells, by which PSNR is told apart as well."""
    patches = Patches(max(map(len, datasets.values())), seed) if as_sets else None
    ways_of = measures or {"L1": l1, "PSNR dB": psnr, "SSIM": ssim}
    found: dict[str, list[Tensor]] = {}
    covered: list[Tensor] = []
    count = 0
    for step, made in walk(run, datasets, seed=seed, trust=trust):
        target = step.batch["image"].float()
        region = where(step) if where is not None else None
        ways = {"generator": made, **{name: base(step) for name, base in baselines.items()}}
        count += len(made)
        if region is not None:
            covered.append(region.double().mean((1, 2, 3)))
        if patches is not None:
            patches.add(target, ways, region)
        for name, images in ways.items():
            images = images.float().clamp(-1, 1)
            if region is None:
                values = [measure(images, target) for measure in ways_of.values()]
            else:
                values = [l1(images, target, region), psnr(images, target, region)]
            found.setdefault(name, []).append(torch.stack(values, 1))
    columns = tuple(ways_of) if where is None else ("L1 in it", PSNR_IN)
    rows = {name: _row(columns, parts) for name, parts in found.items()}
    note = "means over images; L1 of a range of 1"
    if patches is not None and (of_sets := patches.distances()):
        for name, distance in of_sets.items():
            rows.setdefault(name or TARGETS, {})[CLOSE] = distance
        note += f"\n  {ABOUT_CLOSE}"
    title = f"{run}: {count:,} held-out images"
    if not (covered and shares):
        return Table(title, rows, note)
    groups = _groups(torch.cat(covered).cpu(), shares)
    for name, parts in found.items():
        each = torch.cat(parts).cpu()[:, columns.index(PSNR_IN)]
        rows[name] |= {f"PSNR {group}": float(each[of].mean()) for group, of in groups.items()}
    counts = ", ".join(f"{len(of):,} ({group})" for group, of in groups.items())
    return ByShare(title, rows, f"{note}\n\nPSNR in it, dB, means over images: {counts}")


def _groups(covered: Tensor, bounds: Sequence[float]) -> dict[str, Tensor]:
    """Rows of the images, int64, whose share (n,) lies between two bounds, by a name for that; one
    at a bound is in the group below, and groups without images are left out."""
    ends = [f"{100 * bound:g}" for bound in bounds]
    between = [f"{a}-{b} %" for a, b in itertools.pairwise(ends)]
    names = [f"to {ends[0]} %", *between, f"over {ends[-1]} %"]
    group = torch.bucketize(covered, torch.tensor(bounds, dtype=covered.dtype))
    rows = [(group == i).nonzero().flatten() for i in range(len(names))]
    return {name: of for name, of in zip(names, rows, strict=True) if len(of)}


def _row(columns: Iterable[str], parts: list[Tensor]) -> dict[str, float]:
    means = torch.cat(parts).mean(0).tolist()
    return dict(zip(columns, means))
