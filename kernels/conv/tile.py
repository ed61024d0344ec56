"""Pieces that forward, dgrad and wgrad share, so that all three agree on places, signs, masks and
padding.

Activations are NHWC in memory. Operands: z = act(x*s + t) and g = (dy + a + b*y) * act_out'(y),
formed on load where asked. Padding is zero *after* the transform, so every transformed operand is
masked again.
"""

from fastgan.kernels.activations import act, output_slope
from fastgan.kernels.common import tl, triton


@triton.jit
def affine(x, s, t):
    return (
        x.to(tl.float32) * s[None, :] + t[None, :]
    )  # one place: forward, dgrad and wgrad must agree on the sign of x*s + t


@triton.jit
def load_operand(
    a_ptr,
    y_ptr,
    u_ptr,
    v_ptr,
    at,
    c,
    known,
    mask,
    GRADIENT: tl.constexpr,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
):
    """A tile [rows, channels] of z (a=x, u=s, v=t) or of g (a=dy, y=y, u=b, v=a); absent pointers
    are None. `known`: c < C."""
    a = tl.load(a_ptr + at, mask=mask, other=0.0)
    if GRADIENT:
        if y_ptr is not None:
            y = tl.load(y_ptr + at, mask=mask, other=0.0).to(tl.float32)
            p = a.to(tl.float32)
            if u_ptr is not None:
                p += affine(
                    y,
                    tl.load(u_ptr + c, mask=known, other=0.0),
                    tl.load(v_ptr + c, mask=known, other=0.0),
                )
            p *= output_slope(y, ACT, SLOPE)
            a = tl.where(mask, p, 0.0).to(a_ptr.dtype.element_ty)
    else:
        if u_ptr is not None:
            p = affine(
                a,
                tl.load(u_ptr + c, mask=known, other=0.0),
                tl.load(v_ptr + c, mask=known, other=0.0),
            )
            a = tl.where(mask, act(p, ACT, SLOPE), 0.0).to(a_ptr.dtype.element_ty)
        elif ACT != "identity":
            a = tl.where(mask, act(a, ACT, SLOPE), 0.0).to(a_ptr.dtype.element_ty)
    return a


