"""y = act_out(conv(act_in(x*s + t), w) * scale + bias + residual), with (mean, M2, count) of y per
channel and tile on request.

Convolution and transposed convolution of any kernel, stride and padding; a transposed one runs as
stride_h*stride_w dense phases, or, to very few channels, all phases in one pass. A long reduction
over few tiles is split and summed in a second launch.
x, y, residual: NHWC in memory, fp32, fp16 or bf16. w: the same type, channels_last. s, t, bias,
scale, moments: fp32. The moments are those of the *stored* y, about each tile's own mean: raw sums
cancel at large |mean|/std. A tile never crosses a group of images (real | fake, or one sample), so
s, t and the moments may differ by group. One image of x or y has fewer than 2^31 elements; a batch
may have more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastgan.kernels.activations import act
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
from fastgan.kernels.conv.tile import elements, gather_product, place


@triton.jit
def finish_forward(
    acc,
    scale_ptr,
    bias_ptr,
    residual_ptr,
    y_ptr,
    mean_ptr,
    m2_ptr,
    count_ptr,
    slot,
    first,
    live,
    out,
    n,
    known,
    keep,
    at,
    OUT,
    MERGED: tl.constexpr,
    ACT_OUT: tl.constexpr,
    SLOPE_OUT: tl.constexpr,
):
    """All that follows the reduction of a tile: one place, so that one pass and the sum of parts
    cannot differ."""
    if scale_ptr is not None:
        acc *= tl.load(scale_ptr)
    if bias_ptr is not None:
        acc += tl.load(bias_ptr + out, mask=known, other=0.0)[None, :]
    if residual_ptr is not None:
        acc += tl.load(residual_ptr + first + at, mask=keep, other=0.0).to(tl.float32)
    y = act(acc, ACT_OUT, SLOPE_OUT).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + first + at, y, mask=keep)
    if mean_ptr is not None:
        if MERGED:  # a phase may lack its last row or column: pixels are counted by column
            count, cell = tl.sum(keep.to(tl.float32), 0), slot + n // OUT
        else:
            count, cell = tl.sum(live.to(tl.float32), 0), slot + n * 0
        v = tl.where(keep, y.to(tl.float32), 0.0)
        mean = tl.sum(v, 0) / tl.maximum(count, 1.0)
        d = tl.where(keep, v - mean[None, :], 0.0)
        rest = tl.sum(d, 0) / tl.maximum(
            count, 1.0
        )  # what rounding left of the mean: it counts at large |mean|/std
        tl.store(mean_ptr + slot * OUT + n, mean + rest, mask=known)
        tl.store(m2_ptr + slot * OUT + n, tl.sum(d * d, 0) - count * rest * rest, mask=known)
        tl.store(
            count_ptr + cell, count, mask=known & (out == 0)
        )  # all channels of a slot have one count


@triton.jit(do_not_specialize=SIZES)
def conv_forward_kernel(
    x_ptr,
    s_ptr,
    t_ptr,
    w_ptr,
    scale_ptr,
    bias_ptr,
    residual_ptr,
    y_ptr,
    mean_ptr,
    m2_ptr,
    count_ptr,
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
    s_base, t_base = s_ptr, t_ptr
    if s_ptr is not None:
        s_base, t_base = s_ptr + group * s_group, t_ptr + group * s_group
    acc = gather_product(
        x_ptr + base * H * W * C,
        None,
        s_base,
        t_base,
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
        False,
        ACT_IN,
        SLOPE_IN,
        PRECISION,
        ORDER,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
    )
    keep, at = elements(image, h, w, ry, rx, live, out, known, OH, OW, OUT, SH, SW, SCATTER, MERGED)
    finish_forward(
        acc,
        scale_ptr,
        bias_ptr,
        residual_ptr,
        y_ptr,
        mean_ptr,
        m2_ptr,
        count_ptr,
        slot,
        base * OH * OW * OUT,
        live,
        out,
        n,
        known,
        keep,
        at,
        OUT,
        MERGED,
        ACT_OUT,
        SLOPE_OUT,
    )


@triton.jit(do_not_specialize=["IMAGES", "OH", "OW", "TILES", "PARTS"])
def conv_forward_sum_kernel(
    part_ptr,
    scale_ptr,
    bias_ptr,
    residual_ptr,
    y_ptr,
    mean_ptr,
    m2_ptr,
    count_ptr,
    IMAGES,
    OH,
    OW,
    TILES,
    PARTS,
    PART,
    OUT,
    ACT_OUT: tl.constexpr,
    SLOPE_OUT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    _, slot, base, image, h, w, ry, rx, live, out, n, known = place(
        tl.program_id(0), IMAGES, OH, OW, OH, OW, TILES, OUT, 1, 1, False, False, BLOCK_M, BLOCK_N
    )
    first = base * OH * OW * OUT
    keep, at = elements(image, h, w, ry, rx, live, out, known, OH, OW, OUT, 1, 1, False, False)
    acc = add_parts(part_ptr + first, PARTS, PART, at, keep, BLOCK_M, BLOCK_N)
    finish_forward(
        acc,
        scale_ptr,
        bias_ptr,
        residual_ptr,
        y_ptr,
        mean_ptr,
        m2_ptr,
        count_ptr,
        slot,
        first,
        live,
        out,
        n,
        known,
        keep,
        at,
        OUT,
        False,
        ACT_OUT,
        SLOPE_OUT,
    )


def conv_forward(
    x: Tensor,
    w: Tensor,
    spec: ConvSpec,
    fusion: Fusion = PLAIN,
    *,
    s: Tensor | None = None,
    t: Tensor | None = None,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    moments: bool = False,
    config: Mapping[str, Any] | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor] | None]:
    """x [N,CI,H,W] (its type is y's), w of any float type. s, t: fp32 [CI] or [groups,CI].

    Returns y [N,CO,OH,OW] and, with `moments`, tile (mean, M2) [groups,slots,CO] and count [groups,
    a divisor of slots] for merge_moments.
    """
    x, w = channels_last(x), channels_last(w, x.dtype)
    n, _, height, width = x.shape
    size, groups = spec.output_size(height, width), fusion.groups
    channels_in, channels_out = spec.weight_channels(w.shape)
    plan = gather_plan(spec, tuple(w.shape), (height, width), size, gradient=False)
    y = empty_nhwc(n, channels_out, *size, x.dtype, x.device)
    residual = None if residual is None else channels_last(residual, x.dtype)
    images = n // groups
    transforms = s is not None or fusion.act_in != "identity"
    config = config or gather_config(
        "conv_forward_prologue" if transforms else "conv_forward", plan, images, x, transforms
    )
    how = schedule(plan, config, images, groups, multiprocessors(x.device))
    tile, tiles, phases = how.config, how.tiles, plan.phases
    if how.splits > 1:
        tile = sum_config(plan, images)
        tiles, phases = cdiv(images * plan.OH * plan.OW, tile["BLOCK_M"]), 1
    mean = m2 = count = None
    if moments:
        slots = tiles * phases
        mean, m2 = torch.empty(
            (2, groups, slots * plan.fold_out, channels_out), dtype=torch.float32, device=x.device
        )
        count = torch.empty((groups, slots), dtype=torch.float32, device=x.device)
    s, t, bias = repeated(s, plan.fold_in), repeated(t, plan.fold_in), repeated(bias, plan.fold_out)
    s_group = group_stride(s, groups, channels_in * plan.fold_in)
    if how.splits > 1:
        part = reduce_parts(
            x,
            None,
            s,
            t,
            w,
            plan,
            how,
            images,
            s_group,
            False,
            fusion.act_in,
            fusion.slope_in,
            fusion.precision,
        )
        conv_forward_sum_kernel[(groups * tiles * cdiv(plan.OUT, tile["BLOCK_N"]),)](
            part,
            scale,
            bias,
            residual,
            y,
            mean,
            m2,
            count,
            images,
            plan.OH,
            plan.OW,
            tiles,
            how.splits,
            part[0].numel(),
            plan.OUT,
            ACT_OUT=fusion.act_out,
            SLOPE_OUT=fusion.slope_out,
            **tile,
        )
    else:
        conv_forward_kernel[(how.programs,)](
            x,
            s,
            t,
            w,
            scale,
            bias,
            residual,
            y,
            mean,
            m2,
            count,
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
    return y, None if mean is None or m2 is None or count is None else (mean, m2, count)
