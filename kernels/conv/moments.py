"""What surrounds a fused convolution: merging its tile moments, and writing g = (dy + a + b*y) *
act_out'(y) once.

Tile moments (mean, M2, count) are merged by Chan, Golub & LeVeque (1979), about a first estimate of
the mean and in a fixed order.
The gradient of the moments: mean = sum(y)/n and var = sum((y-mean)^2)/n give dy += dmean/n +
dvar*2/n*(y - mean) = a + b*y.
"""

from __future__ import annotations

import torch

from fastgan.kernels.activations import output_slope
from fastgan.kernels.common import cdiv, next_power_of_2, tl, triton
from fastgan.kernels.conv.plan import channels_last, multiprocessors
from fastgan.kernels.conv.tile import affine


@triton.jit(do_not_specialize=["SLOTS"])
def merge_moments_kernel(
    mean_ptr,
    m2_ptr,
    count_ptr,
    out_mean_ptr,
    out_var_ptr,
    SLOTS,
    C,
    FOLD: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    group = tl.program_id(1)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    start = group * SLOTS * C
    n = tl.zeros((BLOCK_R,), tl.float32)
    s1 = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for i in range(0, SLOTS, BLOCK_R):
        slot = i + tl.arange(0, BLOCK_R)
        keep = (slot < SLOTS)[:, None] & (c < C)[None, :]
        count = tl.load(
            count_ptr + group * (SLOTS // FOLD) + slot // FOLD, mask=slot < SLOTS, other=0.0
        )
        n += count
        s1 += (
            tl.load(mean_ptr + start + slot[:, None] * C + c[None, :], mask=keep, other=0.0)
            * count[:, None]
        )
    total = tl.sum(n, 0)
    pivot = tl.sum(s1, 0) / total
    s1 = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    s2 = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for i in range(0, SLOTS, BLOCK_R):
        slot = i + tl.arange(0, BLOCK_R)
        keep = (slot < SLOTS)[:, None] & (c < C)[None, :]
        count = tl.load(
            count_ptr + group * (SLOTS // FOLD) + slot // FOLD, mask=slot < SLOTS, other=0.0
        )
        at = start + slot[:, None] * C + c[None, :]
        # an empty tile (its phase ends a row earlier) has mean 0: its count of 0 drops it
        d = tl.where(keep, tl.load(mean_ptr + at, mask=keep, other=0.0) - pivot[None, :], 0.0)
        s1 += d * count[:, None]
        s2 += d * d * count[:, None] + tl.load(m2_ptr + at, mask=keep, other=0.0)
    shift = tl.sum(s1, 0) / total
    tl.store(out_mean_ptr + group * C + c, pivot + shift, mask=c < C)
    tl.store(
        out_var_ptr + group * C + c,
        tl.maximum(tl.sum(s2, 0) / total - shift * shift, 0.0),
        mask=c < C,
    )


def merge_moments(
    mean: torch.Tensor, m2: torch.Tensor, count: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tile moments [groups,slots,C] and counts [groups,slots or a divisor] -> mean and biased
    variance [groups,C], fp32."""
    groups, slots, channels = mean.shape
    # two tensors, not two views of one: a registered operator may not return aliases
    out = [
        torch.empty((groups, channels), dtype=torch.float32, device=mean.device) for _ in range(2)
    ]
    merge_moments_kernel[(cdiv(channels, 8), groups)](
        mean,
        m2,
        count,
        *out,
        slots,
        channels,
        FOLD=slots // count.shape[1],
        BLOCK_R=min(128, next_power_of_2(slots)),
        BLOCK_C=8,
        num_warps=4,
    )
    return out[0], out[1]


@triton.jit(do_not_specialize=["ROWS", "PER_BLOCK", "inverse_n"])
def form_gradient_kernel(
    dy_ptr,
    y_ptr,
    mean_ptr,
    dmean_ptr,
    dvar_ptr,
    g_ptr,
    sum_ptr,
    ROWS,
    PER_BLOCK,
    C,
    inverse_n,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    block, blocks, group = tl.program_id(0), tl.num_programs(0), tl.program_id(2)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    b = tl.zeros((BLOCK_C,), tl.float32)
    a = tl.zeros((BLOCK_C,), tl.float32)
    if dmean_ptr is not None:
        channel = (
            group * C + c
            # not `at`: the compiler carries a name of the loop's from before it, and types must
            # agree
        )
        b = tl.load(dvar_ptr + channel, mask=c < C, other=0.0) * (2.0 * inverse_n)
        a = tl.load(dmean_ptr + channel, mask=c < C, other=0.0) * inverse_n
        a -= b * tl.load(mean_ptr + channel, mask=c < C, other=0.0)
    start = block * PER_BLOCK
    end = tl.minimum(start + PER_BLOCK, ROWS)
    base = (group.to(tl.int64) * ROWS + start) * C
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for r in range(start, end, BLOCK_R):
        row = r - start + tl.arange(0, BLOCK_R)
        keep = (row < end - start)[:, None] & (c < C)[None, :]
        at = row[:, None] * C + c[None, :]
        y = tl.load(y_ptr + base + at, mask=keep, other=0.0).to(tl.float32)
        g = tl.load(dy_ptr + base + at, mask=keep, other=0.0).to(tl.float32)
        if dmean_ptr is not None:
            g += affine(y, b, a)
        g = tl.where(keep, g * output_slope(y, ACT, SLOPE), 0.0)
        stored = g.to(g_ptr.dtype.element_ty)
        tl.store(g_ptr + base + at, stored, mask=keep)
        total += stored.to(tl.float32)
    if sum_ptr is not None:
        tl.store(sum_ptr + (group * blocks + block) * C + c, tl.sum(total, 0), mask=c < C)


def form_gradient(
    dy: torch.Tensor,
    y: torch.Tensor,
    mean: torch.Tensor | None = None,
    dmean: torch.Tensor | None = None,
    dvar: torch.Tensor | None = None,
    *,
    act_out: str = "identity",
    slope_out: float = 0.0,
    groups: int = 1,
    sums: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """g [N,C,H,W] in y's type from dy and y, and with `sums` its fp32 channel sums [C] (the bias
    gradient), in one reading.

    mean, dmean, dvar: fp32 [groups,C], all or none (None: no moments were asked for)."""
    dy, y = channels_last(dy, y.dtype), channels_last(y)
    n, channels, height, width = y.shape
    rows = n // groups * height * width
    g = torch.empty((n, height, width, channels), dtype=y.dtype, device=y.device).permute(
        0, 3, 1, 2
    )
    block_c = min(64, max(8, next_power_of_2(channels)))
    block_r = 2048 // block_c
    columns = cdiv(channels, block_c)
    per_block = (
        cdiv(cdiv(rows, max(1, 8 * multiprocessors(y.device) // (columns * groups))), block_r)
        * block_r
    )
    blocks = cdiv(rows, per_block)
    partial = (
        torch.empty((groups * blocks, channels), dtype=torch.float32, device=y.device)
        if sums
        else None
    )
    form_gradient_kernel[(blocks, columns, groups)](
        dy,
        y,
        mean,
        dmean,
        dvar,
        g,
        partial,
        rows,
        per_block,
        channels,
        1.0 / rows,
        ACT=act_out,
        SLOPE=slope_out,
        BLOCK_R=block_r,
        BLOCK_C=block_c,
        num_warps=4,
    )
    return g, None if partial is None else partial.sum(0)
