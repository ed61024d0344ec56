"""What the normalisation kernels share: jitted pieces, and the choice of tiles and splits. Layout
in forward.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastgan.kernels import tuning
from fastgan.kernels.common import cdiv, next_power_of_2, tl, triton

# Sizes that change with the batch: one binary serves them all. C stays specialised, so that
# channels load in 16-byte vectors.
SIZES = ["L", "TILES", "SPLITS", "WEIGHT_EVERY", "STATS_EVERY", "SEGMENTS", "momentum"]

SPLIT_PROGRAMS = 512
"""Programs of a reducing pass: four for each of an H100's 132 processors, all resident at once, 32
KiB in flight on each. Constant: every GPU sums in one order."""

MERGE_CONFIG = {"BLOCK_T": 256, "BLOCK_C": 8, "num_warps": 4, "num_stages": 1}

ONE_LAUNCH = {"MAX_ROWS": 1024}
"""Segments up to this length take one launch. On an H200 both ways cost 10 us at 2048 rows of 512
channels, and from there on several launches win (`fastgan bench --stages norm`)."""


@triton.jit
def channel_vectors(
    weight_ptr,
    bias_ptr,
    mean_ptr,
    var_ptr,
    weight_row,
    stats_row,
    c,
    C,
    eps,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_STATS: tl.constexpr,
):
    """(mean, rstd, gamma, beta) of channels c in fp32; absent ones are (0, 1, 1, 0)."""
    live = c < C
    mean = tl.zeros(c.shape, tl.float32)
    rstd = tl.full(c.shape, 1.0, tl.float32)
    gamma = tl.full(c.shape, 1.0, tl.float32)
    beta = tl.zeros(c.shape, tl.float32)
    if HAS_STATS:
        mean = tl.load(mean_ptr + stats_row * C + c, mask=live, other=0.0).to(tl.float32)
        variance = tl.load(var_ptr + stats_row * C + c, mask=live, other=1.0).to(tl.float32)
        rstd = 1.0 / tl.sqrt_rn(variance + eps)
    if HAS_WEIGHT:
        gamma = tl.load(weight_ptr + weight_row * C + c, mask=live, other=1.0).to(tl.float32)
    if HAS_BIAS:
        beta = tl.load(bias_ptr + weight_row * C + c, mask=live, other=0.0).to(tl.float32)
    return mean, rstd, gamma, beta


@triton.jit
def preactivation(x, mean, scale, beta, HAS_STATS: tl.constexpr):
    """(x - mean) scale + beta, or x scale + beta: the one expression of forward and backward, so
    that their masks agree."""
    x = x.to(tl.float32)
    if HAS_STATS:
        x = (
            x - mean[None, :]
        )  # before the product: x scale + (beta - mean scale) would cancel where |mean| >> std
    return x * scale[None, :] + beta[None, :]


@triton.jit
def merge_lanes(count, mean, m2, total):
    """Chan's merge of the rows of [R, C] (count, mean, M2) into [C] (mean, M2); empty lanes have
    count 0."""
    whole = tl.sum(count * mean, 0) / total
    whole += (
        tl.sum(count * (mean - whole[None, :]), 0) / total
    )  # what rounding left of the first sum
    d = mean - whole[None, :]
    return whole, tl.sum(m2 + count * d * d, 0)


@triton.jit
def welford_rows(x_ptr, base, first, step, L, c, C, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """(pivot [C], count [R, 1], mean - pivot, M2 [R, C]) of rows first + lane, first + lane + step,
    ... below L of the segment at element `base`."""
    lane = tl.arange(0, BLOCK_R)
    offset = lane[:, None] * C + c[None, :]
    mean = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    m2 = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    seen = 0.0
    pitch = tl.cast(C, tl.int64)
    # About a sample of the channel, so that a mean far from zero does not round in every turn.
    pivot = tl.load(x_ptr + (base + first * pitch) + c, mask=c < C, other=0.0).to(tl.float32)
    for row in range(first, L, step):
        seen += 1.0
        keep = (lane < L - row)[:, None] & (c < C)[None, :]
        x = tl.load(x_ptr + (base + row * pitch) + offset, mask=keep, other=0.0).to(tl.float32)
        x -= pivot[None, :]
        d = tl.where(keep, x - mean, 0.0)
        mean += d * (1.0 / seen)
        m2 += d * (x - mean)
    # A lane past the end of the segment in its last turn has seen one row less than its neighbours.
    count = tl.cdiv(tl.maximum(L - first - lane, 0), step).to(tl.float32)
    return pivot, count[:, None], mean, m2


@triton.jit
def running_factor(tracked_ptr, segment, SEGMENTS, momentum, CUMULATIVE: tl.constexpr):
    """momentum, or that of momentum=None from the device-side count, which has been increased by
    SEGMENTS already."""
    if CUMULATIVE:
        return 1.0 / (tl.load(tracked_ptr) - SEGMENTS + segment + 1).to(tl.float32)
    else:
        return momentum


@triton.jit
def count_batches(
    tracked_ptr, SEGMENTS, RUNNING: tl.constexpr, CUMULATIVE: tl.constexpr, TRACKED: tl.constexpr
):
    # a cumulative factor reads the count, so there the host has it increased by a launch before
    if (RUNNING and TRACKED and not CUMULATIVE) and tl.program_id(0) == 0:
        tl.store(tracked_ptr, tl.load(tracked_ptr) + SEGMENTS)


@triton.jit
def update_running(running_mean_ptr, running_var_ptr, c, C, mean, var, n, factor):
    """PyTorch's update with one segment's statistics of n rows: unbiased variance. The next segment
    may follow."""
    live = c < C
    old_mean = tl.load(running_mean_ptr + c, mask=live, other=0.0).to(tl.float32)
    old_var = tl.load(running_var_ptr + c, mask=live, other=0.0).to(tl.float32)
    unbiased = var * (n / (n - 1.0))
    tl.store(
        running_mean_ptr + c,
        ((1.0 - factor) * old_mean + factor * mean).to(running_mean_ptr.dtype.element_ty),
        mask=live,
    )
    tl.store(
        running_var_ptr + c,
        ((1.0 - factor) * old_var + factor * unbiased).to(running_var_ptr.dtype.element_ty),
        mask=live,
    )
    tl.debug_barrier()  # another thread may load them for the next segment


@triton.jit
def store_statistics(
    stats_ptr,
    running_mean_ptr,
    running_var_ptr,
    tracked_ptr,
    segment,
    SEGMENTS,
    c,
    C,
    mean,
    var,
    n,
    momentum,
    RUNNING: tl.constexpr,
    CUMULATIVE: tl.constexpr,
):
    """A segment's fp32 mean and biased variance of channels c, of n rows, into stats [2, SEGMENTS,
    C]; with RUNNING the running statistics take them in."""
    tl.store(stats_ptr + segment * C + c, mean, mask=c < C)
    tl.store(stats_ptr + (SEGMENTS + segment) * C + c, var, mask=c < C)
    if RUNNING:
        factor = running_factor(tracked_ptr, segment, SEGMENTS, momentum, CUMULATIVE)
        update_running(running_mean_ptr, running_var_ptr, c, C, mean, var, n, factor)


def tile_config(
    itemsize: int, channels: int, rows: int, num_warps: int = 4, vectors: int = 2, wide: int = 128
) -> dict[str, int]:
    """A safe tile for segments of `rows` rows: `vectors` 16-byte loads a thread and tensor, whole
    channel vectors first, rows for the rest, none longer than its segment. 16 bytes of fp32 hold
    half as many elements, which keeps registers in bounds.
    """
    elements = num_warps * 32 * vectors * (16 // itemsize)
    block_c = min(next_power_of_2(channels), wide)
    block_r = min(elements // block_c, next_power_of_2(rows))
    return {"BLOCK_R": block_r, "BLOCK_C": block_c, "num_warps": num_warps, "num_stages": 1}


def one_launch_tile(rows: int) -> dict[str, int]:
    """The safe tile of a kernel that keeps a segment of `rows` rows in one program: few run, so
    each takes many warps."""
    block_r = min(256, next_power_of_2(rows))
    return {"BLOCK_R": block_r, "BLOCK_C": 8, "num_warps": max(4, block_r // 16), "num_stages": 1}


class Rows(NamedTuple):
    """What a launch's configuration depends on: `segments` runs of `rows` rows of `channels`
    elements."""

    dtype: torch.dtype
    channels: int
    rows: int
    segments: int
    device: torch.device


def rows_of(x: Tensor, segments: int) -> Rows:
    """x (N, C, *), which lies channels innermost in memory, as `segments` equal runs of rows."""
    channels = x.shape[1]
    return Rows(x.dtype, channels, x.numel() // (channels * segments), segments, x.device)


def _config(name: str, at: Rows, num_warps: int, vectors: int, wide: int) -> Mapping[str, Any]:
    """The tables' configuration of kernel `name`, or the safe one."""
    default = tile_config(at.dtype.itemsize, at.channels, at.rows, num_warps, vectors, wide)
    return tuning.config(
        name, at.dtype, (("c", at.channels), ("rows", at.rows * at.segments)), default, at.device
    )


