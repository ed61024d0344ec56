"""Forward, dgrad and wgrad for sm_90: padded operands (conv_padded), TMA boxes, warp specialisation, a persistent grid.

Products are formed transposed, [channels, pixels]. Triton's warp specialisation splits the rows of a product between two consumer
warp groups and aborts where something is summed over rows; so the sums over pixels (moments, ds, dt) run along columns, where one
row lies in four lanes and needs two shuffles and no shared memory. The result is transposed on its way through shared memory.

x, w, y as in conv_forward, fp16 or bf16; channels of both sides a multiple of 16, better of 64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastgan.kernels import tuning
from fastgan.kernels._common import INTERPRET, act, act_grad, cdiv, tl, triton
from fastgan.kernels.conv_forward import group_stride
from fastgan.kernels.conv_padded import Grid, aligned
from fastgan.kernels.conv_plan import channels_last, empty_nhwc, multiprocessors, power_of_two, splits_for
from fastgan.kernels.conv_spec import ConvSpec, Fusion

SIZES = ["IMAGES", "GH", "GW", "OH", "OW", "TILES", "ROWS", "TOTAL"]


@triton.jit
def tap_at(t, ry, rx, GW, C, K: tl.constexpr, STRIDE: tl.constexpr, GATHER: tl.constexpr):
    """Tap t of a pixel: (rows from the pixel's row, first column of the matrix, number ky*K + kx of the weight)."""
    if STRIDE == 2 and GATHER:  # large side in 2x2 blocks: pixel 2h - 1 + ky is position (ky+1) % 2 of block h + (ky+1)//2 - 1
        ky, kx = t // 4, t % 4
        rows = ((ky + 1) // 2 - 1) * GW + (kx + 1) // 2 - 1
        column = ((ky + 1) % 2 * 2 + (kx + 1) % 2) * C
        number = t
    elif STRIDE == 2:  # phase (ry, rx) of the large side sees 2x2 of the 4x4 taps
        ty, tx = t // 2, t % 2
        rows = (ry - 1 + ty) * GW + rx - 1 + tx
        column = 0
        number = (3 - ry - 2 * ty) * 4 + 3 - rx - 2 * tx
    else:
        ky, kx = t // K, t % K
        rows = (ky - K // 2) * GW + kx - K // 2
        if not GATHER:
            rows = -rows
        column = 0
        number = t
    return rows, column, number


@triton.jit
def boxes(a_ptr, w_ptr, rows, C, OUT, K: tl.constexpr, STRIDE: tl.constexpr, GATHER: tl.constexpr,
          BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    """TMA descriptors of the matrix of pixels and of the weight [D, K*K*E]: E is contracted where GATHER, else D."""
    across = (C * 4 if STRIDE == 2 and GATHER else C).to(tl.int64)
    a = tl.make_tensor_descriptor(a_ptr, [rows, across], [across, 1], [BLOCK_N, BLOCK_K])
    if GATHER:
        w = tl.make_tensor_descriptor(w_ptr, [OUT, K * K * C], [(K * K * C).to(tl.int64), 1], [BLOCK_M, BLOCK_K])
    else:
        w = tl.make_tensor_descriptor(w_ptr, [C, K * K * OUT], [(K * K * OUT).to(tl.int64), 1], [BLOCK_K, BLOCK_M])
    return a, w


@triton.jit
def tap_product(acc, a, w, row, m, t, k, ry, rx, GW, C, OUT, K: tl.constexpr, STRIDE: tl.constexpr, GATHER: tl.constexpr):
    rows, column, number = tap_at(t, ry, rx, GW, C, K, STRIDE, GATHER)
    pixels = a.load([row + rows, column + k])
    if GATHER:
        weight = w.load([m, number * C + k])
    else:
        weight = w.load([k, number * OUT + m]).T
    return tl.dot(weight, pixels.T, acc)


@triton.jit
def product(a, w, row, m, ry, rx, GW, C, OUT, K: tl.constexpr, STRIDE: tl.constexpr, GATHER: tl.constexpr,
            SPECIALISED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    """acc [channels m.., pixels row..] in fp32, over taps and channels; BLOCK_K divides C."""
    TAPS: tl.constexpr = K * K if STRIDE == 1 or GATHER else 4
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if SPECIALISED:  # one loop keeps the producer ahead from tap to tap
        turns = C // BLOCK_K
        for i in range(TAPS * turns):
            acc = tap_product(acc, a, w, row, m, i // turns, i % turns * BLOCK_K, ry, rx, GW, C, OUT, K, STRIDE, GATHER)
    else:  # a flattened loop over taps and channels has been miscompiled with 8 warps (see conv_tile)
        for t in range(TAPS):
            for k in range(0, C, BLOCK_K):
                acc = tap_product(acc, a, w, row, m, t, k, ry, rx, GW, C, OUT, K, STRIDE, GATHER)
    return acc


@triton.jit
def place(pid, IMAGES, GH, GW, OH, OW, TILES, OUT, PHASES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """What tile pid computes: group, slot of its sums, first row and channel, phase, and where its elements lie."""
    across = tl.cdiv(OUT, BLOCK_M)
    phase, m, tile = pid % PHASES, pid // PHASES % across * BLOCK_M, pid // (PHASES * across)
    group, start = tile // TILES, tile % TILES * BLOCK_N
    ry, rx = phase // 2, phase % 2
    r = start + tl.arange(0, BLOCK_N)
    first = start // (GH * GW)  # 64-bit addresses start at the tile's first image
    image, h, w = r // (GH * GW) - first, r % (GH * GW) // GW, r % GW
    if PHASES == 4:
        h, w = h * 2 + ry, w * 2 + rx
    live = (r < IMAGES * GH * GW) & (h < OH) & (w < OW)
    out = m + tl.arange(0, BLOCK_M)
    at = (((image * OH + h) * OW + w) * OUT)[None, :] + out[:, None]
    base = (group * IMAGES + first).to(tl.int64) * OH * OW * OUT
    return group, tile * PHASES + phase, group * IMAGES * GH * GW + start, m, ry, rx, live, out, base, at


@triton.jit(do_not_specialize=SIZES)
def conv_tma_forward_kernel(z_ptr, w_ptr, scale_ptr, bias_ptr, residual_ptr, y_ptr, mean_ptr, m2_ptr, count_ptr,
                            IMAGES, GH, GW, OH, OW, TILES, ROWS, TOTAL, C, OUT,
                            K: tl.constexpr, STRIDE: tl.constexpr, GATHER: tl.constexpr, ACT_OUT: tl.constexpr,
                            SLOPE_OUT: tl.constexpr, SPECIALISED: tl.constexpr,
                            BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    a, b = boxes(z_ptr, w_ptr, ROWS, C, OUT, K, STRIDE, GATHER, BLOCK_M, BLOCK_N, BLOCK_K)
    PHASES: tl.constexpr = 1 if STRIDE == 1 or GATHER else 4
    for pid in tl.range(tl.program_id(0), TOTAL, tl.num_programs(0), warp_specialize=SPECIALISED):
        _, slot, row, m, ry, rx, live, out, base, at = place(pid, IMAGES, GH, GW, OH, OW, TILES, OUT, PHASES, BLOCK_M,
                                                                 BLOCK_N)  # fmt: skip
        acc = product(a, b, row, m, ry, rx, GW, C, OUT, K, STRIDE, GATHER, SPECIALISED, BLOCK_M, BLOCK_N, BLOCK_K)
        keep = live[None, :] & (out < OUT)[:, None]
        if scale_ptr is not None:
            acc *= tl.load(scale_ptr)
        if bias_ptr is not None:
            acc += tl.load(bias_ptr + out, mask=out < OUT, other=0.0)[:, None]
        if residual_ptr is not None:
            acc += tl.load(residual_ptr + base + at, mask=keep, other=0.0).to(tl.float32)
        y = act(acc, ACT_OUT, SLOPE_OUT).to(y_ptr.dtype.element_ty)
        tl.store(y_ptr + base + at, y, mask=keep)
        if mean_ptr is not None:
            count = tl.sum(live.to(tl.float32), 0)
            v = y.to(tl.float32)
            mean = tl.sum(tl.where(live[None, :], v, 0.0), 1) / tl.maximum(count, 1.0)
            d = tl.where(live[None, :], v - mean[:, None], 0.0)
            rest = tl.sum(d, 1) / tl.maximum(count, 1.0)  # what rounding left of the mean: it counts at large |mean|/std
            tl.store(mean_ptr + slot * OUT + out, mean + rest, mask=out < OUT)
            tl.store(m2_ptr + slot * OUT + out, tl.sum(d * d, 1) - count * rest * rest, mask=out < OUT)
            if m == 0:
                tl.store(count_ptr + slot, count)


@triton.jit(do_not_specialize=SIZES)
def conv_tma_dgrad_kernel(g_ptr, w_ptr, scale_ptr, x_ptr, s_ptr, t_ptr, dx_ptr, ds_ptr, dt_ptr,
                          IMAGES, GH, GW, OH, OW, TILES, ROWS, TOTAL, C, OUT, s_group,
                          K: tl.constexpr, STRIDE: tl.constexpr, GATHER: tl.constexpr, ACT_IN: tl.constexpr,
                          SLOPE_IN: tl.constexpr, SPECIALISED: tl.constexpr,
                          BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    a, b = boxes(g_ptr, w_ptr, ROWS, C, OUT, K, STRIDE, GATHER, BLOCK_M, BLOCK_N, BLOCK_K)
    PHASES: tl.constexpr = 1 if STRIDE == 1 or GATHER else 4
    for pid in tl.range(tl.program_id(0), TOTAL, tl.num_programs(0), warp_specialize=SPECIALISED):
        group, slot, row, m, ry, rx, live, out, base, at = place(pid, IMAGES, GH, GW, OH, OW, TILES, OUT, PHASES, BLOCK_M,
                                                                 BLOCK_N)  # fmt: skip
        acc = product(a, b, row, m, ry, rx, GW, C, OUT, K, STRIDE, GATHER, SPECIALISED, BLOCK_M, BLOCK_N, BLOCK_K)
        keep = live[None, :] & (out < OUT)[:, None]
        if scale_ptr is not None:
            acc *= tl.load(scale_ptr)
        if x_ptr is not None:
            x = tl.load(x_ptr + base + at, mask=keep, other=0.0).to(tl.float32)
            p = x
            if s_ptr is not None:
                s = tl.load(s_ptr + group * s_group + out, mask=out < OUT, other=0.0)
                p = x * s[:, None] + tl.load(t_ptr + group * s_group + out, mask=out < OUT, other=0.0)[:, None]
            acc = tl.where(live[None, :], acc * act_grad(p, ACT_IN, SLOPE_IN), 0.0)
            if s_ptr is not None:
                tl.store(ds_ptr + slot * OUT + out, tl.sum(acc * x, 1), mask=out < OUT)
                tl.store(dt_ptr + slot * OUT + out, tl.sum(acc, 1), mask=out < OUT)
                acc *= s[:, None]
        tl.store(dx_ptr + base + at, acc.to(dx_ptr.dtype.element_ty), mask=keep)


@triton.jit(do_not_specialize=["ROWS", "GW", "SPLITS", "PER_SPLIT", "TOTAL"])
def conv_tma_wgrad_kernel(d_ptr, e_ptr, part_ptr, ROWS, GW, SPLITS, PER_SPLIT, TOTAL, D, E,
                          K: tl.constexpr, STRIDE: tl.constexpr, SPECIALISED: tl.constexpr,
                          BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    """Partial dw [SPLITS, D, K, K, E]: each row of the dense matrix [ROWS, D] meets the rows of the other at each tap."""
    across = (E * STRIDE * STRIDE).to(tl.int64)
    a = tl.make_tensor_descriptor(d_ptr, [ROWS, D], [D.to(tl.int64), 1], [BLOCK_K, BLOCK_M])
    b = tl.make_tensor_descriptor(e_ptr, [ROWS, across], [across, 1], [BLOCK_K, BLOCK_N])
    columns = tl.cdiv(E, BLOCK_N)
    tiles = tl.cdiv(D, BLOCK_M) * columns
    for pid in tl.range(tl.program_id(0), TOTAL, tl.num_programs(0), warp_specialize=SPECIALISED):
        tap, tile, split = pid % (K * K), pid // (K * K) % tiles, pid // (K * K * tiles)
        m, n = tile // columns * BLOCK_M, tile % columns * BLOCK_N
        rows, column, number = tap_at(tap, 0, 0, GW, E, K, STRIDE, True)
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        start = split * PER_SPLIT
        # whole blocks: the last split reads past ROWS, where TMA gives zeros
        for k in range(start, tl.minimum(start + PER_SPLIT, ROWS), BLOCK_K):
            acc = tl.dot(a.load([k, m]).T, b.load([k + rows, column + n]), acc)
        d, e = m + tl.arange(0, BLOCK_M), n + tl.arange(0, BLOCK_N)
        at = split.to(tl.int64) * D * (K * K * E) + d[:, None] * (K * K * E) + (number * E + e)[None, :]
        tl.store(part_ptr + at, acc, mask=(d < D)[:, None] & (e < E)[None, :])


def tma_tile(m: int, n: int, k: int, stages: int, specialised: bool = True) -> dict[str, Any]:
    """A launch configuration. Four warps where specialised: Triton adds the producer and a second consumer group itself."""
    return dict(BLOCK_M=m, BLOCK_N=n, BLOCK_K=k, SPECIALISED=specialised, num_warps=4 if specialised else 8, num_stages=stages)


def default_config(out: int, pixels: int, reach: int, epilogue: bool, processors: int) -> dict[str, Any]:
    """A tile that spills nowhere: fewer pixels before an epilogue that reads or sums, which needs registers of its own."""
    k = next(k for k in (64, 32, 16) if reach % k == 0)
    if INTERPRET:
        return tma_tile(power_of_two(out, 16, 32), power_of_two(pixels, 16, 32), k, 2, False)
    if out < 128:
        return tma_tile(64, 128, k, 4, False)
    if epilogue:
        return tma_tile(128, 64, k, 4)
    fills = cdiv(pixels, 256) * cdiv(out, 128) >= processors
    return tma_tile(128, 256, k, 3) if fills else tma_tile(128, 128, k, 4)


def use_scratch(device: torch.device) -> None:
    """Descriptors made on the device need global memory, which Triton asks of a hook that each thread sets for itself."""
    if device.type == "cuda":
        triton.set_allocator(lambda size, alignment, stream: torch.empty(size, dtype=torch.int8, device="cuda"))


def _config(name: str, x: Tensor, rows: int, c: int, out: int, spec: ConvSpec, epilogue: bool) -> Mapping[str, Any]:
    shape = (("rows", rows), ("c", c), ("out", out), ("taps", spec.kernel[0] ** 2))
    default = default_config(out, rows, c, epilogue, multiprocessors(x.device))
    config = tuning.config(name + "_epilogue" * epilogue, x.dtype, shape, default, x.device)
    k = config["BLOCK_K"]
    while c % k:  # a neighbour's entry may not divide these channels, and the loops take whole blocks
        k //= 2
    return config if k == config["BLOCK_K"] else {**config, "BLOCK_K": k}


def _weight(w: Tensor, x: Tensor) -> Tensor:
    return aligned(channels_last(w, x.dtype))


def conv_tma_forward(z: Tensor, grid: Grid, w: Tensor, spec: ConvSpec, size_in: tuple[int, int], fusion: Fusion, *,
                     scale: Tensor | None = None, bias: Tensor | None = None, residual: Tensor | None = None,
                     moments: bool = False) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor] | None]:  # fmt: skip
    """z: conv_padded.pad of x. Returns y [N,CO,OH,OW] and tile moments as conv_forward does."""
    ci, co = spec.weight_channels(w.shape)
    size = spec.output_size(*size_in)
    y = empty_nhwc(grid.images, co, *size, z.dtype, z.device)
    residual = None if residual is None else channels_last(residual, z.dtype)
    groups, phases = fusion.groups, 4 if spec.transposed and spec.stride[0] == 2 else 1
    rows = grid.rows // groups
    config = _config("conv_tma_forward", z, rows, ci, co, spec, moments or residual is not None)
    tiles = cdiv(rows, config["BLOCK_N"])
    mean = m2 = count = None
    if moments:
        mean, m2 = torch.empty((2, groups, tiles * phases, co), dtype=torch.float32, device=z.device)
        count = torch.empty((groups, tiles * phases), dtype=torch.float32, device=z.device)
    total = groups * tiles * phases * cdiv(co, config["BLOCK_M"])
    use_scratch(z.device)
    conv_tma_forward_kernel[(min(total, multiprocessors(z.device)),)](
        z, _weight(w, z), scale, bias, residual, y, mean, m2, count, grid.images // groups, grid.height, grid.width, *size, tiles,
        grid.rows, total, ci, co, K=spec.kernel[0], STRIDE=spec.stride[0], GATHER=not spec.transposed, ACT_OUT=fusion.act_out,
        SLOPE_OUT=fusion.slope_out, **config,
    )  # fmt: skip
    return y, None if mean is None or m2 is None or count is None else (mean, m2, count)


def conv_tma_dgrad(g: Tensor, grid: Grid, w: Tensor, spec: ConvSpec, size_in: tuple[int, int], fusion: Fusion, *,
                   scale: Tensor | None = None, x: Tensor | None = None, s: Tensor | None = None,
                   t: Tensor | None = None) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """g: conv_padded.pad of the gradient of y. Returns dx [N,CI,*size_in] and, with s, the sums (ds, dt) [2,groups,CI]."""
    ci, co = spec.weight_channels(w.shape)
    dx = empty_nhwc(grid.images, ci, *size_in, g.dtype, g.device)
    x = channels_last(x, g.dtype) if x is not None and (s is not None or fusion.act_in != "identity") else None
    groups, phases = fusion.groups, 4 if not spec.transposed and spec.stride[0] == 2 else 1
    rows = grid.rows // groups
    config = _config("conv_tma_dgrad", g, rows, co, ci, spec, x is not None)
    tiles = cdiv(rows, config["BLOCK_N"])
    sums = ds = dt = None
    if s is not None:
        ds, dt = sums = torch.empty((2, groups, tiles * phases, ci), dtype=torch.float32, device=g.device)
    total = groups * tiles * phases * cdiv(ci, config["BLOCK_M"])
    use_scratch(g.device)
    conv_tma_dgrad_kernel[(min(total, multiprocessors(g.device)),)](
        g, _weight(w, g), scale, x, s, t, dx, ds, dt, grid.images // groups, grid.height, grid.width, *size_in, tiles, grid.rows,
        total, co, ci, group_stride(s, groups, ci), K=spec.kernel[0], STRIDE=spec.stride[0], GATHER=spec.transposed,
        ACT_IN=fusion.act_in, SLOPE_IN=fusion.slope_in, **config,
    )  # fmt: skip
    return dx, None if sums is None else sums.sum(2)


def conv_tma_wgrad(z: Tensor, g: Tensor, grid: Grid, spec: ConvSpec, ci: int, co: int) -> Tensor:
    """dw in fp32, shaped as PyTorch's weight, channels_last; splits of the pixels are added in a fixed order."""
    k = spec.kernel[0]
    (dense, d), (other, e) = ((z, ci), (g, co)) if spec.transposed else ((g, co), (z, ci))
    if INTERPRET:
        default = tma_tile(power_of_two(d, 16, 32), power_of_two(e, 16, 32), 16, 2, False)
    else:
        default = tma_tile(power_of_two(d, 64, 128), power_of_two(e, 16, 128), 64, 4, d >= 128)
    shape = (("rows", grid.rows), ("d", d), ("e", e), ("taps", k * k))
    config = tuning.config("conv_tma_wgrad", z.dtype, shape, default, z.device)
    tiles = cdiv(d, config["BLOCK_M"]) * cdiv(e, config["BLOCK_N"]) * k * k
    processors = multiprocessors(z.device)
    splits, per_split = splits_for(tiles, grid.rows, {**config, "num_warps": 16}, processors)  # one block a multiprocessor
    part = torch.empty((splits, d, k, k, e), dtype=torch.float32, device=z.device)
    use_scratch(z.device)
    conv_tma_wgrad_kernel[(min(tiles * splits, processors),)](
        dense, other, part, grid.rows, grid.width, splits, per_split, tiles * splits, d, e, K=k, STRIDE=spec.stride[0], **config,
    )  # fmt: skip
    return (part[0] if splits == 1 else part.sum(0)).permute(0, 3, 1, 2)
