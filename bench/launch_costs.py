"""The launches that one operator or one Triton kernel makes on a GPU: what each moves, multiplies
and is estimated to take.

A launch takes the longest of its bytes at the bandwidth, its multiply-adds at the matrix rate, and
a floor for being a launch. Bytes count every tensor once for each time it is read or written, as if
nothing stayed in the cache. PyTorch's operators count as the launches they make on a GPU; what
cuDNN adds for itself (layouts, workspaces) is not known and not there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from fastgan.bench.fake_gpu import Kernel, Operator

GB_PER_S = 3000.0
"""An H100's memory, about nine tenths of its 3.35 TB/s."""
TFLOPS = 400.0
"""bf16 matrix rate that large convolutions reach on an H100: four tenths of its peak. Narrow ones
reach less."""
FLOOR_US = 1.5
"""What an empty kernel takes in a CUDA graph."""

FAMILIES = {
    "norm.forward": "norm forward",
    "norm.moments": "norm forward",
    "norm.backward": "norm backward",
    "norm.backward_sums": "norm backward",
    "norm.running": "norm statistics",
    "loss": "loss",
    "images": "gather",
    "random": "noise",
    "adam": "adam",
    "average": "average",
    "spectral.kernels": "spectral norm",
    "augment": "augment",
    "conv.forward": "conv fprop (triton)",
    "conv.dgrad": "conv dgrad (triton)",
    "conv.wgrad": "conv wgrad (triton)",
    "conv.moments": "conv moments",
    "conv.split_k": "conv split",
}
"""Module of a Triton kernel -> what its rows are called."""

ACTIVATIONS = (
    "leaky_relu",
    "relu",
    "tanh",
    "sigmoid",
    "silu",
    "threshold",
    "elu",
    "gelu",
    "softplus",
    "hardtanh",
)
FILLS = (
    "zeros",
    "ones",
    "full",
    "fill",
    "zero",
    "zeros_like",
    "ones_like",
    "full_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "scalar_tensor",
    "arange",
)
REDUCTIONS = (
    "sum",
    "mean",
    "amax",
    "amin",
    "max",
    "min",
    "norm",
    "linalg_vector_norm",
    "var",
    "var_mean",
    "any",
    "all",
)
POINTWISE = (
    "add",
    "sub",
    "rsub",
    "mul",
    "div",
    "neg",
    "where",
    "addcmul",
    "addcdiv",
    "rsqrt",
    "sqrt",
    "abs",
    "sgn",
    "pow",
    "exp",
    "log",
    "eq",
    "ne",
    "gt",
    "ge",
    "lt",
    "le",
    "clamp",
    "lerp",
    "maximum",
    "minimum",
    "reciprocal",
    "logical_not",
    "masked_fill",
)
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "dot")
CHUNK, BLOCKS = 65536, 320
MOST_TENSORS = (110, 64, 48, 36, 30)
"""PyTorch's multi-tensor kernels: elements of a chunk, chunks and (by lists at once) tensors of a
launch."""


@dataclass(frozen=True)
class Launch:
    """phase: when ("data", a phase of the objective, "optimiser", "average"). what: the row it is
    counted in. bytes: read and written. flops: of matrix units.
    """

    phase: str
    what: str
    name: str
    bytes: int
    flops: int = 0

    def us(self, gb_per_s: float = GB_PER_S, tflops: float = TFLOPS) -> float:
        """Estimated microseconds."""
        return max(FLOOR_US, self.bytes / gb_per_s / 1e3, self.flops / tflops / 1e6)


def launches_of(noted: Kernel | Operator) -> list[Launch]:
    """The launches of a kernel or an operator on a GPU; none for what only looks at memory."""
    if isinstance(noted, Kernel):
        family = noted.module.partition("kernels.")[2]
        return [Launch("", FAMILIES.get(family, family), noted.name, _kernel_bytes(noted))]
    name = noted.func._schema.name.partition("::")[2]
    plain = name.removesuffix("_")
    moved = _bytes(noted.given) + _bytes(noted.written) + _bytes(noted.made)
    if name == "convolution":
        return _convolution(noted)
    if name == "convolution_backward":
        return _convolution_backward(noted)
    if name.startswith(("_foreach", "_fused")):
        return _multi_tensor(name, noted)
    what = "other"
    if plain in ("_to_copy", "copy"):
        source = noted.given[-1]
        target = noted.made[0] if noted.made else noted.written[0]
        what = "cast" if source.dtype != target.dtype else "copy"
        moved = _bytes([source, target])
    elif plain in FILLS:
        what, moved = "fill", _bytes(noted.made or noted.written)
    elif plain in ("clone", "cat", "stack", "index_select", "contiguous"):
        what = "copy"
        if plain == "index_select":
            moved = 2 * _bytes(noted.made)
    elif plain.removesuffix("_backward") in ACTIVATIONS:
        what = "activation backward" if plain.endswith("_backward") else "activation forward"
    elif plain in POINTWISE:
        what = "add" if plain == "add" else "pointwise"
    elif plain in REDUCTIONS:
        what = "reduction"
    elif plain in PRODUCTS:
        what = "matmul"
    elif plain in ("bernoulli", "normal", "uniform", "native_dropout", "rand", "randn"):
        what = "random"
    elif "batch_norm" in plain or "group_norm" in plain or "layer_norm" in plain:
        what = "norm backward" if plain.endswith("_backward") else "norm forward"
    elif "pool" in plain or "upsample" in plain:
        what = "resample"
    return [Launch("", what, name, moved, _flops(noted))]


