"""One power iteration of many layers at once: row and column products, the finish, the outer
product."""

from __future__ import annotations

from fastgan.kernels.common import tl, triton
from fastgan.kernels.norm.running import pick


@triton.jit
def inverse_norm(x_ptr, n, eps, BLOCK: tl.constexpr):
    """1 / max(|x|, eps) and |x|^2 of x [n], in one order whoever asks."""
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, n, BLOCK):
        i = first + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + i, mask=i < n, other=0.0)
        total += x * x
    square = tl.sum(total, 0)
    return tl.div_rn(1.0, tl.maximum(tl.sqrt_rn(square), eps)), square


@triton.jit
def place(layers_ptr, blocks_ptr):
    """(layer, its block, its row of the table) of this program; a row has ten numbers: h, w, P, row
    stride, si, so, vi, vo, first entry of u, first entry of v."""
    layer = tl.load(blocks_ptr + 2 * tl.program_id(0))
    return layer, tl.load(blocks_ptr + 2 * tl.program_id(0) + 1), layers_ptr + layer * 10


@triton.jit
def matrix_at(at):
    """h, w, P, row stride, si, so, vi, vo of a layer."""
    return (
        tl.load(at),
        tl.load(at + 1),
        tl.load(at + 2),
        tl.load(at + 3),
        tl.load(at + 4),
        tl.load(at + 5),
        tl.load(at + 6),
        tl.load(at + 7),
    )


