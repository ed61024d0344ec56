"""dw = sum over pixels of z^T g, for each tap, in fp32: the weight gradient of a (transposed)
convolution.

z = act_in(x*s + t) and g = (dy + a + b*y) * act_out'(y) are read as written or formed on load. The
dense operand (g of a convolution, z of a transposed one) is walked pixel by pixel, the other is
gathered at `pixel*stride + tap - padding`. The reduction is split over partial buffers that are
added in a fixed order: no float atomics, so a rerun gives the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastgan.kernels import tuning
from fastgan.kernels.common import cdiv, tl, triton
from fastgan.kernels.conv.plan import (
    SMALL_CHANNELS,
    channels_last,
    default_wgrad_config,
    group_stride,
    multiprocessors,
    repeated,
    splits_for,
)
from fastgan.kernels.conv.spec import PLAIN, ConvSpec, Fusion
from fastgan.kernels.conv.tile import load_operand


@triton.jit(do_not_specialize=["IMAGES", "EH", "EW", "SPLITS", "PER_SPLIT"])
def conv_wgrad_kernel(
    d_ptr,
    d_y_ptr,
    d_u_ptr,
    d_v_ptr,
    e_ptr,
    e_y_ptr,
    e_u_ptr,
    e_v_ptr,
    part_ptr,
    IMAGES,
    EH,
    EW,
    SPLITS,
    PER_SPLIT,
    D,
    E,
    d_group,
    e_group,
    H: tl.constexpr,
    W: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    PH: tl.constexpr,
    PW: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    PACKED: tl.constexpr,
    ACT_D: tl.constexpr,
    SLOPE_D: tl.constexpr,
    ACT_E: tl.constexpr,
    SLOPE_E: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Partial dw [group*SPLITS, D, KH, KW, E]; D: channels of the dense operand [*, H, W, D], E: of
    the gathered one."""
    TAPS: tl.constexpr = KH if PACKED else KH * KW
    REACH = (
        KW * E if PACKED else E
    )  # few gathered channels: a whole row of taps is one run of KW*E values in NHWC
    rows, columns = tl.cdiv(D, BLOCK_M), tl.cdiv(REACH, BLOCK_N)
    pid = tl.program_id(0)  # tap fastest: neighbours in time share one block of pixels in L2
    tap, tile, part = pid % TAPS, pid // TAPS % (rows * columns), pid // (TAPS * rows * columns)
    group, split = part // SPLITS, part % SPLITS
    d = tile // columns * BLOCK_M + tl.arange(0, BLOCK_M)
    j = tile % columns * BLOCK_N + tl.arange(0, BLOCK_N)
    if PACKED:
        ky, kx, e, shift, known = tap, 0, j % E, j // E, j < KW * E
    else:
        ky, kx, e, shift, known = tap // KW, tap % KW, j, j * 0, j < E
    d_u, d_v, e_u, e_v = d_u_ptr, d_v_ptr, e_u_ptr, e_v_ptr
    if d_u_ptr is not None:
        d_u, d_v = d_u_ptr + group * d_group, d_v_ptr + group * d_group
    if e_u_ptr is not None:
        e_u, e_v = e_u_ptr + group * e_group, e_v_ptr + group * e_group
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    end = tl.minimum((split + 1) * PER_SPLIT, IMAGES * H * W)
    for k in range(
        split * PER_SPLIT, end, BLOCK_K
    ):  # H and W are constants: the divisions here become shifts
        m = k + tl.arange(0, BLOCK_K)
        first = k // (H * W)
        image, h, w, live = m // (H * W) - first, m % (H * W) // W, m % W, m < end
        base = (group * IMAGES + first).to(tl.int64)
        d_y, e_y = d_y_ptr, e_y_ptr
        if d_y_ptr is not None:
            d_y = d_y_ptr + base * (H * W) * D
        if e_y_ptr is not None:
            e_y = e_y_ptr + base * EH * EW * E
        at = ((image * H + h) * W + w)[:, None] * D + d[None, :]
        a = load_operand(
            d_ptr + base * (H * W) * D,
            d_y,
            d_u,
            d_v,
            at,
            d,
            d < D,
            live[:, None] & (d < D)[None, :],
            not TRANSPOSED,
            ACT_D,
            SLOPE_D,
        )
        eh, ew = h * SH + ky - PH, w * SW + kx - PW
        inside = (live & (eh >= 0) & (eh < EH))[:, None] & known[None, :]
        if PACKED:
            inside = (
                inside & (ew[:, None] + shift[None, :] >= 0) & (ew[:, None] + shift[None, :] < EW)
            )
        else:
            inside = inside & ((ew >= 0) & (ew < EW))[:, None]
        at = ((image * EH + eh) * EW + ew)[:, None] * E + j[None, :]
        b = load_operand(
            e_ptr + base * EH * EW * E,
            e_y,
            e_u,
            e_v,
            at,
            e,
            known,
            inside,
            TRANSPOSED,
            ACT_E,
            SLOPE_E,
        )
        acc = tl.dot(tl.trans(a), b, acc, input_precision=PRECISION)
    at = (
        part.to(tl.int64) * D * (KH * KW) * E
        + d[:, None] * (KH * KW * E)
        + ((ky * KW + kx) * E + j)[None, :]
    )
    tl.store(part_ptr + at, acc, mask=(d < D)[:, None] & known[None, :])


