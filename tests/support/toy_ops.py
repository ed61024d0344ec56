"""A complete small op, as docs/verification.md describes one: what the harness itself is tested
with."""

from __future__ import annotations

import torch

from fastgan.kernels import activations, tuning
from fastgan.kernels.activations import act, act_grad
from fastgan.kernels.common import cdiv, tl, triton
from fastgan.ops.dispatch import Dispatcher
from fastgan.verify.registry import Case, Mask, Op, Variant, register

DEFAULT = {"BLOCK": 256, "num_warps": 4, "num_stages": 2}


@triton.jit
def scale_act_kernel(
    x_ptr,
    g_ptr,
    y_ptr,
    scale,
    N,
    BACKWARD: tl.constexpr,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    p = tl.load(x_ptr + i, mask=i < N, other=0.0).to(tl.float32) * scale
    if BACKWARD:
        g = tl.load(g_ptr + i, mask=i < N, other=0.0).to(tl.float32)
        y = g * act_grad(p, ACT, SLOPE) * scale
    else:
        y = act(p, ACT, SLOPE)
    tl.store(y_ptr + i, y.to(y_ptr.dtype.element_ty), mask=i < N)


def launch(x, g, scale, activation, slope):
    y = torch.empty_like(x)
    meta = tuning.config("scale_act", x.dtype, (("n", x.numel()),), DEFAULT, x.device)
    grid = (cdiv(x.numel(), meta["BLOCK"]),)
    scale_act_kernel[grid](
        x, x if g is None else g, y, scale, x.numel(), g is not None, activation, slope, **meta
    )
    return y


class ScaleAct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, activation, slope):
        ctx.save_for_backward(x)
        ctx.rest = (scale, activation, slope)
        return launch(x, None, scale, activation, slope)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return ScaleActBackward.apply(x, g.contiguous(), *ctx.rest), None, None, None


class ScaleActBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, g, scale, activation, slope):
        ctx.save_for_backward(x)
        ctx.rest = (scale, activation, slope)
        return launch(x, g, scale, activation, slope)

    @staticmethod
    def backward(ctx, gg):  # piecewise linear: nothing flows to x
        (x,) = ctx.saved_tensors
        return None, ScaleActBackward.apply(x, gg.contiguous(), *ctx.rest), None, None, None


_choose = Dispatcher(
    "scale_act",
    ("triton", "reference"),
    lambda engine, dtype, contiguous: None if contiguous else "needs contiguous x",
)


def scale_act(x, scale, *, activation="leaky_relu", slope=0.2, impl="auto"):
    if _choose(impl, x, x.is_contiguous()) == "triton":
        return ScaleAct.apply(x, scale, activation, slope)
    return scale_act_reference(x, scale, activation=activation, slope=slope)


def scale_act_reference(x, scale, *, activation="leaky_relu", slope=0.2, mask=None):
    p = x * scale
    return (
        activations.activation(p, activation, slope)
        if mask is None
        else torch.where(mask, p, p * slope)
    )


def make(dtype, device, generator):
    return {"x": torch.randn(3, 5, 7, 9, generator=generator).to(dtype).to(device), "scale": 1.5}


def tiny(dtype, device, generator):
    return {
        "x": torch.randn(2, 3, generator=generator).to(dtype).to(device),
        "scale": 1.5,
        "activation": "tanh",
    }


def variants():
    signature = {"x_ptr": "*bf16", "g_ptr": "*bf16", "y_ptr": "*bf16", "scale": "fp32", "N": "i32"}
    constexprs = {"BACKWARD": True, "ACT": "leaky_relu", "SLOPE": 0.2}
    return [
        Variant(
            "scale_act backward bf16",
            scale_act_kernel,
            signature,
            constexprs,
            [DEFAULT, {**DEFAULT, "BLOCK": 128}],
            tuned="scale_act",
        )
    ]


register(
    Op(
        "scale_act",
        scale_act,
        scale_act_reference,
        [Case("odd", make, {"quick", "full"}), Case("tiny", tiny, {"gradcheck"})],
        grad_inputs=("x",),
        outputs=("y",),
        directions=("forward", "backward", "double"),
        kernels=variants,
        mask=Mask(
            lambda kw, out: out["y"] > 0,
            lambda kw: (kw["x"] * kw["scale"], (kw["x"] * kw["scale"]).abs()),
        ),
        bytes=lambda kw, direction: (2 if direction == "forward" else 3) * kw["x"].nbytes,
        candidates={"scale_act": [DEFAULT, {**DEFAULT, "BLOCK": 64}]},
    )
)
