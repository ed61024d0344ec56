"""dz = dgrad(g, w) * scale; dp = dz * act_in'(x*s + t); dx = dp*s; ds = sum(dp*x); dt = sum(dp), sums per channel and tile.

g is read as written, or formed on load as (dy + a + b*y) * act_out'(y). The data gradient of a strided convolution runs as
stride_h*stride_w dense phases, that of a transposed convolution as a strided convolution. Layout and limits as in conv_forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastgan.kernels._common import act_grad, cdiv, tl, triton
from fastgan.kernels.conv_forward import SIZES, gather_config, group_stride, repeated
from fastgan.kernels.conv_plan import channels_last, empty_nhwc, gather_plan
from fastgan.kernels.conv_spec import PLAIN, ConvSpec, Fusion
from fastgan.kernels.conv_tile import affine, gather_product


@triton.jit(do_not_specialize=SIZES)
def conv_dgrad_kernel(dy_ptr, y_ptr, b_ptr, a_ptr, w_ptr, scale_ptr, x_ptr, s_ptr, t_ptr, dx_ptr, ds_ptr, dt_ptr,
                      IMAGES, H, W, OH, OW, HP, WP, TILES, C, OUT, w_ky, w_kx, w_c, w_out, b_group, s_group,
                      KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
                      SCATTER: tl.constexpr, PACKED: tl.constexpr, ACT_IN: tl.constexpr, SLOPE_IN: tl.constexpr,
                      ACT_OUT: tl.constexpr, SLOPE_OUT: tl.constexpr, PRECISION: tl.constexpr, ORDER: tl.constexpr,
                      BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    # H, W, C describe the gathered gradient, OH, OW, OUT the result dx
    PHASES: tl.constexpr = SH * SW if SCATTER else 1
    pid = tl.program_id(0)
    columns = tl.cdiv(OUT, BLOCK_N)
    phase, column, tile = pid % PHASES, pid // PHASES % columns, pid // (PHASES * columns)
    group, start = tile // TILES, tile % TILES * BLOCK_M
    ry, rx = phase // SW, phase % SW
    m = start + tl.arange(0, BLOCK_M)
    first = start // (HP * WP)
    image, h, w, live = m // (HP * WP) - first, m % (HP * WP) // WP, m % WP, m < IMAGES * HP * WP
    oh, ow = h, w
    if SCATTER:
        oh, ow = h * SH + ry, w * SW + rx
        live = live & (oh < OH) & (ow < OW)
    base = (group * IMAGES + first).to(tl.int64)
    out = column * BLOCK_N + tl.arange(0, BLOCK_N)
    y_base, b_base, a_base = y_ptr, b_ptr, a_ptr
    if y_ptr is not None:
        y_base = y_ptr + base * H * W * C
    if b_ptr is not None:
        b_base, a_base = b_ptr + group * b_group, a_ptr + group * b_group
    acc = gather_product(dy_ptr + base * H * W * C, y_base, b_base, a_base, w_ptr, image, h, w, ry, rx, live, out, H, W, C, OUT,
                         w_ky, w_kx, w_c, w_out, KH, KW, SH, SW, PH, PW, SCATTER, PACKED, True, ACT_OUT, SLOPE_OUT, PRECISION,
                         ORDER, BLOCK_M, BLOCK_N, BLOCK_K)  # fmt: skip
    keep = live[:, None] & (out < OUT)[None, :]
    at = (((image * OH + oh) * OW + ow) * OUT)[:, None] + out[None, :]
    if scale_ptr is not None:
        acc *= tl.load(scale_ptr)
    if x_ptr is not None:
        x = tl.load(x_ptr + base * OH * OW * OUT + at, mask=keep, other=0.0)
        if s_ptr is not None:
            s = tl.load(s_ptr + group * s_group + out, mask=out < OUT, other=0.0)
            p = affine(x, s, tl.load(t_ptr + group * s_group + out, mask=out < OUT, other=0.0))
        else:
            p = x.to(tl.float32)
        dp = tl.where(keep, acc * act_grad(p, ACT_IN, SLOPE_IN), 0.0)
        acc = dp
        if s_ptr is not None:
            slot = (tile * PHASES + phase) * OUT + out
            tl.store(ds_ptr + slot, tl.sum(dp * x.to(tl.float32), 0), mask=out < OUT)
            tl.store(dt_ptr + slot, tl.sum(dp, 0), mask=out < OUT)
            acc = dp * s[None, :]
    tl.store(dx_ptr + base * OH * OW * OUT + at, acc.to(dx_ptr.dtype.element_ty), mask=keep)


def conv_dgrad(dy: Tensor, w: Tensor, spec: ConvSpec, size: tuple[int, int], fusion: Fusion = PLAIN, *, y: Tensor | None = None,
               a: Tensor | None = None, b: Tensor | None = None, scale: Tensor | None = None, x: Tensor | None = None,
               s: Tensor | None = None, t: Tensor | None = None,
               config: Mapping[str, Any] | None = None) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """dy [N,CO,OH,OW], and y (a, b: fp32 [CO] or [groups,CO]) where g is formed on load; x (s, t) where the forward
    transformed it.

    Returns dx [N,CI,*size] in dy's type and, with s, the fp32 sums (ds, dt) [2,groups,CI], merged in a fixed order.
    """
    dy, w = channels_last(dy), channels_last(w, dy.dtype)
    n, _, oh, ow = dy.shape
    groups = fusion.groups
    channels_in, channels_out = spec.weight_channels(w.shape)
    plan = gather_plan(spec, tuple(w.shape), size, (oh, ow), gradient=True)
    dx = empty_nhwc(n, channels_in, *size, dy.dtype, dy.device)
    y = None if y is None else channels_last(y, dy.dtype)
    x = channels_last(x, dy.dtype) if x is not None and (s is not None or fusion.act_in != "identity") else None
    images = n // groups
    config = config or gather_config("conv_dgrad" if y is None else "conv_dgrad_two", plan, images, dy, y is not None)
    hp, wp = plan.phase_size
    tiles = cdiv(images * hp * wp, config["BLOCK_M"])
    sums = ds = dt = None
    if s is not None:
        slots = tiles * plan.phases * plan.fold_out
        ds, dt = sums = torch.empty((2, groups, slots, channels_in), dtype=torch.float32, device=dy.device)
    a, b = repeated(a, plan.fold_in), repeated(b, plan.fold_in)
    s, t = repeated(s, plan.fold_out), repeated(t, plan.fold_out)
    conv_dgrad_kernel[(groups * tiles * plan.phases * cdiv(plan.OUT, config["BLOCK_N"]),)](
        dy, y, b, a, w, scale, x, s, t, dx, ds, dt, images, plan.H, plan.W, plan.OH, plan.OW, hp, wp, tiles, plan.C, plan.OUT,
        *plan.strides, group_stride(b, groups, channels_out * plan.fold_in), group_stride(s, groups, channels_in * plan.fold_out),
        **plan.constants(), ACT_IN=fusion.act_in, SLOPE_IN=fusion.slope_in, ACT_OUT=fusion.act_out, SLOPE_OUT=fusion.slope_out,
        PRECISION=fusion.precision, **config,
    )  # fmt: skip
    return dx, None if sums is None else sums.sum(2)
