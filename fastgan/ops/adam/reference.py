"""Adam, its average and its low-precision copy in plain PyTorch, on flat buffers."""

from __future__ import annotations

import torch
from torch import Tensor

# On a CPU, walk the buffers in pieces that stay in the second-level cache over the ten element-wise
# passes.
CPU_CHUNK = 1 << 16


def adam_ema_formula_(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    ema: Tensor | None,
    low: Tensor | None,
    step: Tensor,
    lr: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    eps: Tensor,
    weight_decay: Tensor | None,
    ema_decay: Tensor | None,
    scale: Tensor | None,
    found_inf: Tensor | None,
    decoupled: bool,
) -> None:
    skip = None if found_inf is None else found_inf != 0
    # Scalars in float64, rounded once to fp32: what torch.optim.Adam does with Python floats.
    lr, beta1, beta2 = lr.double(), beta1.double(), beta2.double()
    t = step.double() + 1
    weight1, weight2, keep2 = 1 - beta1, 1 - beta2, beta2
    minus_step_size = -(lr / (1 - beta1**t))
    root = (1 - beta2**t).sqrt().to(param.dtype)
    shrink = None if weight_decay is None or not decoupled else 1 - lr * weight_decay.double()
    ema_weight = None if ema_decay is None else 1 - ema_decay.double()
    inverse_scale = None if scale is None else scale.double().reciprocal().to(grad.dtype)
    if skip is not None:
        # A skipped step runs the same arithmetic with neutral scalars and zero gradients: every
        # buffer keeps its bits.
        zero, one = torch.zeros_like(lr), torch.ones_like(lr)
        weight1, weight2, keep2 = (
            weight1.where(~skip, zero),
            weight2.where(~skip, zero),
            keep2.where(~skip, one),
        )
        minus_step_size = minus_step_size.where(~skip, zero)
        shrink = None if shrink is None else shrink.where(~skip, one)
        ema_weight = None if ema_weight is None else ema_weight.where(~skip, zero)
    dtype = param.dtype
    weight1, weight2, keep2 = weight1.to(dtype), weight2.to(dtype), keep2.to(dtype)
    minus_step_size, eps = minus_step_size.to(dtype), eps.to(dtype)
    size = param.numel()
    chunk = CPU_CHUNK if param.device.type == "cpu" else max(size, 1)
    for start in range(0, size, chunk):
        part = slice(start, start + chunk)
        p, g, m, v = param[part], grad[part], exp_avg[part], exp_avg_sq[part]
        if inverse_scale is not None:
            g = g * inverse_scale
        if skip is not None:
            g = torch.where(skip, 0.0, g)
        if weight_decay is not None:
            if shrink is not None:
                p.mul_(shrink.to(dtype))
            elif skip is None:
                g = torch.addcmul(g, p, weight_decay.to(dtype))
            else:
                g = torch.where(skip, 0.0, torch.addcmul(g, p, weight_decay.to(dtype)))
        m.lerp_(g, weight1)
        v.mul_(keep2).addcmul_(g * weight2, g)
        denominator = v.sqrt().div_(root).add_(eps)
        p.addcdiv_(m * minus_step_size, denominator)
        if ema is not None and ema_weight is not None:
            ema[part].lerp_(p, ema_weight.to(dtype))
        if low is not None:
            low[part].copy_(p if skip is None else torch.where(skip, low[part].to(p.dtype), p))
    step.add_(1 if skip is None else (~skip).to(step.dtype))
