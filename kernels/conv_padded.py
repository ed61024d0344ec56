"""Operands of the TMA convolutions: a matrix with one row a pixel, in which a tap is a constant distance between rows.

Every image becomes a grid one row and one column larger than it is, and what lies beyond the image is zero. Flattened, the spare
column is at once the right border of one row and the left border of the next, the spare row the lower border of one image and the
upper border of the next; above the first and below the last row of the matrix TMA itself gives zeros. So a tap (dh, dw) of any
pixel r is row r + dh*GW + dw, and a tile of rows is one box for TMA: no masks, no gather. The price is (H+1)(W+1)/(HW) rows.

The large side of a stride-2 pair is laid out in 2x2 blocks, [N, GH, GW, 2, 2, C]: there a tap is a distance between rows and a
column offset. What writes the matrix has to read its operand anyway, so it applies z = act(x*s + t), or forms
g = (dy + a + b*y) * act_out'(y), at no cost in traffic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastgan.kernels._common import cdiv, next_power_of_2, tl, triton
from fastgan.kernels.conv_plan import channels_last, multiprocessors
from fastgan.kernels.conv_spec import ConvSpec
from fastgan.kernels.conv_tile import load_operand

SHAPES = {((4, 4), (2, 2), (1, 1)), ((3, 3), (1, 1), (1, 1)), ((1, 1), (1, 1), (0, 0))}  # (kernel, stride, padding)


def covers(spec: ConvSpec) -> bool:
    """Whether taps of this geometry reach no further than one spare row and column."""
    usual = all(extra < step for extra, step in zip(spec.output_padding, spec.stride))
    return usual and (spec.kernel, spec.stride, spec.padding) in SHAPES


def aligned(a: Tensor) -> Tensor:
    """a, copied where it begins between two multiples of 16 bytes, as a view may: TMA faults there."""
    return a if a.is_meta or a.data_ptr() % 16 == 0 else a.clone()


@dataclass(frozen=True)
class Grid:
    """[N, GH, GW] pixels of a convolution's small side (x of a transposed one, y otherwise), spare row and column included."""

    images: int
    height: int
    width: int

    @property
    def rows(self) -> int:
        return self.images * self.height * self.width


def grid_of(spec: ConvSpec, images: int, size_in: tuple[int, int]) -> Grid:
    """The grid that x and y of one convolution share."""
    height, width = size_in if spec.transposed else spec.output_size(*size_in)
    spare = spec.kernel[0] > 1
    return Grid(images, height + spare, width + spare)


@triton.jit(do_not_specialize=["IMAGES", "H", "W", "GH", "GW", "PER_BLOCK"])
def pad_kernel(a_ptr, y_ptr, u_ptr, v_ptr, out_ptr, sum_ptr, IMAGES, H, W, GH, GW, C, PER_BLOCK, u_group,
               STEP: tl.constexpr, GRADIENT: tl.constexpr, ACT: tl.constexpr, SLOPE: tl.constexpr,
               BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    block, blocks, group = tl.program_id(0), tl.num_programs(0), tl.program_id(2)
    j = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)  # column of the matrix: (2x2 position, channel)
    c, position, known = j % C, j // C, j < STEP * STEP * C
    u, v = u_ptr, v_ptr
    if u_ptr is not None:
        u, v = u_ptr + group * u_group, v_ptr + group * u_group
    rows = IMAGES * GH * GW
    start = block * PER_BLOCK
    first = start // (GH * GW)
    base = (group * IMAGES + first).to(tl.int64)
    y = y_ptr
    if y_ptr is not None:
        y = y_ptr + base * H * W * C
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for r in range(start, tl.minimum(start + PER_BLOCK, rows), BLOCK_R):
        row = r + tl.arange(0, BLOCK_R)
        image, gh, gw = row // (GH * GW) - first, row % (GH * GW) // GW, row % GW
        h = (gh * STEP)[:, None] + (position // STEP)[None, :]
        w = (gw * STEP)[:, None] + (position % STEP)[None, :]
        mask = (row < tl.minimum(start + PER_BLOCK, rows))[:, None] & known[None, :]
        inside = mask & (h < H) & (w < W)
        at = ((image[:, None] * H + h) * W + w) * C + c[None, :]
        z = load_operand(a_ptr + base * H * W * C, y, u, v, at, c, known, inside, GRADIENT, ACT, SLOPE)
        to = (row - start).to(tl.int64)[:, None] * (STEP * STEP * C) + j[None, :]
        tl.store(out_ptr + (group.to(tl.int64) * rows + start) * (STEP * STEP * C) + to, z, mask=mask)
        total += z.to(tl.float32)
    if sum_ptr is not None:
        tl.store(sum_ptr + (group * blocks + block) * (STEP * STEP * C) + j, tl.sum(total, 0), mask=known)


def pad(a: Tensor, spec: ConvSpec, grid: Grid, large: bool, *, y: Tensor | None = None, u: Tensor | None = None,
        v: Tensor | None = None, gradient: bool = False, act: str = "identity", slope: float = 0.0, groups: int = 1,
        sums: bool = False) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """a [N,C,H,W] -> the matrix [grid.rows, C], or [grid.rows, 4C] for the `large` side of a stride-2 pair.

    z = act(a*u + v) or, with `gradient`, g = (a + v + u*y) * act'(y) is what is written; u, v: fp32 [C] or [groups,C]. `sums`:
    also the fp32 channel sums [C] of what was written. A 1x1 convolution's operand that nothing happens to is its own matrix.
    """
    a = channels_last(a)
    y = None if y is None else channels_last(y, a.dtype)
    c, height, width = a.shape[1:]
    if spec.kernel == (1, 1) and u is None and y is None and act == "identity" and not sums:
        return aligned(a).permute(0, 2, 3, 1).reshape(-1, c), None
    step = 2 if large and spec.stride[0] == 2 else 1
    columns = step * step * c
    out = torch.empty((grid.rows, columns), dtype=a.dtype, device=a.device)
    rows = grid.rows // groups
    block_c = min(64, next_power_of_2(columns))
    block_r = 2048 // block_c
    across = cdiv(columns, block_c)
    per_block = max(1, cdiv(cdiv(rows, max(1, 8 * multiprocessors(a.device) // (across * groups))), block_r)) * block_r
    blocks = cdiv(rows, per_block)
    partial = torch.empty((groups * blocks, step * step, c), dtype=torch.float32, device=a.device) if sums else None
    by_group = c if u is not None and u.numel() == groups * c and groups > 1 else 0
    pad_kernel[(blocks, across, groups)](
        a, y, u, v, out, partial, grid.images // groups, height, width, grid.height, grid.width, c, per_block, by_group,
        STEP=step, GRADIENT=gradient, ACT=act, SLOPE=slope, BLOCK_R=block_r, BLOCK_C=block_c, num_warps=4,
    )  # fmt: skip
    return out, None if partial is None else partial.sum((0, 1))
