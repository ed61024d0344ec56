"""The least work an iteration needs: FLOPs counted by PyTorch on the meta device, bytes of an ideal
fused training step; and the ceilings measured in the run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fastgan.bench.iterations.pieces import Options
from fastgan.bench.iterations.plain import Plain
from fastgan.bench.iterations.suites import Suite
from fastgan.verify.timing import ceilings, measure

ADAM_BYTES = 30
"""A parameter's traffic in one update: gradient, master weight and two moments in fp32, read and
(but for the gradient) written, and the bf16 copy written."""

FORWARD, BACKWARD, INPUT_ONLY = 2, 7, 4
"""Passes over the activations of an ideal fused step: a forward writes y and its consumer reads it;
a backward with weight gradients; one without them (D in G's update)."""


@dataclass(frozen=True)
class Work:
    """flops: of one iteration, a multiply-add is two. bytes: least traffic of an ideal fused step
    in 16 bits (32 on a CPU)."""

    flops: int
    bytes: int

    def floor(self, peaks: dict[str, float]) -> float:
        """Milliseconds below which no iteration can be on these ceilings."""
        return 1e3 * max(
            self.flops / (peaks["matmul_tflops"] * 1e12), self.bytes / (peaks["copy_gbs"] * 1e9)
        )


class _Flops(TorchDispatchMode):
    """PyTorch's own formulas; its FlopCounterMode follows modules too, which second derivatives do
    not survive."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


class _Meta(Plain):
    """An iteration on the meta device: shapes and operators, no numbers."""

    def draw(self) -> None:
        return


@functools.lru_cache(maxsize=32)
def work(suite: Suite, width: int = 2) -> Work:
    """Counted once a suite. width: bytes of an activation."""
    device = torch.device("meta")
    arrays = {
        name: torch.empty(1, suite.size, suite.size, suite.channels).numpy()
        for name in _streams(suite)
    }
    with device:
        row = _Meta(suite, Options("fp32", fused=False), arrays, device, dropout=False)
    return Work(count(row.step), _bytes(suite, row.nets, width))


def count(run: Callable[[], object]) -> int:
    """FLOPs of a call, a multiply-add is two."""
    with _Flops() as counter:
        run()
    return counter.total


def _streams(suite: Suite) -> tuple[str, ...]:
    return ("image", "source") if suite.paired else ("image",)


def _bytes(suite: Suite, nets: dict[str, nn.Module], width: int) -> int:
    """S = bytes of what a network's layers with weights put out (for D with its input) for one
    batch, as in the derivation: docs/benchmarks.md.
    """
    batch = suite.batch
    images = torch.empty(batch, suite.channels, suite.size, suite.size, device="meta")
    seen = torch.cat([images, images], 1) if suite.paired else images
    given = images if suite.paired else torch.empty(batch, *suite.latent, device="meta")
    s_g = width * _outputs(nets["G"], given)
    s_d = width * (_outputs(nets["D"], seen) + seen.numel())
    reuse = suite.critic == 1
    d_update = 2 * (FORWARD + BACKWARD) * s_d
    if suite.r1 or suite.gp:  # a forward, a backward to the image, and a backward through both
        d_update += (FORWARD + INPUT_ONLY + BACKWARD) * s_d
    g_update = (FORWARD + BACKWARD) * s_g + (FORWARD + INPUT_ONLY) * s_d
    total = suite.critic * d_update + g_update + (0 if reuse else suite.critic * FORWARD * s_g)
    parameters = {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}
    return total + ADAM_BYTES * (suite.critic * parameters["D"] + parameters["G"])


def _outputs(net: nn.Module, given: Tensor) -> int:
    """Elements that the layers with weights put out."""
    count = 0

    def add(module: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal count
        count += output.numel()

    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    hooks = [m.register_forward_hook(add) for m in net.modules() if isinstance(m, layers)]
    try:
        with torch.no_grad():
            net(given)
    finally:
        for hook in hooks:
            hook.remove()
    return count


_best: dict[str, dict[str, float]] = {}


def peaks(device_type: str, again: bool = False) -> dict[str, float]:
    """copy_gbs and matmul_tflops of this run: bf16 on a GPU, fp32 on a CPU with as many threads as
    the rows have.

    A ceiling is the best that was seen: `again` measures once more and keeps the greater, since a
    neighbour or a cool clock can spoil any one look.
    """
    if again or device_type not in _best:
        seen = ceilings() if device_type == "cuda" else _cpu_peaks()
        before = _best.get(device_type, seen)
        _best[device_type] = {key: max(value, before[key]) for key, value in seen.items()}
    return _best[device_type]


def _cpu_peaks() -> dict[str, float]:
    a = torch.zeros(1 << 24)
    b = torch.empty_like(a)
    copy = measure([lambda: b.copy_(a)], samples=7)
    fp32 = max(_product(1024, torch.float32), _layer(8, torch.float32))
    bf16 = max(_product(256, torch.bfloat16), _layer(1, torch.bfloat16))
    if bf16 > fp32 / 4:  # a CPU without units for it takes seconds for larger ones
        bf16 = max(bf16, _product(1024, torch.bfloat16), _layer(8, torch.bfloat16))
    return {
        "copy_gbs": 2 * a.numel() * 4 / copy.p20 / 1e6,
        "matmul_tflops": fp32,
        "bf16_tflops": bf16,
    }


def _product(side: int, dtype: torch.dtype) -> float:
    """TFLOP/s of a product of two square matrices."""
    x, w, y = (torch.randn(side, side).to(dtype) for _ in range(3))
    return 2 * side**3 / measure([lambda: torch.mm(x, w, out=y)], samples=7).p20 / 1e9


def _layer(images: int, dtype: torch.dtype) -> float:
    """TFLOP/s of a convolution: oneDNN's outrun the matrix library on some CPUs."""
    x, w = (
        torch.randn(*shape).to(dtype, memory_format=torch.channels_last)
        for shape in ((images, 128, 32, 32), (128, 128, 3, 3))
    )
    time = measure([lambda: torch.conv2d(x, w, padding=1)], samples=7)
    return 2 * images * 32 * 32 * 9 * 128 * 128 / time.p20 / 1e9
