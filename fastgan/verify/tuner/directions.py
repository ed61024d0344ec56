"""Which engine is fastest for each direction of a convolution: forward, input gradient and weight
gradient, each alone, cuDNN against Triton by the tile that is fastest there.

A Triton result counts where it is at most twice as far from the exact one as cuDNN's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastgan.kernels import tuning
from fastgan.kernels.common import TORCH_DTYPES
from fastgan.kernels.conv.plan import channels_last, tile
from fastgan.kernels.conv.spec import ConvSpec
from fastgan.kernels.tuning import Config, Entry
from fastgan.ops.conv import reference as ref
from fastgan.ops.conv.autograd import RegisteredConvOps
from fastgan.ops.conv.directions import DIRECTIONS
from fastgan.ops.conv.fused import precision_of, shape_of
from fastgan.verify.calls import precision, seed
from fastgan.verify.differences import relative_l2
from fastgan.verify.registry import Case
from fastgan.verify.timing import measure, rotations

KERNELS = dict(zip(DIRECTIONS, ("conv_forward", "conv_dgrad", "conv_wgrad")))
GATHER = [
    *(tile(128, 128, 64, 8, 3, order) for order in ("channels", "taps")),
    *(tile(128, 64, 64, 8, 3, order) for order in ("channels", "taps")),
    tile(64, 64, 64, 4, 3, "channels"),
]
TILES = {
    "forward": GATHER,
    "dgrad": GATHER,
    "wgrad": [tile(64, 64, 64, 4, 3), tile(128, 64, 64, 8, 3)],
}
"""What is tried besides the launchers' default: what won anywhere so far."""
SLOWER, WORSE = 1.03, 2.0


class Layer:
    """One layer's convolution in all three directions, on rotating inputs."""

    def __init__(self, transposed: bool, case: Case, type_name: str, device: torch.device) -> None:
        name = "conv_transpose2d" if transposed else "conv2d"
        given = case.make(TORCH_DTYPES[type_name], device, seed(name, case.name))
        x, self.w = given["input"], given["weight"]
        kernel = (self.w.shape[2], self.w.shape[3])
        extra = given.get("output_padding", (0, 0))
        self.spec = ConvSpec(transposed, kernel, given["stride"], given["padding"], extra)
        self.shape = shape_of(x, self.w, self.spec)
        self.precision = precision_of(x)
        y = ref.TORCH.conv(x, self.w, self.spec)
        sets = rotations(x.nbytes + y.nbytes, at_most=8)
        self.x = [x, *(channels_last(torch.randn_like(x)) for _ in range(sets - 1))]
        self.g = [channels_last(torch.randn_like(y)) for _ in range(sets)]

    def call(self, ops: ref.ConvOps, direction: str, i: int, exact: bool = False) -> Tensor:
        """A direction on input set i; exact: in the type that is compared with."""
        kind = torch.float64 if self.w.dtype == torch.float32 else torch.float32
        x, w, g = (t.to(kind) if exact else t for t in (self.x[i], self.w, self.g[i]))
        if direction == "forward":
            return ops.conv(x, w, self.spec)
        if direction == "dgrad":
            return ops.dgrad(g, w, self.spec, (x.shape[2], x.shape[3]))
        dw = ops.wgrad(x, g, self.spec)
        return dw if exact else dw.to(w.dtype)  # as backward hands it on

    def exact(self, direction: str) -> Tensor:
        with precision("fp32"):  # no TF32
            return self.call(ref.TORCH, direction, 0, exact=True)

    def time(self, ops: ref.ConvOps, direction: str) -> float:
        """Milliseconds."""
        calls = [partial(self.call, ops, direction, i) for i in range(len(self.x))]
        return measure(calls, samples=7, sample_ms=4.0).ms


def tune_layer(
    transposed: bool,
    case: Case,
    type_name: str,
    device: torch.device,
    stamp: Mapping[str, Any],
    tiles: Mapping[str, Sequence[Config]] = TILES,
) -> tuple[list[Entry], dict[str, dict[str, Any]]]:
    """(entries for the table, {direction: {"cudnn": ms, "triton": ms, "config", "engine",
    "failed"}}) of one layer. stamp: versions, commit and date as entries have them."""
    op = "conv_transpose2d" if transposed else "conv2d"
    entries: list[Entry] = []
    found: dict[str, dict[str, Any]] = {}
    with precision(type_name):
        layer = Layer(transposed, case, type_name, device)
        rival = RegisteredConvOps(layer.precision, "cudnn")
        ours = RegisteredConvOps(layer.precision, "triton")
        for direction in DIRECTIONS:
            gold = layer.exact(direction)
            error = relative_l2(layer.call(rival, direction, 0), gold)
            here: dict[str, Any] = {"cudnn": layer.time(rival, direction), "cudnn_error": error}
            here |= _fastest(layer, ours, direction, gold, WORSE * error + 1e-7, tiles[direction])
            better = here.get("triton", float("inf")) * SLOWER < here["cudnn"]
            here["engine"] = "triton" if better else "cudnn"
            shape = dict(layer.shape)
            name, ms = f"{op}.{direction}", here[here["engine"]]
            entries.append(
                Entry(name, type_name, shape, engine=here["engine"], ms=ms, error=error, **stamp)
            )
            asked = here.pop("asked", None)
            if better and asked:
                kernel, kind, at = asked
                config = dict(here["config"] or {})  # empty: the default, whatever a neighbour's
                entries.append(Entry(kernel, kind, dict(at), config=config, ms=ms, **stamp))
            found[direction] = here
    return entries, found


def _fastest(
    layer: Layer,
    ours: ref.ConvOps,
    direction: str,
    gold: Tensor,
    allowed: float,
    tiles: Sequence[Config],
) -> dict[str, Any]:
    """The fastest right tile of Triton's: its milliseconds, error and what the launcher asked the
    table with; those that fail are named."""
    best: dict[str, Any] = {}
    failed: list[str] = []
    for config in (None, *tiles):
        try:
            with (
                tuning.override({KERNELS[direction]: dict(config or {})}),
                tuning.record() as asked,
            ):
                error = relative_l2(layer.call(ours, direction, 0), gold)
                if error > allowed:
                    failed.append(f"{config}: error {error:.1e} of {allowed:.1e}")
                    continue
                ms = layer.time(ours, direction)
        except Exception as e:  # Triton's own errors derive from Exception alone
            failed.append(f"{config}: {' '.join(str(e).split())[:120]}")
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # raises again where the context is gone
            continue
        if ms < best.get("triton", float("inf")):
            asked_one = next(a for a in asked if a[0] == KERNELS[direction])
            best = {"triton": ms, "error": error, "config": config, "asked": asked_one}
    return best | ({"failed": failed} if failed else {})
