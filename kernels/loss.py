"""Adversarial losses: value, gradient and four logged statistics from one reading of the logits.

Up to SINGLE logits a side, one program does everything in one launch. Above, each program writes
its gradients and a row of six sums, and a second launch adds the rows in order. No atomics, so the
result repeats bit for bit. Sums and gradients are fp32 whatever the logits; the gradient of a mean
over n logits would underflow in fp16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.kernels import tuning
from fastgan.kernels.activations import exp_negative, sigmoid
from fastgan.kernels.common import cdiv, next_power_of_2, tl, triton

DEFAULT: dict[str, Any] = {"BLOCK": 1024, "SINGLE": 16384, "num_warps": 8}
MAX_PROGRAMS = 256
COUNTS = [
    "n_real",
    "n_fake",
]  # one logit would otherwise become a compile-time constant, a Python integer without `.to`


@triton.jit
def softplus(x):
    """log(1 + e^x) to a few ulp everywhere, tails included."""
    e = exp_negative(-tl.abs(x))
    u = 1.0 + e
    # log(1 + e) = log(u) e / (u - 1): the rounding of u cancels (Goldberg 1991, theorem 4).
    small = tl.where(u == 1.0, e, tl.log(u) * tl.div_rn(e, tl.where(u == 1.0, 1.0, u - 1.0)))
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) + small


@triton.jit
def _terms(r, f, KIND: tl.constexpr, D: tl.constexpr):
    """Per logit: value of the real and of the fake term of a loss of fastgan.ops.loss_table, their
    derivatives in r and f."""
    zero = tl.zeros_like(f)
    vr, dr = zero, zero
    if KIND == "relativistic":
        x = (f - r) if D else (r - f)
        vf = softplus(x)
        df = sigmoid(x) if D else -sigmoid(x)
        dr = -df
    elif KIND == "least-squares":
        vf = 0.5 * (f * f if D else (f - 1.0) * (f - 1.0))
        df = f if D else f - 1.0
        if D:
            vr = 0.5 * (r - 1.0) * (r - 1.0)
            dr = r - 1.0
    elif KIND == "hinge" and D:
        vf = tl.maximum(1.0 + f, 0.0, propagate_nan=tl.PropagateNan.ALL)
        df = tl.where(1.0 + f <= 0, 0.0, 1.0)
        vr = tl.maximum(1.0 - r, 0.0, propagate_nan=tl.PropagateNan.ALL)
        dr = tl.where(1.0 - r <= 0, 0.0, -1.0)
    elif KIND == "hinge" or KIND == "wasserstein":
        vf = f if D else -f
        df = zero + (1.0 if D else -1.0)
        if D:
            vr = -r
            dr = zero - 1.0
    elif KIND == "non-saturating" or KIND == "minimax":
        if D:
            vf = softplus(f)
            df = sigmoid(f)
            vr = softplus(-r)
            dr = -sigmoid(-r)
        elif KIND == "minimax":
            vf = -softplus(f)
            df = -sigmoid(f)
        else:
            vf = softplus(-f)
            df = -sigmoid(-f)
    else:
        tl.static_assert(False, "unknown loss")
    return vr, vf, dr, df


@triton.jit
def _finish(
    loss_ptr,
    stats_ptr,
    value_r,
    value_f,
    sum_r,
    sum_f,
    right_r,
    right_f,
    n_real,
    n_fake,
    HAS_REAL: tl.constexpr,
):
    nan = float("nan")
    nr = n_real.to(tl.float32)
    nf = n_fake.to(tl.float32)
    loss = tl.div_rn(value_f, nf)
    if HAS_REAL:
        loss += tl.div_rn(value_r, nr)
    tl.store(loss_ptr, loss)
    tl.store(stats_ptr, tl.div_rn(sum_r, nr) if HAS_REAL else nan)
    tl.store(stats_ptr + 1, tl.div_rn(sum_f, nf))
    tl.store(stats_ptr + 2, tl.div_rn(right_r, nr) if HAS_REAL else nan)
    tl.store(stats_ptr + 3, tl.div_rn(right_f, nf))


@triton.jit(do_not_specialize=COUNTS)
def adversarial_kernel(
    loss_ptr,  # fp32 scalar
    stats_ptr,  # fp32 [4]
    rows_ptr,  # fp32 [programs, 8] unless ONE
    real_ptr,  # [n_real]
    fake_ptr,  # [n_fake]
    dreal_ptr,  # fp32 [n_real] where REAL_GRAD
    dfake_ptr,  # fp32 [n_fake] where FAKE_GRAD
    n_real,
    n_fake,
    span,  # logits a program
    KIND: tl.constexpr,
    D: tl.constexpr,
    HAS_REAL: tl.constexpr,
    REAL_GRAD: tl.constexpr,
    ONE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    first = tl.program_id(0).to(tl.int64) * span
    last = first + span
    value_r = tl.zeros((BLOCK,), tl.float32)
    value_f = tl.zeros((BLOCK,), tl.float32)
    sum_r = tl.zeros((BLOCK,), tl.float32)
    sum_f = tl.zeros((BLOCK,), tl.float32)
    right_r = tl.zeros((BLOCK,), tl.float32)
    right_f = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, span, BLOCK):
        i = first + start + tl.arange(0, BLOCK)
        in_f = (i < n_fake) & (i < last)
        f = tl.load(fake_ptr + i, mask=in_f, other=0.0).to(tl.float32)
        r = tl.zeros((BLOCK,), tl.float32)
        in_r = in_f
        if HAS_REAL:
            in_r = (i < n_real) & (i < last)
            r = tl.load(real_ptr + i, mask=in_r, other=0.0).to(tl.float32)
        vr, vf, dr, df = _terms(r, f, KIND, D)
        value_f += tl.where(in_f, vf, 0.0)
        sum_f += f
        right_f += tl.where(in_f & (f < 0), 1.0, 0.0)
        tl.store(dfake_ptr + i, tl.div_rn(df, n_fake.to(tl.float32) + tl.zeros_like(df)), mask=in_f)
        if HAS_REAL:
            value_r += tl.where(in_r, vr, 0.0)
            sum_r += r
            right_r += tl.where(in_r & (r > 0), 1.0, 0.0)
            if REAL_GRAD:
                tl.store(
                    dreal_ptr + i,
                    tl.div_rn(dr, n_real.to(tl.float32) + tl.zeros_like(dr)),
                    mask=in_r,
                )
    a, b, c = tl.sum(value_r), tl.sum(value_f), tl.sum(sum_r)
    d, e, g = tl.sum(sum_f), tl.sum(right_r), tl.sum(right_f)
    if ONE:
        _finish(loss_ptr, stats_ptr, a, b, c, d, e, g, n_real, n_fake, HAS_REAL)
    else:
        row = rows_ptr + tl.program_id(0) * 8
        tl.store(row, a)
        tl.store(row + 1, b)
        tl.store(row + 2, c)
        tl.store(row + 3, d)
        tl.store(row + 4, e)
        tl.store(row + 5, g)


@triton.jit(do_not_specialize=COUNTS)
def reduce_kernel(
    loss_ptr,
    stats_ptr,
    rows_ptr,
    programs,
    n_real,
    n_fake,
    HAS_REAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.arange(0, BLOCK)
    mask = i < programs
    row = rows_ptr + i * 8
    a = tl.sum(tl.load(row, mask=mask, other=0.0))
    b = tl.sum(tl.load(row + 1, mask=mask, other=0.0))
    c = tl.sum(tl.load(row + 2, mask=mask, other=0.0))
    d = tl.sum(tl.load(row + 3, mask=mask, other=0.0))
    e = tl.sum(tl.load(row + 4, mask=mask, other=0.0))
    g = tl.sum(tl.load(row + 5, mask=mask, other=0.0))
    _finish(loss_ptr, stats_ptr, a, b, c, d, e, g, n_real, n_fake, HAS_REAL)


@triton.jit(do_not_specialize=COUNTS)
def scale_kernel(
    outr_ptr,
    outf_ptr,
    dreal_ptr,
    dfake_ptr,
    grad_ptr,
    n_real,
    n_fake,
    HAS_REAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    grad = tl.load(grad_ptr).to(tl.float32)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    f = tl.load(dfake_ptr + i, mask=i < n_fake, other=0.0) * grad
    tl.store(outf_ptr + i, f.to(outf_ptr.dtype.element_ty), mask=i < n_fake)
    if HAS_REAL:
        r = tl.load(dreal_ptr + i, mask=i < n_real, other=0.0) * grad
        tl.store(outr_ptr + i, r.to(outr_ptr.dtype.element_ty), mask=i < n_real)


def adversarial(
    kind: str, side: str, real: Tensor | None, fake: Tensor, real_grad: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """(fp32 loss, fp32 (4,) statistics, fp32 d loss/d real or None, fp32 d loss/d fake) of
    contiguous logits. One launch, two above SINGLE.
    """
    loss = torch.empty((), dtype=torch.float32, device=fake.device)
    stats = torch.empty(4, dtype=torch.float32, device=fake.device)
    dfake = torch.empty(fake.shape, dtype=torch.float32, device=fake.device)
    dreal = (
        torch.empty(real.shape, dtype=torch.float32, device=fake.device)
        if real is not None and real_grad
        else None
    )
    n_fake = fake.numel()
    n_real = 0 if real is None else real.numel()
    n = max(n_real, n_fake)
    config = dict(tuning.config("adversarial", fake.dtype, (("n", n),), DEFAULT, fake.device))
    one = n <= config.pop("SINGLE")
    block = config["BLOCK"]
    span = cdiv(n, block) * block if one else cdiv(cdiv(n, block), MAX_PROGRAMS) * block
    programs = cdiv(n, span)
    rows = None if one else torch.empty((programs, 8), dtype=torch.float32, device=fake.device)
    adversarial_kernel[(programs,)](
        loss,
        stats,
        rows,
        real,
        fake,
        dreal,
        dfake,
        n_real,
        n_fake,
        span,
        KIND=kind,
        D=side == "d",
        HAS_REAL=real is not None,
        REAL_GRAD=dreal is not None,
        ONE=one,
        **config,
    )
    if not one:
        width = next_power_of_2(programs)
        reduce_kernel[(1,)](
            loss,
            stats,
            rows,
            programs,
            n_real,
            n_fake,
            HAS_REAL=real is not None,
            BLOCK=width,
            num_warps=4,
        )
    return loss, stats, dreal, dfake


def scale(
    grad: Tensor,
    dreal: Tensor | None,
    dfake: Tensor,
    real_dtype: torch.dtype,
    fake_dtype: torch.dtype,
) -> tuple[Tensor | None, Tensor]:
    """(grad * dreal, grad * dfake) in the logits' types; one launch."""
    outf = torch.empty(dfake.shape, dtype=fake_dtype, device=dfake.device)
    outr = (
        None if dreal is None else torch.empty(dreal.shape, dtype=real_dtype, device=dfake.device)
    )
    n_fake, n_real = dfake.numel(), 0 if dreal is None else dreal.numel()
    block = 1024
    scale_kernel[(cdiv(max(n_fake, n_real), block),)](
        outr,
        outf,
        dreal,
        dfake,
        grad,
        n_real,
        n_fake,
        HAS_REAL=dreal is not None,
        BLOCK=block,
        num_warps=4,
    )
    return outr, outf
