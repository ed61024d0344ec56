"""A long reduction over few tiles, in two launches: parts of it into fp32 buffers, then their sum
in a fixed order.

Serves forward and dgrad. The first kernel writes part [splits, N, OH, OW, OUT], one part of taps
and channels a program; the second (conv_forward_sum_kernel, conv_dgrad_sum_kernel) adds the parts
of a tile with add_parts and goes on as the one-pass kernel does after its reduction. No float
atomics, and splits come from shapes alone: a rerun gives the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.kernels.common import INTERPRET, cdiv, tl, triton
from fastgan.kernels.conv.plan import SIZES, Config, Gather, Schedule, power_of_two
from fastgan.kernels.conv.tile import elements, gather_product, place


@triton.jit(
    do_not_specialize=[*SIZES, "ROW_PARTS", "ROWS"]
)  # SPAN is: loads are only wide if it is a multiple of 16
def conv_split_kernel(
    a_ptr,
    y_ptr,
    u_ptr,
    v_ptr,
    w_ptr,
    part_ptr,
    IMAGES,
    H,
    W,
    OH,
    OW,
    HP,
    WP,
    TILES,
    ROW_PARTS,
    ROWS,
    SPAN,
    PART,
    C,
    OUT,
    w_ky,
    w_kx,
    w_c,
    w_out,
    u_group,
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    PH: tl.constexpr,
    PW: tl.constexpr,
    SCATTER: tl.constexpr,
    PACKED: tl.constexpr,
    GRADIENT: tl.constexpr,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
    PRECISION: tl.constexpr,
    ORDER: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Operands as load_operand takes them. PART: elements of one part."""
    split = tl.program_id(1)  # slowest: programs that run together read the same channels of A
    group, _, base, image, h, w, ry, rx, live, out, _, known = place(
        tl.program_id(0),
        IMAGES,
        OH,
        OW,
        HP,
        WP,
        TILES,
        OUT,
        SH,
        SW,
        SCATTER,
        False,
        BLOCK_M,
        BLOCK_N,
    )
    y_base, u_base, v_base = y_ptr, u_ptr, v_ptr
    if y_ptr is not None:
        y_base = y_ptr + base * H * W * C
    if u_ptr is not None:
        u_base, v_base = u_ptr + group * u_group, v_ptr + group * u_group
    acc = gather_product(
        a_ptr + base * H * W * C,
        y_base,
        u_base,
        v_base,
        w_ptr,
        image,
        h,
        w,
        ry,
        rx,
        live,
        out,
        known,
        H,
        W,
        C,
        w_ky,
        w_kx,
        w_c,
        w_out,
        split % ROW_PARTS * ROWS,
        ROWS,
        split // ROW_PARTS * SPAN,
        SPAN,
        KH,
        KW,
        SH,
        SW,
        PH,
        PW,
        SCATTER,
        False,
        PACKED,
        GRADIENT,
        ACT,
        SLOPE,
        PRECISION,
        ORDER,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
    )
    keep, at = elements(image, h, w, ry, rx, live, out, known, OH, OW, OUT, SH, SW, SCATTER, False)
    tl.store(part_ptr + split.to(tl.int64) * PART + base * OH * OW * OUT + at, acc, mask=keep)


@triton.jit
def add_parts(part_ptr, PARTS, PART, at, keep, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """The sum of a tile's parts, first to last."""
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for _ in range(PARTS):
        acc += tl.load(part_ptr + at, mask=keep, other=0.0)
        part_ptr += PART
    return acc


def reduce_parts(
    a: Tensor,
    y: Tensor | None,
    u: Tensor | None,
    v: Tensor | None,
    w: Tensor,
    plan: Gather,
    how: Schedule,
    images: int,
    u_group: int,
    gradient: bool,
    act: str,
    slope: float,
    precision: str,
) -> Tensor:
    """Partial results [splits, N, OH, OW, OUT], fp32, of a launch that `how` splits."""
    hp, wp = plan.phase_size
    part = torch.empty(
        (how.splits, a.shape[0], plan.OH, plan.OW, plan.OUT), dtype=torch.float32, device=a.device
    )
    conv_split_kernel[(how.programs, how.splits)](
        a,
        y,
        u,
        v,
        w,
        part,
        images,
        plan.H,
        plan.W,
        plan.OH,
        plan.OW,
        hp,
        wp,
        how.tiles,
        cdiv(plan.taps[0], how.rows),
        how.rows,
        how.span,
        part[0].numel(),
        plan.C,
        plan.OUT,
        *plan.strides,
        u_group,
        **plan.constants(),
        GRADIENT=gradient,
        ACT=act,
        SLOPE=slope,
        PRECISION=precision,
        **how.config,
    )
    return part


def sum_config(plan: Gather, images: int) -> Config:
    """The tile of the second launch, whose rows are the result's pixels whatever the phases: small,
    since the results are few."""
    rows = power_of_two(
        images * plan.OH * plan.OW, 4, 64 if INTERPRET else 16
    )  # the interpreter pays by the program
    return dict(BLOCK_M=rows, BLOCK_N=power_of_two(plan.OUT, 16, 64), num_warps=4)