def conv_wgrad(
    x: Tensor,
    dy: Tensor,
    spec: ConvSpec,
    fusion: Fusion = PLAIN,
    *,
    s: Tensor | None = None,
    t: Tensor | None = None,
    y: Tensor | None = None,
    a: Tensor | None = None,
    b: Tensor | None = None,
    config: Mapping[str, Any] | None = None,
) -> Tensor:
    """x [N,CI,H,W], dy [N,CO,OH,OW] of one type (and y where g is formed on load; s, t, a, b as in
    forward and dgrad).

    Returns dw in fp32, shaped as PyTorch's weight ([CO,CI,KH,KW], transposed [CI,CO,KH,KW]),
    channels_last.
    """
    x, dy = channels_last(x), channels_last(dy, x.dtype)
    y = None if y is None else channels_last(y, x.dtype)
    n, channels_in, height, width = x.shape
    channels_out, groups = dy.shape[1], fusion.groups
    z_side = (x, None, s, t), (fusion.act_in, fusion.slope_in), (height, width), channels_in
    g_side = (
        (dy, y, b, a),
        (fusion.act_out, fusion.slope_out),
        (dy.shape[2], dy.shape[3]),
        channels_out,
    )
    (dense, act_d, size, d), (gathered, act_e, e_size, e) = (
        (z_side, g_side) if spec.transposed else (g_side, z_side)
    )
    kernel, stride, padding, reach = spec.kernel, spec.stride, spec.padding, e
    if spec.is_gemm(height, width):  # one tap, whose channels are all taps' channels
        reach = kernel[0] * kernel[1] * e
        gathered = (
            gathered[0],
            gathered[1],
            repeated(gathered[2], reach // e),
            repeated(gathered[3], reach // e),
        )
        kernel, stride, padding, size, e_size = (1, 1), (1, 1), (0, 0), (1, 1), (1, 1)
    packed = kernel[1] > 1 and e <= SMALL_CHANNELS
    taps = kernel[0] if packed else kernel[0] * kernel[1]
    images, columns = n // groups, kernel[1] * e if packed else reach
    pixels = images * size[0] * size[1]
    if config is None:
        name = "conv_wgrad" + "_z" * (s is not None) + "_g" * (y is not None)
        shape = (("rows", pixels), ("d", d), ("e", reach), ("taps", kernel[0] * kernel[1]))
        config = tuning.config(
            name,
            x.dtype,
            shape,
            default_wgrad_config(d, columns, pixels, x.element_size()),
            x.device,
        )
    tiles = cdiv(d, config["BLOCK_M"]) * cdiv(columns, config["BLOCK_N"]) * taps
    splits, per_split = splits_for(tiles * groups, pixels, config, multiprocessors(x.device))
    part = torch.empty(
        (groups * splits, d, spec.kernel[0], spec.kernel[1], e),
        dtype=torch.float32,
        device=x.device,
    )
    conv_wgrad_kernel[(tiles * groups * splits,)](
        *dense,
        *gathered,
        part,
        images,
        *e_size,
        splits,
        per_split,
        d,
        reach,
        group_stride(dense[2], groups, d),
        group_stride(gathered[2], groups, reach),
        H=size[0],
        W=size[1],
        KH=kernel[0],
        KW=kernel[1],
        SH=stride[0],
        SW=stride[1],
        PH=padding[0],
        PW=padding[1],
        TRANSPOSED=spec.transposed,
        PACKED=packed,
        ACT_D=act_d[0],
        SLOPE_D=act_d[1],
        ACT_E=act_e[0],
        SLOPE_E=act_e[1],
        PRECISION=fusion.precision,
        **config,
    )
    dw = part[0] if groups * splits == 1 else part.sum(0)
    return dw.permute(0, 3, 1, 2)
