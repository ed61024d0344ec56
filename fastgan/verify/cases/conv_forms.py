"""What `fastgan verify` knows of the forms of convolutions on a CPU: each form of each operation,
as forward, backward and double backward of both kinds of layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.kernels.conv.spec import ConvSpec
from fastgan.ops.conv.formed import Forms, convolution
from fastgan.ops.conv.reference import TORCH
from fastgan.verify.cases.conv_calls import C3S1, C4S2, END, START, T3S2, T4S2
from fastgan.verify.registry import Bound, Case, Kwargs, Op, register

C3W1, T3S1 = ConvSpec(False, (3, 3), (1, 1), (0, 2)), ConvSpec(True, (3, 3), (1, 1), (2, 0))
C3W = ConvSpec(False, (3, 5), (2, 1), (0, 2))
"""Nothing the same along both axes."""


def call(input: Tensor, weight: Tensor, spec: ConvSpec, forms: Forms, impl: str = "cpu") -> Tensor:
    if impl == "reference":
        return TORCH.conv(input, weight, spec)
    return convolution(input, weight, None, spec, forms)


def reference(input: Tensor, weight: Tensor, spec: ConvSpec, forms: Forms) -> Tensor:
    return TORCH.conv(input, weight, spec)


def _bytes(kwargs: Kwargs, direction: str) -> int:
    x, w, spec = kwargs["input"], kwargs["weight"], kwargs["spec"]
    height, width = spec.output_size(x.shape[2], x.shape[3])
    y = x.shape[0] * spec.weight_channels(w.shape)[1] * height * width * x.element_size()
    once = x.nbytes + w.nbytes + y
    return once if direction == "forward" else 2 * once


def _flops(kwargs: Kwargs, direction: str) -> int:
    x, spec = kwargs["input"], kwargs["spec"]
    channels = spec.weight_channels(kwargs["weight"].shape)
    once = spec.flops(x.shape[0], x.shape[2], x.shape[3], *channels)
    return once if direction == "forward" else 2 * once


def _case(
    name: str, shape: tuple[int, int, int, int], co: int, spec: ConvSpec, forms: Forms, *tags: str
) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        x = torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)
        channels = (shape[1], co) if spec.transposed else (co, shape[1])
        w = torch.randn(*channels, *spec.kernel, generator=generator)
        return {
            "input": x.to(device, dtype),
            "weight": w.to(device, dtype),
            "spec": spec,
            "forms": forms,
        }

    return Case(f"{name}: {forms.down}, {forms.up}, {forms.weight}", make, set(tags))


SUM = Bound(
    "autograd adds two convolutions that are rounded already: three roundings to bf16, and "
    "PyTorch's own error is the same",
    l2=3.5e-3,
)
_NCHW = Forms("nchw", "nchw", "nchw")
_GEMM = Forms("patches", "fold", "patches")
_ONE = Forms("product", "product", "product")
_FAST = Forms("winograd", "winograd", "winograd")

_REST: dict[str, Any] = {
    "engines": ("cpu", "reference"),
    "grad_inputs": ("input", "weight"),
    "directions": ("forward", "backward", "double"),
    "bytes": _bytes,
    "flops": _flops,
}

register(
    Op(
        "conv_forms",
        call,
        reference,
        [
            _case("4x4 s2", (2, 3, 6, 10), 5, C4S2, _GEMM, "quick", "full"),
            _case("tiny", (1, 2, 4, 4), 2, C4S2, _GEMM, "gradcheck"),
            _case("4x4 s2 transposed", (2, 5, 3, 4), 3, T4S2, _GEMM, "quick", "full"),
            _case("4x4 s2 transposed", (2, 5, 3, 4), 1, T4S2, _NCHW, "quick", "full"),
            _case("3x3 s2 transposed", (2, 4, 3, 5), 1, T3S2, _GEMM, "full"),
            _case("3x3", (3, 4, 5, 5), 1, C3S1, _GEMM, "full"),
            _case("3x3", (3, 4, 5, 5), 6, C3S1, _NCHW, "full"),
            _case("odd rest", (2, 3, 7, 9), 4, C4S2, _GEMM, "quick", "full"),
            _case("uneven", (2, 3, 8, 6), 4, C3W, _GEMM, "full"),
            _case("one 4x4", (3, 5, 4, 4), 1, END, _ONE, "quick", "full"),
            _case("from 1x1", (3, 7, 1, 1), 5, START, _ONE, "quick", "full"),
            _case("from 1x1", (3, 7, 1, 1), 5, START, _GEMM, "full"),
            _case("mixed", (2, 6, 8, 8), 4, C4S2, Forms("onednn", "fold", "nchw"), "full"),
        ],
        dtypes=("fp32", "bf16"),
        bounds={"double:d2(dout)": SUM},
        **_REST,
    )
)

AMPLIFIED = Bound(
    "A, G and B carry roundings of the 36 products to the outputs, 10.8 times those of a direct "
    "sum by norm (3.3 an axis), so twice PyTorch's own error becomes 21.6 times; 1e-5 holds",
    ratio=21.6,
)
_OUTPUTS = {"forward": ("out",), "backward": ("dinput", "dweight")}
_OUTPUTS["double"] = ("dinput", "dweight", "d2(dout)", "d2input", "d2weight")

register(
    Op(
        "conv_winograd",
        call,
        reference,
        [
            _case("3x3", (3, 4, 8, 8), 6, C3S1, _FAST, "quick", "full"),
            _case("3x3 cut tiles", (2, 3, 5, 11), 4, C3S1, _FAST, "full"),
            _case("3x3 unpadded", (2, 3, 9, 7), 4, C3W1, _FAST, "full"),
            _case("3x3 transposed", (2, 3, 6, 4), 4, T3S1, _FAST, "quick", "full"),
            _case("3x3 of many", (40, 16, 16, 16), 24, C3S1, _FAST, "full"),
            _case("tiny", (1, 2, 3, 5), 2, C3S1, _FAST, "gradcheck"),
        ],
        dtypes=("fp32",),
        bounds={f"{d}:{o}": AMPLIFIED for d, outputs in _OUTPUTS.items() for o in outputs},
        **_REST,
    )
)