@tuning.kept
def tiled(name: str, at: Rows) -> tuple[Mapping[str, Any], int, tuple[int, int]]:
    """(configuration, tiles a segment, grid) of a pass that writes every tile: one program each."""
    config = _config(name, at, 8, 2, 128)
    tiles = cdiv(at.rows, config["BLOCK_R"])
    return config, tiles, (at.segments * tiles, cdiv(at.channels, config["BLOCK_C"]))


@tuning.kept
def split(name: str, at: Rows, vectors: int = 2) -> tuple[Mapping[str, Any], int, tuple[int, int]]:
    """(configuration, programs that share a segment, grid) of a reducing pass: enough to fill the
    GPU, none with fewer than four tiles.
    """
    config = _config(name, at, 4, vectors, 128)
    across = cdiv(at.channels, config["BLOCK_C"])
    wanted = cdiv(SPLIT_PROGRAMS, at.segments * across)
    parts = max(1, min(wanted, at.rows // (4 * config["BLOCK_R"])))
    return config, parts, (at.segments * parts, across)


@tuning.kept
def one_launch(name: str, at: Rows) -> Mapping[str, Any] | None:
    """The configuration of the one-launch kernel `name` where it is the better choice, else None:
    the whole segment passes through one program twice.
    """
    shape = (("c", at.channels), ("rows", at.rows * at.segments))
    if (
        at.rows
        > tuning.config("norm_one_launch", at.dtype, shape, ONE_LAUNCH, at.device)["MAX_ROWS"]
    ):
        return None
    return tuning.config(name, at.dtype, shape, one_launch_tile(at.rows), at.device)


@tuning.kept
def merge_config(channels: int, parts: int, device: torch.device) -> Mapping[str, Any]:
    """The configuration of a merge over `parts` partial results."""
    default = {**MERGE_CONFIG, "BLOCK_T": min(256, next_power_of_2(parts))}
    return tuning.config(
        "norm_merge", "fp32", (("c", channels), ("splits", parts)), default, device
    )


class Vectors(NamedTuple):
    """weight, bias [C] or [P, C] and mean, var [C] or [S, C], any of them absent: what a pass over
    given statistics takes."""

    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor | None
    var: Tensor | None

    def layout(self, x: Tensor) -> tuple[Rows, tuple[int, int]]:
        """x in as many segments as the larger of P and S, and how many of them share a row of
        weight, and of mean."""
        weights, stats = sets_of(self.weight, self.bias), sets_of(self.mean, self.var)
        segments = max(weights, stats)
        return rows_of(x, segments), (segments // weights, segments // stats)

    def pointers(self, stand_in: Tensor) -> list[Tensor]:
        return [stand_in if v is None else v for v in self]

    def flags(self) -> dict[str, bool]:
        return {
            "HAS_WEIGHT": self.weight is not None,
            "HAS_BIAS": self.bias is not None,
            "HAS_STATS": self.mean is not None,
        }


def sets_of(*vectors: Tensor | None) -> int:
    """Rows of the vectors, which are [C] (one set) or [P, C]."""
    for v in vectors:
        if v is not None and v.dim() == 2:
            return v.shape[0]
    return 1


def pointer(value: Tensor | None, stand_in: Tensor) -> Tensor:
    return stand_in if value is None else value