@triton.jit
def place(
    pid,
    IMAGES,
    OH,
    OW,
    HP,
    WP,
    TILES,
    OUT,
    SH: tl.constexpr,
    SW: tl.constexpr,
    SCATTER: tl.constexpr,
    MERGED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Which tile of the result [*, OH, OW, OUT] a program computes. Rows are pixels (image, h, w)
    of one phase of one group.

    Returns group, slot (the tile's row in [slots, OUT] buffers, n its columns), base (first image,
    64-bit: 32-bit offsets reach the rest of the tile), image, h, w, ry, rx (the phase), live
    (rows), out (channels), n and known (columns). MERGED: n runs over (phase, channel), so out, ry
    and rx differ by column.
    """
    PHASES: tl.constexpr = SH * SW if SCATTER else 1
    if MERGED:
        columns = tl.cdiv(PHASES * OUT, BLOCK_N)
        column, tile = pid % columns, pid // columns
        n = column * BLOCK_N + tl.arange(0, BLOCK_N)
        phase, out, known, slot = n // OUT, n % OUT, n < PHASES * OUT, tile * PHASES
    else:
        columns = tl.cdiv(
            OUT, BLOCK_N
        )  # phase fastest: neighbours in time share the input tile in L2
        phase, column, tile = pid % PHASES, pid // PHASES % columns, pid // (PHASES * columns)
        out = column * BLOCK_N + tl.arange(0, BLOCK_N)
        n, known, slot = out, out < OUT, tile * PHASES + phase
    group, start = tile // TILES, tile % TILES * BLOCK_M
    ry, rx = phase // SW, phase % SW
    m = start + tl.arange(0, BLOCK_M)
    first = start // (HP * WP)
    image, h, w, live = m // (HP * WP) - first, m % (HP * WP) // WP, m % WP, m < IMAGES * HP * WP
    if SCATTER and not MERGED:
        live = live & (h * SH + ry < OH) & (w * SW + rx < OW)
    return (
        group,
        slot,
        (group * IMAGES + first).to(tl.int64),
        image,
        h,
        w,
        ry,
        rx,
        live,
        out,
        n,
        known,
    )


@triton.jit
def elements(
    image,
    h,
    w,
    ry,
    rx,
    live,
    out,
    known,
    OH,
    OW,
    OUT,
    SH: tl.constexpr,
    SW: tl.constexpr,
    SCATTER: tl.constexpr,
    MERGED: tl.constexpr,
):
    """Which elements of a tile exist, and their offsets from its first image; formed after the
    loops, which need registers."""
    if MERGED:
        oh, ow = h[:, None] * SH + ry[None, :], w[:, None] * SW + rx[None, :]
        keep = live[:, None] & (oh < OH) & (ow < OW) & known[None, :]
        at = ((image[:, None] * OH + oh) * OW + ow) * OUT + out[None, :]
    else:
        oh, ow = h, w
        if SCATTER:
            oh, ow = h * SH + ry, w * SW + rx
        keep = live[:, None] & known[None, :]
        at = (((image * OH + oh) * OW + ow) * OUT)[:, None] + out[None, :]
    return keep, at


@triton.jit
def tap_product(
    acc,
    a_ptr,
    y_ptr,
    u_ptr,
    v_ptr,
    w_ptr,
    image,
    base_h,
    base_w,
    live,
    ky0,
    kx0,
    ty,
    tx,
    k,
    out,
    columns,
    H,
    W,
    C,
    w_ky,
    w_kx,
    w_c,
    w_out,
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    SCATTER: tl.constexpr,
    MERGED: tl.constexpr,
    PACKED: tl.constexpr,
    GRADIENT: tl.constexpr,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """acc += A[pixels, channels of one tap] @ w[channels, out channels] for tap (ty, tx) of this
    phase and channels k onwards."""
    j = k + tl.arange(0, BLOCK_K)
    if SCATTER:
        ih, iw, ky, kx = base_h - ty, base_w - tx, ky0 + SH * ty, kx0 + SW * tx
    else:
        ih, iw, ky, kx = base_h + ty, base_w + tx, ty, tx
    if (
        PACKED
    ):  # few channels: one row of taps is contiguous in NHWC, so K runs over (kx, channel) together
        c, known = j % C, j < KW * C
        column = iw[:, None] + (j // C)[None, :]
        mask = (
            (live & (ih >= 0) & (ih < H))[:, None] & (column >= 0) & (column < W) & known[None, :]
        )
        weight = (ky * w_ky + (j // C) * w_kx + c * w_c)[:, None] + (out * w_out)[None, :]
    else:
        c, known = j, j < C
        mask = (live & (ih >= 0) & (ih < H) & (iw >= 0) & (iw < W))[:, None] & known[None, :]
        if MERGED:  # every column its own phase's tap, where it has one here
            columns = columns & (ky >= 0) & (ky < KH) & (kx >= 0) & (kx < KW)
            weight = (c * w_c)[:, None] + (ky * w_ky + kx * w_kx + out * w_out)[None, :]
        else:
            weight = (ky * w_ky + kx * w_kx + c * w_c)[:, None] + (out * w_out)[None, :]
    at = (((image * H + ih) * W + iw) * C)[:, None] + j[None, :]
    a = load_operand(a_ptr, y_ptr, u_ptr, v_ptr, at, c, known, mask, GRADIENT, ACT, SLOPE)
    w = tl.load(w_ptr + weight, mask=known[:, None] & columns[None, :], other=0.0)
    return tl.dot(a, w, acc, input_precision=PRECISION)


@triton.jit
def gather_product(
    a_ptr,
    y_ptr,
    u_ptr,
    v_ptr,
    w_ptr,
    image,
    h,
    w,
    ry,
    rx,
    live,
    out,
    columns,
    H,
    W,
    C,
    w_ky,
    w_kx,
    w_c,
    w_out,
    row0,
    rows,
    k0,
    span,
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    PH: tl.constexpr,
    PW: tl.constexpr,
    SCATTER: tl.constexpr,
    MERGED: tl.constexpr,
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
    """The reduction of one tile, in fp32: over taps and channels of A [*, H, W, C] against w;
        columns: which of `out` exist.

    SCATTER: A is the small side of a strided pair (transposed forward, or dgrad of a convolution):
    pixel (h*SH+ry, w*SW+rx) of the result sees only the taps of its phase, a dense convolution
    without inserted zeros. Otherwise A is the large side. MERGED: all phases at once, side by side
    in the columns: A is read once for each tap that any phase has, and a column's weight is zero at
    taps that its phase lacks. row0, rows, k0, span: the part of the reduction to do (rows of taps,
    channels); rows None means all of it. Loops are nested, never flattened over taps and channels:
    that miscompiles with 8 warps. ORDER says whether channels or taps are innermost, where the
    pipeline runs.
    """
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if MERGED:
        FAR_H: tl.constexpr = (SH - 1 + PH) // SH
        FAR_W: tl.constexpr = (SW - 1 + PW) // SW
        ky0, kx0 = ry + (PH - SH * FAR_H), rx + (PW - SW * FAR_W)
        base_h, base_w = h + FAR_H, w + FAR_W
        taps_h, taps_w = FAR_H + (KH - 1 - PH) // SH + 1, FAR_W + (KW - 1 - PW) // SW + 1
    elif SCATTER:
        ky0, kx0 = (ry + PH) % SH, (rx + PW) % SW
        base_h, base_w = h + (ry + PH) // SH, w + (rx + PW) // SW
        # the same number of taps in every phase where the stride divides the kernel: known when
        # compiled
        taps_h = KH // SH if KH % SH == 0 else (KH - ky0 + SH - 1) // SH
        taps_w = KW // SW if KW % SW == 0 else (KW - kx0 + SW - 1) // SW
    else:
        ky0, kx0 = 0, 0
        base_h, base_w = h * SH - PH, w * SW - PW
        taps_h, taps_w = KH, 1 if PACKED else KW
    first, reach = 0, KW * C if PACKED else C
    top, bottom = 0, taps_h
    if rows is not None:
        top, bottom = row0, tl.minimum(row0 + rows, taps_h)
        first, reach = k0, tl.minimum(k0 + span, reach)
    if ORDER == "channels":
        for ty in range(top, bottom):
            for tx in range(taps_w):
                for k in range(first, reach, BLOCK_K):
                    acc = tap_product(
                        acc,
                        a_ptr,
                        y_ptr,
                        u_ptr,
                        v_ptr,
                        w_ptr,
                        image,
                        base_h,
                        base_w,
                        live,
                        ky0,
                        kx0,
                        ty,
                        tx,
                        k,
                        out,
                        columns,
                        H,
                        W,
                        C,
                        w_ky,
                        w_kx,
                        w_c,
                        w_out,
                        KH,
                        KW,
                        SH,
                        SW,
                        SCATTER,
                        MERGED,
                        PACKED,
                        GRADIENT,
                        ACT,
                        SLOPE,
                        PRECISION,
                        BLOCK_K,
                    )
    else:
        for k in range(first, reach, BLOCK_K):
            for ty in range(top, bottom):
                for tx in range(taps_w):
                    acc = tap_product(
                        acc,
                        a_ptr,
                        y_ptr,
                        u_ptr,
                        v_ptr,
                        w_ptr,
                        image,
                        base_h,
                        base_w,
                        live,
                        ky0,
                        kx0,
                        ty,
                        tx,
                        k,
                        out,
                        columns,
                        H,
                        W,
                        C,
                        w_ky,
                        w_kx,
                        w_c,
                        w_out,
                        KH,
                        KW,
                        SH,
                        SW,
                        SCATTER,
                        MERGED,
                        PACKED,
                        GRADIENT,
                        ACT,
                        SLOPE,
                        PRECISION,
                        BLOCK_K,
                    )
    return acc
