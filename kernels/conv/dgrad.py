"""dz = dgrad(g, w) * scale; dp = dz * act_in'(x*s + t); dx = dp*s; ds = sum(dp*x); dt = sum(dp),
sums per channel and tile.

g is read as written, or formed on load as (dy + a + b*y) * act_out'(y). The data gradient of a
strided convolution runs as stride_h*stride_w dense phases (or, to very few channels, all in one
pass), that of a transposed convolution as a strided convolution. Splits, layout and limits as in
conv_forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastgan.kernels.activations import act_grad
from fastgan.kernels.common import cdiv, tl, triton
from fastgan.kernels.conv.plan import (
    SIZES,
    channels_last,
    empty_nhwc,
    gather_config,
    gather_plan,
    group_stride,
    multiprocessors,
    repeated,
    schedule,
)
from fastgan.kernels.conv.spec import PLAIN, ConvSpec, Fusion
from fastgan.kernels.conv.split_k import add_parts, reduce_parts, sum_config
from fastgan.kernels.conv.tile import affine, elements, gather_product, place


@triton.jit
def finish_dgrad(
    acc,
    scale_ptr,
    x_ptr,
    s_ptr,
    t_ptr,
    dx_ptr,
    ds_ptr,
    dt_ptr,
    slot,
    first,
    out,
    n,
    known,
    keep,
    at,
    OUT,
    ACT_IN: tl.constexpr,
    SLOPE_IN: tl.constexpr,
):
    """All that follows the reduction of a tile, in one pass or after the sum of parts; s and t are
    this group's."""
    if scale_ptr is not None:
        acc *= tl.load(scale_ptr)
    if x_ptr is not None:
        x = tl.load(x_ptr + first + at, mask=keep, other=0.0)
        if s_ptr is not None:
            s = tl.load(s_ptr + out, mask=known, other=0.0)
            p = affine(x, s, tl.load(t_ptr + out, mask=known, other=0.0))
        else:
            p = x.to(tl.float32)
        dp = tl.where(keep, acc * act_grad(p, ACT_IN, SLOPE_IN), 0.0)
        acc = dp
        if s_ptr is not None:
            tl.store(ds_ptr + slot * OUT + n, tl.sum(dp * x.to(tl.float32), 0), mask=known)
            tl.store(dt_ptr + slot * OUT + n, tl.sum(dp, 0), mask=known)
            acc = dp * s[None, :]
    tl.store(dx_ptr + first + at, acc.to(dx_ptr.dtype.element_ty), mask=keep)