def _bytes(values: Iterable[Tensor]) -> int:
    """Of memory touched: what is broadcast is read once."""
    return sum(
        math.prod(size for size, stride in zip(t.shape, t.stride()) if stride or size == 1)
        * t.element_size()
        for t in values
    )


def _kernel_bytes(kernel: Kernel) -> int:
    """Each argument once; of a table of images only the rows that are gathered."""
    sizes = [_bytes([t]) for t in kernel.tensors]
    if kernel.name == "gather_kernel":
        return 2 * sorted(sizes)[-2]
    if kernel.name == "adam_ema_kernel":
        return _adam_bytes(kernel)
    if (
        kernel.name == "_average_kernel"
    ):  # which reads and writes by a table of (address, address, elements)
        return 3 * 4 * sum(row[2] for row in kernel.tensors[0].tolist())
    return sum(sizes)


def _adam_bytes(kernel: Kernel) -> int:
    """fp32 buffers are read and written, the copy is written; gradients, found by a table, are as
    wide as the copy."""
    flat = [t for t in kernel.tensors if t.shape == kernel.tensors[0].shape]
    copies, buffers = (
        [t for t in flat if t.dtype != torch.float32],
        [t for t in flat if t.dtype == torch.float32],
    )
    return 2 * _bytes(buffers) + _bytes(copies) + _bytes(copies or buffers[:1])


def _flops(noted: Operator) -> int:
    formula = flop_registry.get(noted.func._overloadpacket)
    if formula is None:
        return 0
    return int(formula(*noted.args, **noted.kwargs, out_val=noted.result))


def _convolution(noted: Operator) -> list[Launch]:
    """The product, and the bias, which PyTorch adds in a launch of its own."""
    x, weight, bias = noted.args[:3]
    found = [
        Launch("", "conv fprop", "convolution", _bytes([x, weight, *noted.made]), _flops(noted))
    ]
    if bias is not None:
        found.append(Launch("", "conv bias", "add_", 2 * _bytes(noted.made) + _bytes([bias])))
    return found


def _convolution_backward(noted: Operator) -> list[Launch]:
    g, x, weight = noted.args[:3]
    wanted = noted.args[10]
    product = _flops(noted) // max(sum(wanted[:2]), 1)
    found = []
    if wanted[0]:
        found.append(
            Launch("", "conv dgrad", "convolution_backward", _bytes([g, weight, x]), product)
        )
    if wanted[1]:
        found.append(
            Launch("", "conv wgrad", "convolution_backward", _bytes([g, x, weight]), product)
        )
    if wanted[2]:
        found.append(
            Launch("", "conv bias", "sum", _bytes([g]) + weight.shape[0] * weight.element_size())
        )
    return found


def _multi_tensor(name: str, noted: Operator) -> list[Launch]:
    """As many launches as the tensors' chunks need."""
    lists = [
        a for a in noted.args if isinstance(a, (list, tuple)) and a and isinstance(a[0], Tensor)
    ]
    depth = len(lists) + (1 if noted.made else 0)
    if name.startswith("_fused"):
        depth = 4
    most = MOST_TENSORS[min(depth, len(MOST_TENSORS)) - 1]
    count, held, chunks = 1, 0, 0
    for t in lists[0]:
        for _ in range(-(-t.numel() // CHUNK)):
            if chunks == BLOCKS:
                count, held, chunks = count + 1, 0, 0
            chunks += 1
        held += 1
        if held == most:
            count, held, chunks = count + 1, 0, 0
    count -= held == chunks == 0 and count > 1
    moved = _bytes(noted.given) + _bytes(noted.written) + _bytes(noted.made)
    if name.startswith("_fused"):
        moved -= _bytes(lists[1])  # gradients are listed as written, and are where a loss is scaled
    if name == "_foreach_copy_":
        moved -= _bytes(noted.written)
    what = "adam" if "adam" in name else name.strip("_").removeprefix("foreach_") + " of many"
    return [Launch("", what, name, moved // count)] * count
