"""Adam/AdamW + EMA + low-precision copy over flat buffers in one launch.

28 bytes a parameter with an fp32 gradient (p, g, m, v read; p, m, v written), 26 with a bf16 one, 2
more for the 16-bit copy, 8 more for the EMA. Gradients come in one flat buffer, or lie where
autograd left them: a table of pieces of at most BLOCK elements says of which parameter each is,
another where that parameter's gradient begins.

The arithmetic follows torch.optim.Adam's single-tensor path operation by operation: scalars in
float64 and rounded once, moments by a fused lerp, correctly rounded square root and divisions,
nothing contracted otherwise. So fp32 results equal PyTorch's CPU results bit for bit where the
hardware has a fused multiply-add; the interpreter has none and differs in last places.

Every program reads `step`; the last one to finish writes step + 1 and rewinds `ticket`, so neither
needs a launch.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastgan.kernels import tuning
from fastgan.kernels.common import cdiv, tl, triton

# Elements to which flat buffers pad each parameter: 128 bytes in fp32, no cache line or 16-byte
# vector shared.
ALIGN = 32
DEFAULT: dict[str, Any] = {"BLOCK": 1024, "PROGRAMS": 1056, "num_warps": 8}


@triton.jit
def _power(base, exponent):
    """base ** exponent in float64 by squaring, for an int64 exponent >= 0: a few ulp of float64,
    far below one of fp32."""
    result = base * 0.0 + 1.0
    while exponent > 0:
        if exponent % 2 == 1:
            result = result * base
        base = base * base
        exponent = exponent // 2
    return result


@triton.jit
def lerp(start, end, weight):
    """torch.lerp: both branches keep the end points exact."""
    difference = end - start
    near = tl.fma(weight + tl.zeros_like(difference), difference, start)
    far = tl.fma(weight - 1.0 + tl.zeros_like(difference), difference, end)
    return tl.where(weight < 0.5, near, far)


@triton.jit
def adam_ema_kernel(
    param_ptr,
    grad_ptr,
    avg_ptr,
    avg_sq_ptr,  # [n] fp32 (grad: any float)
    ema_ptr,
    low_ptr,  # [n] fp32, 16-bit
    step_ptr,
    ticket_ptr,  # scalars: steps done, int32 zero
    lr_ptr,
    beta1_ptr,
    beta2_ptr,
    eps_ptr,
    decay_ptr,
    ema_decay_ptr,
    scale_ptr,
    found_ptr,  # scalars
    pieces_ptr,
    places_ptr,  # [pieces, 4] int32, [parameters, 2] int64: Gradients
    n,  # elements; with pieces, BLOCK * pieces
    DECAY: tl.constexpr,  # 0 none, 1 added to the gradient (Adam), 2 decoupled (AdamW)
    HAS_EMA: tl.constexpr,
    HAS_LOW: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_FOUND: tl.constexpr,
    SCATTERED: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    lr = tl.load(lr_ptr).to(tl.float64)
    beta1 = tl.load(beta1_ptr).to(tl.float64)
    beta2 = tl.load(beta2_ptr).to(tl.float64)
    eps = tl.load(eps_ptr).to(tl.float32)
    done = tl.load(step_ptr)
    t = done.to(tl.int64) + 1
    minus_step_size = (-(lr / (1.0 - _power(beta1, t)))).to(tl.float32)
    root = tl.sqrt(1.0 - _power(beta2, t)).to(tl.float32)
    weight1 = (1.0 - beta1).to(tl.float32)
    weight2 = (1.0 - beta2).to(tl.float32)
    keep2 = beta2.to(tl.float32)
    if DECAY == 1:
        decay = tl.load(decay_ptr).to(tl.float32)
    if DECAY == 2:
        shrink = (1.0 - lr * tl.load(decay_ptr).to(tl.float64)).to(tl.float32)
    if HAS_EMA:
        ema_weight = (1.0 - tl.load(ema_decay_ptr).to(tl.float64)).to(tl.float32)
    if HAS_SCALE:
        inverse = (1.0 / tl.load(scale_ptr).to(tl.float64)).to(tl.float32)
    limit = n
    advance = 1
    if HAS_FOUND:
        skip = tl.load(found_ptr) != 0
        limit = tl.where(skip, 0, n)
        advance = tl.where(skip, 0, 1)
    for start in range(
        tl.program_id(0).to(tl.int64) * BLOCK, limit, tl.num_programs(0).to(tl.int64) * BLOCK
    ):
        i = start + tl.arange(0, BLOCK)
        mask = i < n
        if SCATTERED:
            # multiples of UNIT, so that the compiler sees whole vectors
            piece = pieces_ptr + start // BLOCK * 4
            mask = tl.arange(0, BLOCK) < tl.load(piece + 1) * UNIT
            place = places_ptr + tl.load(piece + 3) * 2
            within = tl.load(piece + 2).to(tl.int64) * UNIT + tl.arange(0, BLOCK)
            i = tl.load(piece).to(tl.int64) * UNIT + tl.arange(0, BLOCK)
            address = tl.load(place)
            found = mask & (address != 0)
            if tl.load(place + 1) == 2:
                low_grad_ptr = tl.multiple_of(address.to(tl.pointer_type(tl.bfloat16)), 16)
                g = tl.load(low_grad_ptr + within, mask=found, other=0.0).to(tl.float32)
            else:
                full_grad_ptr = tl.multiple_of(address.to(tl.pointer_type(tl.float32)), 16)
                g = tl.load(full_grad_ptr + within, mask=found, other=0.0)
        else:
            g = tl.load(grad_ptr + i, mask=mask, other=0.0).to(tl.float32)
        p = tl.load(param_ptr + i, mask=mask, other=0.0)
        m = tl.load(avg_ptr + i, mask=mask, other=0.0)
        v = tl.load(avg_sq_ptr + i, mask=mask, other=0.0)
        if HAS_SCALE:
            g = g * inverse
        if DECAY == 1:
            g = tl.fma(p, decay + tl.zeros_like(p), g)
        if DECAY == 2:
            p = p * shrink
        m = lerp(m, g, weight1)
        v = v * keep2 + (g * weight2) * g
        denominator = tl.div_rn(tl.sqrt_rn(v), root + tl.zeros_like(v)) + eps
        p = p + tl.div_rn(m * minus_step_size, denominator)
        tl.store(param_ptr + i, p, mask=mask)
        tl.store(avg_ptr + i, m, mask=mask)
        tl.store(avg_sq_ptr + i, v, mask=mask)
        if HAS_EMA:
            e = tl.load(ema_ptr + i, mask=mask, other=0.0)
            tl.store(ema_ptr + i, lerp(e, p, ema_weight), mask=mask)
        if HAS_LOW:
            tl.store(low_ptr + i, p.to(low_ptr.dtype.element_ty), mask=mask)
    # All warps of this program have read `step` before it takes its ticket.
    tl.debug_barrier()
    if tl.atomic_add(ticket_ptr, 1) == tl.num_programs(0) - 1:
        tl.store(step_ptr, done + advance)
        tl.store(ticket_ptr, 0)


def settings(n: int, param: Tensor) -> dict[str, Any]:
    """BLOCK, PROGRAMS and warps for `n` parameters, from the tuning table."""
    return dict(tuning.config("adam_ema", param.dtype, (("n", n),), DEFAULT, param.device))


def adam_ema_(
    param: Tensor,
    grad: Tensor | None,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    ema: Tensor | None,
    low: Tensor | None,
    step: Tensor,
    ticket: Tensor,
    lr: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    eps: Tensor,
    weight_decay: Tensor | None,
    ema_decay: Tensor | None,
    scale: Tensor | None,
    found_inf: Tensor | None,
    decoupled: bool,
    pieces: Tensor | None = None,
    places: Tensor | None = None,
    block: int = 0,
) -> None:
    """One step in place on contiguous (numel,) buffers; `ticket` is an int32 zero, zero again
    afterwards. One launch.

    pieces, places, block: of ops.flat.Gradients; `grad` is None then.
    """
    n = param.numel()
    config = settings(n, param)
    if pieces is not None:
        n, config["BLOCK"] = pieces.shape[0] * block, block
    programs = max(1, min(cdiv(n, config["BLOCK"]), config.pop("PROGRAMS")))
    adam_ema_kernel[(programs,)](
        param,
        grad,
        exp_avg,
        exp_avg_sq,
        ema,
        low,
        step,
        ticket,
        lr,
        beta1,
        beta2,
        eps,
        weight_decay,
        ema_decay,
        scale,
        found_inf,
        pieces,
        places,
        n,
        DECAY=0 if weight_decay is None else 2 if decoupled else 1,
        HAS_EMA=ema is not None,
        HAS_LOW=low is not None,
        HAS_SCALE=scale is not None,
        HAS_FOUND=found_inf is not None,
        SCATTERED=pieces is not None,
        UNIT=ALIGN,
        **{
            "enable_fp_fusion": False,
            **config,
        },  # which the compiled forms' configurations name too
    )