@triton.jit(do_not_specialize=SIZES)
def conv_dgrad_kernel(
    dy_ptr,
    y_ptr,
    b_ptr,
    a_ptr,
    w_ptr,
    scale_ptr,
    x_ptr,
    s_ptr,
    t_ptr,
    dx_ptr,
    ds_ptr,
    dt_ptr,
    IMAGES,
    H,
    W,
    OH,
    OW,
    HP,
    WP,
    TILES,
    C,
    OUT,
    w_ky,
    w_kx,
    w_c,
    w_out,
    b_group,
    s_group,
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    PH: tl.constexpr,
    PW: tl.constexpr,
    SCATTER: tl.constexpr,
    MERGED: tl.constexpr,
    PACKED: tl.constexpr,
    ACT_IN: tl.constexpr,
    SLOPE_IN: tl.constexpr,
    ACT_OUT: tl.constexpr,
    SLOPE_OUT: tl.constexpr,
    PRECISION: tl.constexpr,
    ORDER: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # H, W, C describe the gathered gradient, OH, OW, OUT the result dx
    group, slot, base, image, h, w, ry, rx, live, out, n, known = place(
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
        MERGED,
        BLOCK_M,
        BLOCK_N,
    )
    y_base, b_base, a_base, s_base, t_base = y_ptr, b_ptr, a_ptr, s_ptr, t_ptr
    if y_ptr is not None:
        y_base = y_ptr + base * H * W * C
    if b_ptr is not None:
        b_base, a_base = b_ptr + group * b_group, a_ptr + group * b_group
    if s_ptr is not None:
        s_base, t_base = s_ptr + group * s_group, t_ptr + group * s_group
    acc = gather_product(
        dy_ptr + base * H * W * C,
        y_base,
        b_base,
        a_base,
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
        None,
        None,
        None,
        None,
        KH,
        KW,
        SH,
        SW,
        PH,
        PW,
        SCATTER,
        MERGED,
        PACKED,
        True,
        ACT_OUT,
        SLOPE_OUT,
        PRECISION,
        ORDER,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
    )
    keep, at = elements(image, h, w, ry, rx, live, out, known, OH, OW, OUT, SH, SW, SCATTER, MERGED)
    finish_dgrad(
        acc,
        scale_ptr,
        x_ptr,
        s_base,
        t_base,
        dx_ptr,
        ds_ptr,
        dt_ptr,
        slot,
        base * OH * OW * OUT,
        out,
        n,
        known,
        keep,
        at,
        OUT,
        ACT_IN,
        SLOPE_IN,
    )


@triton.jit(do_not_specialize=["IMAGES", "OH", "OW", "TILES", "PARTS"])
def conv_dgrad_sum_kernel(
    part_ptr,
    scale_ptr,
    x_ptr,
    s_ptr,
    t_ptr,
    dx_ptr,
    ds_ptr,
    dt_ptr,
    IMAGES,
    OH,
    OW,
    TILES,
    PARTS,
    PART,
    OUT,
    s_group,
    ACT_IN: tl.constexpr,
    SLOPE_IN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    group, slot, base, image, h, w, ry, rx, live, out, n, known = place(
        tl.program_id(0), IMAGES, OH, OW, OH, OW, TILES, OUT, 1, 1, False, False, BLOCK_M, BLOCK_N
    )
    s_base, t_base = s_ptr, t_ptr
    if s_ptr is not None:
        s_base, t_base = s_ptr + group * s_group, t_ptr + group * s_group
    first = base * OH * OW * OUT
    keep, at = elements(image, h, w, ry, rx, live, out, known, OH, OW, OUT, 1, 1, False, False)
    acc = add_parts(part_ptr + first, PARTS, PART, at, keep, BLOCK_M, BLOCK_N)
    finish_dgrad(
        acc,
        scale_ptr,
        x_ptr,
        s_base,
        t_base,
        dx_ptr,
        ds_ptr,
        dt_ptr,
        slot,
        first,
        out,
        n,
        known,
        keep,
        at,
        OUT,
        ACT_IN,
        SLOPE_IN,
    )


def conv_dgrad(
    dy: Tensor,
    w: Tensor,
    spec: ConvSpec,
    size: tuple[int, int],
    fusion: Fusion = PLAIN,
    *,
    y: Tensor | None = None,
    a: Tensor | None = None,
    b: Tensor | None = None,
    scale: Tensor | None = None,
    x: Tensor | None = None,
    s: Tensor | None = None,
    t: Tensor | None = None,
    config: Mapping[str, Any] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """dy [N,CO,OH,OW], and y (a, b: fp32 [CO] or [groups,CO]) where g is formed on load; x (s, t)
    where the forward transformed it.

    Returns dx [N,CI,*size] in dy's type and, with s, the fp32 sums (ds, dt) [2,groups,CI], merged
    in a fixed order.
    """
    dy, w = channels_last(dy), channels_last(w, dy.dtype)
    n, _, oh, ow = dy.shape
    groups = fusion.groups
    channels_in, channels_out = spec.weight_channels(w.shape)
    plan = gather_plan(spec, tuple(w.shape), size, (oh, ow), gradient=True)
    dx = empty_nhwc(n, channels_in, *size, dy.dtype, dy.device)
    y = None if y is None else channels_last(y, dy.dtype)
    x = (
        channels_last(x, dy.dtype)
        if x is not None and (s is not None or fusion.act_in != "identity")
        else None
    )
    images = n // groups
    config = config or gather_config(
        "conv_dgrad" if y is None else "conv_dgrad_two", plan, images, dy, y is not None
    )
    how = schedule(plan, config, images, groups, multiprocessors(dy.device))
    tile, tiles, phases = how.config, how.tiles, plan.phases
    if how.splits > 1:
        tile = sum_config(plan, images)
        tiles, phases = cdiv(images * plan.OH * plan.OW, tile["BLOCK_M"]), 1
    sums = ds = dt = None
    if s is not None:
        slots = tiles * phases * plan.fold_out
        ds, dt = sums = torch.empty(
            (2, groups, slots, channels_in), dtype=torch.float32, device=dy.device
        )
    a, b = repeated(a, plan.fold_in), repeated(b, plan.fold_in)
    s, t = repeated(s, plan.fold_out), repeated(t, plan.fold_out)
    b_group = group_stride(b, groups, channels_out * plan.fold_in)
    s_group = group_stride(s, groups, channels_in * plan.fold_out)
    if how.splits > 1:
        part = reduce_parts(
            dy,
            y,
            b,
            a,
            w,
            plan,
            how,
            images,
            b_group,
            True,
            fusion.act_out,
            fusion.slope_out,
            fusion.precision,
        )
        conv_dgrad_sum_kernel[(groups * tiles * cdiv(plan.OUT, tile["BLOCK_N"]),)](
            part,
            scale,
            x,
            s,
            t,
            dx,
            ds,
            dt,
            images,
            plan.OH,
            plan.OW,
            tiles,
            how.splits,
            part[0].numel(),
            plan.OUT,
            s_group,
            ACT_IN=fusion.act_in,
            SLOPE_IN=fusion.slope_in,
            **tile,
        )
    else:
        conv_dgrad_kernel[(how.programs,)](
            dy,
            y,
            b,
            a,
            w,
            scale,
            x,
            s,
            t,
            dx,
            ds,
            dt,
            images,
            plan.H,
            plan.W,
            plan.OH,
            plan.OW,
            *plan.phase_size,
            tiles,
            plan.C,
            plan.OUT,
            *plan.strides,
            b_group,
            s_group,
            **plan.constants(),
            MERGED=how.merged,
            ACT_IN=fusion.act_in,
            SLOPE_IN=fusion.slope_in,
            ACT_OUT=fusion.act_out,
            SLOPE_OUT=fusion.slope_out,
            PRECISION=fusion.precision,
            **tile,
        )
    return dx, None if sums is None else sums.sum(2)