@triton.jit
def columns(m, P, si, so, vi, vo):
    """(offset in a row of W, entry of v) of columns m."""
    return (m // P) * so + (m % P) * si, (m // P) * vo + (m % P) * vi


@triton.jit
def row_product_kernel(
    weight_ptrs,
    v_ptrs,
    in_ptr,
    out_ptr,
    layers_ptr,
    blocks_ptr,
    eps,
    LAYERS: tl.constexpr,
    FLAT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """out = W v for a block of rows. FLAT: v is the raw vector in the flat `in_ptr`, to be
    normalised; else the layer's own buffer."""
    layer, block, at = place(layers_ptr, blocks_ptr)
    h, w, P, sr, si, so, vi, vo = matrix_at(at)
    weight_ptr = pick(weight_ptrs, layer, LAYERS)
    if FLAT:
        v_ptr = in_ptr + tl.load(at + 9)
        scale, _ = inverse_norm(v_ptr, w, eps, 1024)
    else:
        v_ptr = pick(v_ptrs, layer, LAYERS)
        scale = 1.0
    r = block * BLOCK_R + tl.arange(0, BLOCK_R)
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for first in range(0, w, BLOCK_C):
        m = first + tl.arange(0, BLOCK_C)
        column, entry = columns(m, P, si, so, vi, vo)
        v = tl.load(v_ptr + entry, mask=m < w, other=0.0) * scale
        keep = (r < h)[:, None] & (m < w)[None, :]
        x = tl.load(
            weight_ptr + r.to(tl.int64)[:, None] * sr + column[None, :], mask=keep, other=0.0
        )
        total += x * v[None, :]
    tl.store(out_ptr + tl.load(at + 8) + r, tl.sum(total, 1), mask=r < h)


@triton.jit
def column_product_kernel(
    weight_ptrs,
    u_ptrs,
    in_ptr,
    out_ptr,
    layers_ptr,
    blocks_ptr,
    eps,
    LAYERS: tl.constexpr,
    FLAT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """out = W^T u for a block of columns. FLAT: u is the raw vector in the flat `in_ptr`, to be
    normalised; else the layer's own buffer."""
    layer, block, at = place(layers_ptr, blocks_ptr)
    h, w, P, sr, si, so, vi, vo = matrix_at(at)
    weight_ptr = pick(weight_ptrs, layer, LAYERS)
    if FLAT:
        u_ptr = in_ptr + tl.load(at + 8)
        scale, _ = inverse_norm(u_ptr, h, eps, 1024)
    else:
        u_ptr = pick(u_ptrs, layer, LAYERS)
        scale = 1.0
    m = block * BLOCK_C + tl.arange(0, BLOCK_C)
    column, entry = columns(m, P, si, so, vi, vo)
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for first in range(0, h, BLOCK_R):
        r = first + tl.arange(0, BLOCK_R)
        u = tl.load(u_ptr + r, mask=r < h, other=0.0) * scale
        keep = (r < h)[:, None] & (m < w)[None, :]
        x = tl.load(
            weight_ptr + r.to(tl.int64)[:, None] * sr + column[None, :], mask=keep, other=0.0
        )
        total += x * u[:, None]
    tl.store(out_ptr + tl.load(at + 9) + entry, tl.sum(total, 0), mask=m < w)


@triton.jit
def finish_kernel(
    u_ptrs,
    v_ptrs,
    raw_u_ptr,
    raw_v_ptr,
    flat_u_ptr,
    flat_v_ptr,
    sigma_ptr,
    layers_ptr,
    U,
    V,
    eps,
    LAYERS: tl.constexpr,
    ITERATED: tl.constexpr,
    LAST_IS_V: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Unit vectors (kept for backward; the last group's also into the buffers) and sigma [groups,
    layers]; program = (layer, group)."""
    layer, group = tl.program_id(0), tl.program_id(1)
    at = layers_ptr + layer * 10
    h, w, u0, v0 = tl.load(at), tl.load(at + 1), tl.load(at + 8), tl.load(at + 9)
    u_ptr, v_ptr = pick(u_ptrs, layer, LAYERS), pick(v_ptrs, layer, LAYERS)
    raw_u_ptr += group * U + u0
    raw_v_ptr += group * V + v0
    flat_u_ptr += group * U + u0
    flat_v_ptr += group * V + v0
    last = group == tl.num_programs(1) - 1
    if ITERATED:
        scale_u, square_u = inverse_norm(raw_u_ptr, h, eps, BLOCK)
        scale_v, square_v = inverse_norm(raw_v_ptr, w, eps, BLOCK)
        sigma = square_v * scale_v if LAST_IS_V else square_u * scale_u
        for first in range(0, h, BLOCK):
            i = first + tl.arange(0, BLOCK)
            unit = tl.load(raw_u_ptr + i, mask=i < h, other=0.0) * scale_u
            tl.store(flat_u_ptr + i, unit, mask=i < h)
            tl.store(u_ptr + i, unit, mask=(i < h) & last)
        for first in range(0, w, BLOCK):
            i = first + tl.arange(0, BLOCK)
            unit = tl.load(raw_v_ptr + i, mask=i < w, other=0.0) * scale_v
            tl.store(flat_v_ptr + i, unit, mask=i < w)
            tl.store(v_ptr + i, unit, mask=(i < w) & last)
    else:
        total = tl.zeros((BLOCK,), tl.float32)
        for first in range(0, h, BLOCK):
            i = first + tl.arange(0, BLOCK)
            u = tl.load(u_ptr + i, mask=i < h, other=0.0)
            total += u * tl.load(raw_u_ptr + i, mask=i < h, other=0.0)
            tl.store(flat_u_ptr + i, u, mask=i < h)
        for first in range(0, w, BLOCK):
            i = first + tl.arange(0, BLOCK)
            tl.store(flat_v_ptr + i, tl.load(v_ptr + i, mask=i < w, other=0.0), mask=i < w)
        sigma = tl.sum(total, 0)
    tl.store(sigma_ptr + group * tl.num_programs(0) + layer, sigma)


@triton.jit
def outer_kernel(
    grad_ptrs,
    dsigma_ptr,
    flat_u_ptr,
    flat_v_ptr,
    layers_ptr,
    blocks_ptr,
    U,
    V,
    GROUPS,
    LAYERS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """dW = sum over groups of dsigma u v^T, for a block of rows of one layer."""
    layer, block, at = place(layers_ptr, blocks_ptr)
    h, w, P, sr, si, so, vi, vo = matrix_at(at)
    u0, v0 = tl.load(at + 8), tl.load(at + 9)
    grad_ptr = pick(grad_ptrs, layer, LAYERS)
    r = block * BLOCK_R + tl.arange(0, BLOCK_R)
    for first in range(0, w, BLOCK_C):
        m = first + tl.arange(0, BLOCK_C)
        column, entry = columns(m, P, si, so, vi, vo)
        total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
        for group in range(GROUPS):
            d = tl.load(dsigma_ptr + group * LAYERS + layer)
            u = tl.load(flat_u_ptr + group * U + u0 + r, mask=r < h, other=0.0)
            v = tl.load(flat_v_ptr + group * V + v0 + entry, mask=m < w, other=0.0)
            total += (d * u)[:, None] * v[None, :]
        keep = (r < h)[:, None] & (m < w)[None, :]
        tl.store(grad_ptr + r.to(tl.int64)[:, None] * sr + column[None, :], total, mask=keep)


@triton.jit
def normalise_kernel(
    weight_ptrs,
    out_ptrs,
    sigma_ptr,
    layers_ptr,
    blocks_ptr,
    LAYERS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """W / sigma in the type of `out_ptrs`, laid out as W, for a block of rows of one layer."""
    layer, block, at = place(layers_ptr, blocks_ptr)
    h, w, P, sr, si, so, vi, vo = matrix_at(at)
    weight_ptr, out_ptr = pick(weight_ptrs, layer, LAYERS), pick(out_ptrs, layer, LAYERS)
    sigma = tl.load(sigma_ptr + layer)
    r = block * BLOCK_R + tl.arange(0, BLOCK_R)
    for first in range(0, w, BLOCK_C):
        m = first + tl.arange(0, BLOCK_C)
        column, _ = columns(m, P, si, so, vi, vo)
        keep = (r < h)[:, None] & (m < w)[None, :]
        where = r.to(tl.int64)[:, None] * sr + column[None, :]
        x = tl.load(weight_ptr + where, mask=keep, other=0.0)
        x = tl.div_rn(x, sigma + tl.zeros_like(x))
        tl.store(out_ptr + where, x.to(out_ptr.dtype.element_ty), mask=keep)


@triton.jit
def overlap_kernel(
    weight_ptrs,
    grad_ptrs,
    partial_ptr,
    layers_ptr,
    blocks_ptr,
    LAYERS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """<dWn, W> of a block of rows of one layer, a number each program."""
    layer, block, at = place(layers_ptr, blocks_ptr)
    h, w, P, sr, si, so, vi, vo = matrix_at(at)
    weight_ptr, grad_ptr = pick(weight_ptrs, layer, LAYERS), pick(grad_ptrs, layer, LAYERS)
    r = block * BLOCK_R + tl.arange(0, BLOCK_R)
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for first in range(0, w, BLOCK_C):
        m = first + tl.arange(0, BLOCK_C)
        column, _ = columns(m, P, si, so, vi, vo)
        keep = (r < h)[:, None] & (m < w)[None, :]
        where = r.to(tl.int64)[:, None] * sr + column[None, :]
        x = tl.load(weight_ptr + where, mask=keep, other=0.0)
        total += x * tl.load(grad_ptr + where, mask=keep, other=0.0).to(tl.float32)
    tl.store(partial_ptr + tl.program_id(0), tl.sum(tl.sum(total, 1), 0))


@triton.jit
def weight_gradient_kernel(
    grad_ptrs,
    out_ptrs,
    partial_ptr,
    sigma_ptr,
    flat_u_ptr,
    flat_v_ptr,
    layers_ptr,
    blocks_ptr,
    LAYERS: tl.constexpr,
    MOST_BLOCKS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """dW = (dWn - <dWn, W> / sigma u v^T) / sigma for a block of rows of one layer; the overlap of
    its blocks is summed anew by every program, in one order."""
    layer, block, at = place(layers_ptr, blocks_ptr)
    h, w, P, sr, si, so, vi, vo = matrix_at(at)
    u0, v0 = tl.load(at + 8), tl.load(at + 9)
    grad_ptr, out_ptr = pick(grad_ptrs, layer, LAYERS), pick(out_ptrs, layer, LAYERS)
    sigma = tl.load(sigma_ptr + layer)
    i = tl.arange(0, MOST_BLOCKS)
    count = tl.cdiv(h, BLOCK_R)
    own = tl.load(partial_ptr + tl.program_id(0) - block + i, mask=i < count, other=0.0)
    along = tl.sum(own, 0) / sigma
    r = block * BLOCK_R + tl.arange(0, BLOCK_R)
    u = along * tl.load(flat_u_ptr + u0 + r, mask=r < h, other=0.0)
    for first in range(0, w, BLOCK_C):
        m = first + tl.arange(0, BLOCK_C)
        column, entry = columns(m, P, si, so, vi, vo)
        keep = (r < h)[:, None] & (m < w)[None, :]
        where = r.to(tl.int64)[:, None] * sr + column[None, :]
        v = tl.load(flat_v_ptr + v0 + entry, mask=m < w, other=0.0)
        grad = tl.load(grad_ptr + where, mask=keep, other=0.0).to(tl.float32)
        tl.store(out_ptr + where, (grad - u[:, None] * v[None, :]) / sigma, mask=keep)
