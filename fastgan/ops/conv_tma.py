"""The convolution's second way on sm_90: operands written once as padded matrices, products fetched by TMA.

Chosen inside the Triton engine by "conv_way" entries of the tuning table, per shape; without one, pointers. A normalisation
that is handed on is applied by the pass that writes the padded operand, so no product transforms anything. Backward is one
operator: dgrad and wgrad share the padded gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgan.kernels import tuning
from fastgan.kernels._common import INTERPRET
from fastgan.kernels.conv_padded import covers, grid_of, pad
from fastgan.kernels.conv_spec import ConvSpec, Fusion

CHANNELS = 16  # channels of both sides are a multiple of this: TMA wants 16-byte rows, a product whole blocks


def lacks(x: Tensor, w: Tensor, spec: ConvSpec) -> str | None:
    """Why TMA cannot run a call, or None."""
    if not INTERPRET and (not x.is_cuda or torch.cuda.get_device_capability(x.device)[0] != 9):
        return "needs sm_90"
    if x.dtype not in (torch.float16, torch.bfloat16):
        return f"takes fp16 and bf16, not {x.dtype}"
    if not covers(spec) or spec.is_gemm(x.shape[2], x.shape[3]):
        return "takes k4 s2 p1, k3 s1 p1 and k1 s1 p0"
    if any(c % CHANNELS for c in w.shape[:2]):
        return f"takes channels that are a multiple of {CHANNELS}"
    return None


def engine_of(x: Tensor, w: Tensor, spec: ConvSpec, shape: tuple[tuple[str, int], ...]) -> str:
    """ "tma" where the tuning table says so and it can run, else "triton" (pointers)."""
    way = tuning.config("conv_way", x.dtype, shape, {"WAY": "pointer"}, x.device)["WAY"]
    return "tma" if way == "tma" and lacks(x, w, spec) is None else "triton"


def forward(x: Tensor, w: Tensor, s: Tensor | None, t: Tensor | None, bias: Tensor | None, scale: Tensor | None,
            residual: Tensor | None, spec: ConvSpec, fusion: Fusion, moments: bool,
            ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor] | None]:  # fmt: skip
    """y and tile moments, as kernels.conv_forward gives them."""
    from fastgan.kernels.conv_tma import conv_tma_forward

    size = x.shape[2], x.shape[3]
    grid = grid_of(spec, x.shape[0], size)
    z, _ = pad(x, spec, grid, not spec.transposed, u=s, v=t, act=fusion.act_in, slope=fusion.slope_in, groups=fusion.groups)
    return conv_tma_forward(z, grid, w, spec, size, fusion, scale=scale, bias=bias, residual=residual, moments=moments)


@torch.library.custom_op("fastgan::conv_moments_tma_backward", mutates_args=())
def backward(
    dy: Tensor,
    w: Tensor,
    x: Tensor,
    s: Tensor | None,
    t: Tensor | None,
    scale: Tensor | None,
    y: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    spec: Sequence[int],
    fusion: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """dx, ds, dt, dw (fp32, before any 1/sigma) and the fp32 channel sums of g; those not in `needs` (dx, dw, sums) are empty.

    g = (dy + a + b*y) * act_out'(y), or dy itself where y is None. a, b: fp32 [groups,CO].
    """
    from fastgan.kernels.conv_tma import conv_tma_dgrad, conv_tma_wgrad

    form, how = ConvSpec.unpack(spec), Fusion.unpack(fusion)
    size = x.shape[2], x.shape[3]
    grid = grid_of(form, x.shape[0], size)
    empty = [x.new_empty(0, dtype=torch.float32) for _ in range(5)]
    dx, ds, dt, dw, total = empty
    g, sums = pad(
        dy, form, grid, form.transposed, y=y, u=b, v=a, gradient=True, act=how.act_out if y is not None else "identity",
        slope=how.slope_out, groups=how.groups, sums=needs[2],
    )  # fmt: skip
    if sums is not None:
        total = sums
    if needs[0]:
        dx, both = conv_tma_dgrad(g, grid, w, form, size, how, scale=scale, x=x, s=s, t=t)
        if both is not None and s is not None and t is not None:
            both = both.sum(1) if s.numel() == both.shape[2] else both
            ds, dt = both[0].reshape(s.shape).clone(), both[1].reshape(t.shape).clone()
    if needs[1]:
        z, _ = pad(x, form, grid, not form.transposed, u=s, v=t, act=how.act_in, slope=how.slope_in, groups=how.groups)
        dw = conv_tma_wgrad(z, g, grid, form, x.shape[1], dy.shape[1])
    return dx, ds, dt, dw, total


@backward.register_fake
def _(dy, w, x, s, t, scale, y, a, b, spec, fusion, needs):  # type: ignore[no-untyped-def]
    sums = lambda size: x.new_empty(size, dtype=torch.float32)
    nhwc = lambda like, dtype: torch.empty(like.shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)
    vector = s is not None and needs[0]
    return (
        nhwc(x, x.dtype) if needs[0] else sums(0),
        sums(s.shape) if vector else sums(0),
        sums(t.shape) if vector else sums(0),
        nhwc(w, torch.float32) if needs[1] else sums(0),
        sums(dy.shape[1]) if needs[2] else sums(0),
    )
