"""y = act_out(conv(act_in(x*s + t), w) * scale + bias + residual), with (mean, M2, count) of y per channel and tile on request.

Convolution and transposed convolution of any kernel, stride and padding; a transposed one runs as stride_h*stride_w dense phases.
x, y, residual: NHWC in memory, fp32, fp16 or bf16. w: the same type, channels_last. s, t, bias, scale, moments: fp32.
The moments are those of the *stored* y, about each tile's own mean: raw sums cancel at large |mean|/std. A tile never crosses a
group of images (real | fake, or one sample), so s, t and the moments may differ by group. One image of x or y has fewer than 2^31
elements; a batch may have more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastgan.kernels import tuning
from fastgan.kernels._common import act, cdiv, tl, triton
from fastgan.kernels.conv_plan import Gather, channels_last, default_gather_config, empty_nhwc, gather_plan
from fastgan.kernels.conv_spec import PLAIN, ConvSpec, Fusion
from fastgan.kernels.conv_tile import gather_product

SIZES = ["IMAGES", "H", "W", "OH", "OW", "HP", "WP", "TILES"]  # not specialised: one binary serves every batch and resolution


@triton.jit(do_not_specialize=SIZES)
def conv_forward_kernel(x_ptr, s_ptr, t_ptr, w_ptr, scale_ptr, bias_ptr, residual_ptr, y_ptr, mean_ptr, m2_ptr, count_ptr,
                        IMAGES, H, W, OH, OW, HP, WP, TILES, C, OUT, w_ky, w_kx, w_c, w_out, s_group,
                        KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
                        PH: tl.constexpr, PW: tl.constexpr, SCATTER: tl.constexpr, PACKED: tl.constexpr, ACT_IN: tl.constexpr,
                        SLOPE_IN: tl.constexpr, ACT_OUT: tl.constexpr, SLOPE_OUT: tl.constexpr, PRECISION: tl.constexpr,
                        ORDER: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    PHASES: tl.constexpr = SH * SW if SCATTER else 1
    pid = tl.program_id(0)  # phase fastest: neighbours in time share the input tile in L2
    columns = tl.cdiv(OUT, BLOCK_N)
    phase, column, tile = pid % PHASES, pid // PHASES % columns, pid // (PHASES * columns)
    group, start = tile // TILES, tile % TILES * BLOCK_M
    ry, rx = phase // SW, phase % SW
    m = start + tl.arange(0, BLOCK_M)
    first = start // (HP * WP)  # 64-bit addresses start at the tile's first image, 32-bit offsets reach the rest of the tile
    image, h, w, live = m // (HP * WP) - first, m % (HP * WP) // WP, m % WP, m < IMAGES * HP * WP
    oh, ow = h, w
    if SCATTER:
        oh, ow = h * SH + ry, w * SW + rx
        live = live & (oh < OH) & (ow < OW)
    base = (group * IMAGES + first).to(tl.int64)
    out = column * BLOCK_N + tl.arange(0, BLOCK_N)
    s_base, t_base = s_ptr, t_ptr
    if s_ptr is not None:
        s_base, t_base = s_ptr + group * s_group, t_ptr + group * s_group
    acc = gather_product(x_ptr + base * H * W * C, None, s_base, t_base, w_ptr, image, h, w, ry, rx, live, out, H, W, C, OUT,
                         w_ky, w_kx, w_c, w_out, KH, KW, SH, SW, PH, PW, SCATTER, PACKED, False, ACT_IN, SLOPE_IN, PRECISION,
                         ORDER, BLOCK_M, BLOCK_N, BLOCK_K)  # fmt: skip
    keep = live[:, None] & (out < OUT)[None, :]
    at = (((image * OH + oh) * OW + ow) * OUT)[:, None] + out[None, :]
    if scale_ptr is not None:
        acc *= tl.load(scale_ptr)
    if bias_ptr is not None:
        acc += tl.load(bias_ptr + out, mask=out < OUT, other=0.0)[None, :]
    if residual_ptr is not None:
        acc += tl.load(residual_ptr + base * OH * OW * OUT + at, mask=keep, other=0.0).to(tl.float32)
    y = act(acc, ACT_OUT, SLOPE_OUT).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + base * OH * OW * OUT + at, y, mask=keep)
    if mean_ptr is not None:
        count = tl.sum(live.to(tl.float32), 0)
        v = tl.where(keep, y.to(tl.float32), 0.0)
        mean = tl.sum(v, 0) / tl.maximum(count, 1.0)
        d = tl.where(keep, v - mean[None, :], 0.0)
        rest = tl.sum(d, 0) / tl.maximum(count, 1.0)  # what rounding left of the mean: it counts at large |mean|/std
        slot = tile * PHASES + phase
        tl.store(mean_ptr + slot * OUT + out, mean + rest, mask=out < OUT)
        tl.store(m2_ptr + slot * OUT + out, tl.sum(d * d, 0) - count * rest * rest, mask=out < OUT)
        if column == 0:
            tl.store(count_ptr + slot, count)


def repeated(vector: Tensor | None, times: int) -> Tensor | None:
    """[..., C] -> [..., times*C]: a channel vector seen by a convolution that became a matrix product."""
    return vector if vector is None or times == 1 else vector.repeat(*[1] * (vector.dim() - 1), times)


def group_stride(s: Tensor | None, groups: int, channels: int) -> int:
    """Elements from one group's s to the next: 0 where one vector serves all."""
    return channels if s is not None and s.numel() == groups * channels and groups > 1 else 0


