"""Mean and variance over rows, and the backward of both. Layout and segments as in forward.py."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.kernels.common import cdiv, tl, triton
from fastgan.kernels.norm.tickets import GROUP, is_last, ring, tickets_of
from fastgan.kernels.norm.tiles import (
    SIZES,
    count_batches,
    merge_lanes,
    pointer,
    rows_of,
    running_factor,
    split,
    tiled,
    update_running,
    welford_rows,
)


@triton.jit
def merged_moments(
    part_ptr, slot, first, count, unit, SPLITS, L, c, C, BLOCK_R: tl.constexpr, GROUP: tl.constexpr
):
    """(rows, mean, M2) of parts first .. first + count - 1, which lie at `slot` and on, by Chan's
    merge about the first one's mean. A part is `unit` of the SPLITS splits of L rows, or what is
    left of them; a split has had tiles of BLOCK_R rows in turns."""
    live = (c < C)[None, :]
    turns = L // (SPLITS * BLOCK_R)
    rest = L - turns * SPLITS * BLOCK_R
    rows = tl.zeros((GROUP, 1), tl.float32)
    mean = tl.zeros((GROUP, c.shape[0]), tl.float32)
    m2 = tl.zeros((GROUP, c.shape[0]), tl.float32)
    base = part_ptr + slot.to(tl.int64) * 2 * C + c
    pivot = tl.load(base, mask=c < C, other=0.0, cache_modifier=".cg")
    for t in range(0, count, GROUP):
        i = t + tl.arange(0, GROUP)
        begin = (first + i) * unit
        splits = tl.minimum(tl.maximum(SPLITS - begin, 0), unit)
        more = tl.minimum(tl.maximum(rest - begin * BLOCK_R, 0), splits * BLOCK_R)
        n = tl.where(i < count, splits * turns * BLOCK_R + more, 0).to(tl.float32)[:, None]
        at = base[None, :] + i[:, None] * (2 * C)
        keep = (i < count)[:, None] & live
        found = tl.load(at, mask=keep, other=0.0, cache_modifier=".cg")
        d = tl.where(keep, found - pivot[None, :] - mean, 0.0)
        share = n / tl.maximum(rows + n, 1.0)
        within = tl.load(at + C, mask=keep, other=0.0, cache_modifier=".cg")
        m2 += within + d * d * rows * share
        mean += d * share
        rows += n
    whole = tl.sum(rows)
    mean, m2 = merge_lanes(rows, mean, m2, whole)
    return whole, mean + pivot, m2


@triton.jit(do_not_specialize=SIZES)
def moments_kernel(
    x_ptr,
    part_ptr,
    stats_ptr,
    running_mean_ptr,
    running_var_ptr,
    tracked_ptr,
    tickets_ptr,
    C,
    L,
    SPLITS,
    SEGMENTS,
    TICKET,
    momentum,
    RUNNING: tl.constexpr,
    CUMULATIVE: tl.constexpr,
    TRACKED: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """A split's part of the moments, merged by the last ones (tickets.py). With RUNNING the last of
    all segments takes them into the running statistics, in order (real, then fake)."""
    segment, split = tl.program_id(0) // SPLITS, tl.program_id(0) % SPLITS
    block = tl.program_id(1)
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)
    live = c < C
    # Splits interleave tile by tile: memory is read in order, and its end is still in L2 when the
    # next pass starts there.
    base = segment.to(tl.int64) * L * C
    pivot, count, mean, m2 = welford_rows(
        x_ptr, base, split * BLOCK_R, SPLITS * BLOCK_R, L, c, C, BLOCK_R, BLOCK_C
    )
    mean, m2 = merge_lanes(count, mean, m2, tl.sum(count))
    slot = (segment * SPLITS + split).to(tl.int64) * 2 * C + c
    tl.store(part_ptr + slot, pivot + mean, mask=live)
    tl.store(part_ptr + slot + C, m2, mask=live)
    groups = tl.cdiv(SPLITS, GROUP)
    ticket_ptr = tickets_ptr + TICKET + block * (SEGMENTS * (groups + 1) + 1)
    own_ptr = ticket_ptr + segment * (groups + 1)
    group = split // GROUP
    first = group * GROUP
    members = tl.minimum(SPLITS - first, GROUP)
    if is_last(own_ptr + group, members):
        n, mean, m2 = merged_moments(
            *(part_ptr, segment * SPLITS + first, first, members, 1, SPLITS, L, c, C),
            *(BLOCK_R, GROUP),
        )
        last = groups == 1
        if groups > 1:
            upper = SEGMENTS * SPLITS + segment * groups
            slot = (upper + group).to(tl.int64) * 2 * C + c
            tl.store(part_ptr + slot, mean, mask=live)
            tl.store(part_ptr + slot + C, m2, mask=live)
            last = is_last(own_ptr + groups, groups)
            if last:
                n, mean, m2 = merged_moments(
                    *(part_ptr, upper, 0, groups, GROUP, SPLITS, L, c, C), *(BLOCK_R, GROUP)
                )
        if last:
            tl.store(stats_ptr + segment * C + c, mean, mask=live)
            tl.store(stats_ptr + (SEGMENTS + segment) * C + c, m2 / n, mask=live)
            if RUNNING:  # noqa: SIM102  # decided by the compiler, the other one on the device
                if is_last(ticket_ptr + SEGMENTS * (groups + 1), SEGMENTS):
                    for s in range(SEGMENTS):
                        factor = running_factor(tracked_ptr, s, SEGMENTS, momentum, CUMULATIVE)
                        at = stats_ptr + s * C + c
                        mean = tl.load(at, mask=live, other=0.0, cache_modifier=".cg")
                        var = tl.load(at + SEGMENTS * C, mask=live, other=0.0, cache_modifier=".cg")
                        update_running(
                            running_mean_ptr, running_var_ptr, c, C, mean, var, n, factor
                        )
                    count_batches(tracked_ptr, SEGMENTS, block, RUNNING, CUMULATIVE, TRACKED)


def count_first(
    tracked: Tensor | None,
    segments: int,
    running: tuple[Tensor, Tensor] | None,
    momentum: float | None,
) -> None:
    """The count that a cumulative factor reads must be ready before the launch that reads it."""
    if tracked is not None and running is not None and momentum is None:
        tracked.add_(segments)


def moments(
    x: Tensor,
    segments: int,
    running: tuple[Tensor, Tensor] | None = None,
    tracked: Tensor | None = None,
    momentum: float | None = 0.1,
) -> Tensor:
    """fp32 [2, segments, C] mean and biased variance of x [ROWS, C]; one launch. `running` (mean,
    var) [C] is updated in place, segment by segment;
    `tracked` (int64, 0-dim) is increased by `segments`; momentum=None takes 1/count from it.
    """
    count_first(tracked, segments, running, momentum)
    at = rows_of(x, segments)
    channels, rows = at.channels, at.rows
    config, parts, grid = split("norm_moments", at, 4)
    rows_of_parts = segments * (parts + cdiv(parts, GROUP))
    part = torch.empty(rows_of_parts, 2, channels, dtype=torch.float32, device=x.device)
    stats = torch.empty(2, segments, channels, dtype=torch.float32, device=x.device)
    mean, var = running or (stats, stats)
    tickets, first = ring(x.device).take(grid[1] * tickets_of(segments, parts))
    moments_kernel[grid](
        x,
        part,
        stats,
        mean,
        var,
        pointer(tracked, stats),
        tickets,
        channels,
        rows,
        parts,
        segments,
        first,
        momentum or 0.0,
        RUNNING=running is not None,
        CUMULATIVE=momentum is None,
        TRACKED=tracked is not None,
        GROUP=GROUP,
        **config,
    )
    return stats


@triton.jit(do_not_specialize=SIZES)
def moments_dx_kernel(
    dy_ptr,
    x_ptr,
    dx_ptr,
    mean_ptr,
    dmean_ptr,
    dvar_ptr,
    C,
    L,
    TILES,
    HAS_DY: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """g = dy + dmean/n + dvar (2/n) (x - mean): what the moments add to the gradient of the tensor
    they were taken of."""
    pid = tl.program_id(0)
    segment, tile = pid // TILES, pid % TILES
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    lane = tl.arange(0, BLOCK_R)
    n = L.to(tl.float32)
    slot = segment * C + c
    mean = tl.load(mean_ptr + slot, mask=c < C, other=0.0)
    k0 = tl.load(dmean_ptr + slot, mask=c < C, other=0.0) / n
    k1 = tl.load(dvar_ptr + slot, mask=c < C, other=0.0) * (2.0 / n)
    base = (segment * L + tile * BLOCK_R).to(tl.int64) * C
    at = base + (lane[:, None] * C + c[None, :])
    keep = (lane < L - tile * BLOCK_R)[:, None] & (c < C)[None, :]
    g = k0[None, :] + k1[None, :] * (
        tl.load(x_ptr + at, mask=keep, other=0.0).to(tl.float32) - mean[None, :]
    )
    if HAS_DY:
        g += tl.load(dy_ptr + at, mask=keep, other=0.0).to(tl.float32)
    tl.store(dx_ptr + at, g.to(dx_ptr.dtype.element_ty), mask=keep)


def moments_backward(dy: Tensor | None, x: Tensor, stats: Tensor, dstats: Tensor) -> Tensor:
    """g = dy + dmean/n + dvar (2/n) (x - mean) of x [ROWS, C] and stats, dstats [2, S, C]; one
    launch."""
    at = rows_of(x, stats.shape[1])
    config, tiles, grid = tiled("norm_moments_dx", at)
    out = torch.empty_like(x)
    moments_dx_kernel[grid](
        pointer(dy, x),
        x,
        out,
        stats[0],
        *dstats.unbind(0),
        at.channels,
        at.rows,
        tiles,
        HAS_DY=dy is not None,
        **config,
    )
    return out
