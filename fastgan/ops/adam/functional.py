"""Adam/AdamW with EMA over one flat, 128-byte-padded fp32 buffer: one launch a network,
hyper-parameters in device memory.

Kingma & Ba 2015, algorithm 1, as torch.optim.Adam computes it; Loshchilov & Hutter 2019 for the
decoupled decay. In order, per
element: unscale, decay, moments, bias correction, update, EMA, low-precision copy. A step whose
`found_inf` is set leaves every buffer as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels import adam as kernel
from fastgan.ops.adam.flat_parameters import Gradients
from fastgan.ops.adam.reference import adam_ema_formula_
from fastgan.ops.dispatch import Dispatcher

SPARE = 64
"""Tables of gradients' addresses that are made at once, outside captures."""


def _device_scalar(value: float | Tensor, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return torch.full((), value, dtype=torch.float64, device=like.device)


@torch.library.custom_op(
    "fastgan::adam_ema_",
    mutates_args=("param", "exp_avg", "exp_avg_sq", "ema", "low", "step", "ticket"),
)
def _adam_ema_(
    param: Tensor,
    grads: Sequence[Tensor],
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
    kernel.adam_ema_(
        param,
        grads[0] if pieces is None else None,
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
        decoupled,
        pieces,
        places,
        block,
    )


@_adam_ema_.register_fake
def _(
    param: Tensor,
    grads: Sequence[Tensor],
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
    return None


def _unsupported(engine: str, dtype: torch.dtype, contiguous: bool) -> str | None:
    if engine != "triton":
        return None
    if dtype != torch.float32:
        return f"the kernel updates float32 master weights, not {dtype}"
    return None if contiguous else "the flat buffers must be contiguous"


choose_engine = Dispatcher("adam_ema", ("triton", "reference"), _unsupported)


@torch.no_grad()
def adam_ema_(
    param: Tensor,
    grad: Tensor | Gradients,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    ema: Tensor | None = None,
    low: Tensor | None = None,
    *,
    step: Tensor,
    lr: float | Tensor,
    beta1: float | Tensor,
    beta2: float | Tensor,
    eps: float | Tensor,
    weight_decay: float | Tensor | None = None,
    ema_decay: float | Tensor | None = None,
    scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    decoupled: bool = False,
    ticket: Tensor | None = None,
    impl: str = "auto",
) -> None:
    """One Adam (`decoupled`: AdamW) step in place on flat fp32 (numel,) buffers; `step` (0-dim,
    steps done) advances by one.

    `ema` (fp32) moves to `param` by 1 - ema_decay; `low` (bf16/fp16) receives the new `param`;
    `grad` is divided by `scale`, not changed; the kernel alone takes Gradients. Where `found_inf`
    is not 0 nothing changes, `step`, `ema` and `low` included. Scalars are 0-dim device tensors,
    best float64 (their bias corrections then round as PyTorch's); Python floats are baked into a
    captured graph. `weight_decay=None` skips the decay. `ticket` (int32 zero of shape (1,), zero
    again afterwards, one a stream) saves the kernel an allocation. Raises FastganError for buffers
    of unequal size, and ema without ema_decay.
    """
    contiguous = True
    flat_grad = grad if isinstance(grad, Tensor) else None
    for name, buffer in (
        ("grad", flat_grad),
        ("exp_avg", exp_avg),
        ("exp_avg_sq", exp_avg_sq),
        ("ema", ema),
        ("low", low),
    ):
        if buffer is not None:
            contiguous = contiguous and buffer.is_contiguous()
            if buffer.shape != param.shape:
                raise FastganError(
                    f"{name} has shape {tuple(buffer.shape)}, the flat parameters "
                    f"{tuple(param.shape)}"
                )
    if (ema is None) != (ema_decay is None):
        raise FastganError("ema and ema_decay go together: give both or neither")
    rate, b1, b2, epsilon = (_device_scalar(x, param) for x in (lr, beta1, beta2, eps))
    decay = None if weight_decay is None else _device_scalar(weight_decay, param)
    keep = None if ema_decay is None else _device_scalar(ema_decay, param)
    if choose_engine(impl, param, contiguous and param.is_contiguous()) == "reference":
        if flat_grad is None:
            raise FastganError("Gradients are for the kernel: give the reference one flat gradient")
        adam_ema_formula_(
            param,
            flat_grad,
            exp_avg,
            exp_avg_sq,
            ema,
            low,
            step,
            rate,
            b1,
            b2,
            epsilon,
            decay,
            keep,
            scale,
            found_inf,
            decoupled,
        )
    else:
        ticket = param.new_zeros(1, dtype=torch.int32) if ticket is None else ticket
        grads, *where = grad if isinstance(grad, Gradients) else ([grad], None, None, 0)
        _adam_ema_(
            param,
            grads,
            exp_avg,
            exp_avg_sq,
            ema,
            low,
            step,
            ticket,
            rate,
            b1,
            b2,
            epsilon,
            decay,
            keep,
            scale,
            found_inf,
            decoupled,
            *where,
        )


def adam_ema_reference_(**kwargs: Any) -> None:
    """`adam_ema_` in plain PyTorch."""
    adam_ema_(**kwargs, impl="reference")