def conv_forward(x: Tensor, w: Tensor, spec: ConvSpec, fusion: Fusion = PLAIN, *, s: Tensor | None = None,
                 t: Tensor | None = None, scale: Tensor | None = None, bias: Tensor | None = None, residual: Tensor | None = None,
                 moments: bool = False, config: Mapping[str, Any] | None = None,
                 ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor] | None]:  # fmt: skip
    """x [N,CI,H,W] (its type is y's), w of any float type. s, t: fp32 [CI] or [groups,CI].

    Returns y [N,CO,OH,OW] and, with `moments`, tile (mean, M2) [groups,slots,CO] and count [groups, a divisor of slots] for
    merge_moments.
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
    config = config or gather_config("conv_forward_prologue" if transforms else "conv_forward", plan, images, x, transforms)
    hp, wp = plan.phase_size
    tiles = cdiv(images * hp * wp, config["BLOCK_M"])
    mean = m2 = count = None
    if moments:
        slots = tiles * plan.phases
        mean, m2 = torch.empty((2, groups, slots * plan.fold_out, channels_out), dtype=torch.float32, device=x.device)
        count = torch.empty((groups, slots), dtype=torch.float32, device=x.device)
    s, t, bias = repeated(s, plan.fold_in), repeated(t, plan.fold_in), repeated(bias, plan.fold_out)
    conv_forward_kernel[(groups * tiles * plan.phases * cdiv(plan.OUT, config["BLOCK_N"]),)](
        x, s, t, w, scale, bias, residual, y, mean, m2, count, images, plan.H, plan.W, plan.OH, plan.OW, hp, wp, tiles, plan.C,
        plan.OUT, *plan.strides, group_stride(s, groups, channels_in * plan.fold_in), **plan.constants(), ACT_IN=fusion.act_in,
        SLOPE_IN=fusion.slope_in, ACT_OUT=fusion.act_out, SLOPE_OUT=fusion.slope_out, PRECISION=fusion.precision, **config,
    )  # fmt: skip
    return y, None if mean is None or m2 is None or count is None else (mean, m2, count)


def gather_config(kernel: str, plan: Gather, images: int, x: Tensor, transforms: bool) -> Mapping[str, Any]:
    """The tuning table's tile for `kernel`, or the default: looked up by pixels of one phase, channels in and out, and taps."""
    hp, wp = plan.phase_size
    taps = plan.kernel[0] * plan.kernel[1] // plan.phases
    reach = plan.kernel[1] * plan.C if plan.packed else plan.C
    default = default_gather_config(images * hp * wp, plan.OUT, reach, x.element_size(), transforms)
    shape = (("rows", images * hp * wp), ("c", plan.C), ("out", plan.OUT), ("taps", taps))
    return tuning.config(kernel, x.dtype, shape, default, x.device)
