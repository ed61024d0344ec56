"""The rows of the table: what each does, and how one is made alive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from fastgan.bench.iterations.ours import Ours
from fastgan.bench.iterations.pieces import Options
from fastgan.bench.iterations.plain import Plain
from fastgan.bench.iterations.suites import Suite
from fastgan.errors import FastganError
from fastgan.graphs.backends import CudaGraph, Graph


class Runner(Protocol):
    """A row that has been built and can be timed."""

    nets: dict[str, nn.Module]

    def flags(self) -> Any: ...

    def step(self) -> None: ...

    def eager_step(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class RowSpec:
    """One row. key: its letter and variant. ours: it is judged against the best of the others. gpu:
        why it is not run on a CPU. cpu: it is for CPUs alone.

    options: of a plain row. engine: keyword arguments of Ours. seconds: what building it takes at
        most on a GPU, for budgets.
    """

    key: str
    label: str
    options: Options | None = None
    engine: Mapping[str, Any] | None = None
    gpu: str = ""
    cpu: bool = False
    seconds: float = 15.0

    @property
    def letter(self) -> str:
        return self.key.partition(":")[0]

    @property
    def ours(self) -> bool:
        return self.engine is not None

    def title(self, device: torch.device) -> str:
        """The label, without the type that a CPU does not compute in."""
        return self.label if device.type == "cuda" else self.label.replace("bf16 autocast, ", "")

    def build(
        self,
        suite: Suite,
        arrays: Mapping[str, np.ndarray],
        device: torch.device,
        *,
        dropout: bool = True,
        graph: Callable[[], Graph] | None = None,
    ) -> Plain | Ours:
        """The row, alive. graph: stands in for CUDA's (tests). Raises what the row raises."""
        if self.gpu and device.type != "cuda" and graph is None:
            raise FastganError(self.gpu)
        if self.options is not None:
            return Plain(suite, self.options, arrays, device, dropout=dropout, graph=graph)
        assert self.engine is not None
        wanted = dict(self.engine)
        wants_graph = wanted.pop("graph", False) and (device.type == "cuda" or graph is not None)
        make = (graph or CudaGraph) if wants_graph else None
        return Ours(suite, arrays, device, graph=make, dropout=dropout, **wanted)


_C = Options()
_NCHW = "a variant for GPUs, where the compiler may choose the layout"
_TUTORIAL = Options("tf32", True, True, False, False, False, False)

ROWS = (
    RowSpec("a", "the tutorial's loop, PyTorch's defaults", _TUTORIAL),
    RowSpec(
        "b",
        "a in strict fp32 (no TF32)",
        replace(_TUTORIAL, precision="fp32"),
        gpu="a CPU knows no TF32: it is row a",
    ),
    RowSpec("c", "bf16 autocast, channels_last, fused Adam, D frozen, data on the device", _C),
    RowSpec("d", "c + torch.compile per module", replace(_C, modules="default"), seconds=60),
    RowSpec(
        "d:nchw",
        "d in NCHW, the layout left to the compiler",
        replace(_C, modules="default", channels_last=False),
        gpu=_NCHW,
        seconds=60,
    ),
    RowSpec(
        "e:max-autotune",
        "c + whole step compiled, max-autotune",
        replace(_C, whole="max-autotune"),
        seconds=240,
    ),
    RowSpec(
        "e:reduce-overhead",
        "c + whole step compiled, reduce-overhead",
        replace(_C, whole="reduce-overhead"),
        seconds=90,
    ),
    RowSpec(
        "e:nchw",
        "e:reduce-overhead in NCHW",
        replace(_C, whole="reduce-overhead", channels_last=False),
        gpu=_NCHW,
        seconds=90,
    ),
    RowSpec("f", "c + hand-made graph", replace(_C, graph=True), gpu="a CUDA graph needs a GPU"),
    RowSpec(
        "f2",
        "d in one hand-made graph",
        replace(_C, modules="default", graph=True),
        gpu="a CUDA graph needs a GPU",
        seconds=70,
    ),
    RowSpec(
        "f2:nchw",
        "f2 in NCHW",
        replace(_C, modules="default", graph=True, channels_last=False),
        gpu=_NCHW,
        seconds=70,
    ),
    RowSpec(
        "f3",
        "whole step compiled, in one hand-made graph",
        replace(_C, whole="default", graph=True),
        gpu="a CUDA graph needs a GPU",
        seconds=80,
    ),
    RowSpec(
        "f3:nchw",
        "f3 in NCHW",
        replace(_C, whole="default", graph=True, channels_last=False),
        gpu=_NCHW,
        seconds=80,
    ),
    RowSpec(
        "f3:max",
        "f3:nchw by max-autotune",
        replace(_C, whole="max-autotune-no-cudagraphs", graph=True, channels_last=False),
        gpu=_NCHW,
        seconds=120,
    ),
    RowSpec("c:bf16", "c in bf16 on the CPU", replace(_C, everywhere=True), cpu=True),
    RowSpec(
        "d:bf16", "d in bf16 on the CPU", replace(_C, modules="default", everywhere=True), cpu=True
    ),
    RowSpec("g", "fastgan without graphs", engine={}, seconds=30),
    RowSpec(
        "h:reference",
        "fastgan with graphs, reference engine",
        engine={"graph": True, "impl": "reference"},
        gpu="a CUDA graph needs a GPU",
    ),
    RowSpec(
        "h:cudnn",
        "fastgan with graphs, cudnn engine",
        engine={"graph": True, "impl": "cudnn"},
        gpu="a CUDA graph needs a GPU",
    ),
    RowSpec("i", "fastgan", engine={"graph": True}, seconds=40),
    RowSpec(
        "i:whole",
        "fastgan, one engine for all directions of a convolution",
        engine={"graph": True, "directions": False},
        gpu="directions have engines of their own on a GPU alone",
    ),
    RowSpec("i:fp32", "fastgan, fp32, measured forms", engine={"measured": "fp32"}, cpu=True),
    RowSpec(
        "i:auto", "fastgan, precision and forms measured", engine={"measured": "auto"}, cpu=True
    ),
)
BY_KEY = {row.key: row for row in ROWS}
FIRST = ("c", "f", "i")
"""What the headline is made of, built before the other rows: they are there whatever the rest
takes."""


def worth(row: RowSpec) -> tuple[bool, float]:
    """A row's place in the order of building: those of the headline, then the quicker ones."""
    return row.key not in FIRST, row.seconds


LETTERS = tuple(dict.fromkeys(row.letter for row in ROWS))

ABLATION = (
    RowSpec("0", "the tutorial's loop", _TUTORIAL),
    RowSpec("1", "+ nothing read by the host", replace(_TUTORIAL, reads=False)),
    RowSpec("2", "+ data on the device", replace(_TUTORIAL, reads=False, host_data=False)),
    RowSpec(
        "3",
        "+ D frozen in G's update",
        replace(_C, precision="tf32", channels_last=False, fused=False, autotune=False),
    ),
    RowSpec(
        "4", "+ fused Adam", replace(_C, precision="tf32", channels_last=False, autotune=False)
    ),
    RowSpec("5", "+ channels_last, cuDNN's search", replace(_C, precision="tf32")),
    RowSpec("6", "+ bf16 autocast (row c)", _C, gpu="fp32 on a CPU: it is the row before"),
    RowSpec("7", "+ the engine's step, statistics included", engine={"impl": "reference"}),
    RowSpec(
        "8",
        "+ its operators in the networks (row g)",
        engine={},
        gpu="a CPU keeps PyTorch's: it is the row before",
    ),
    RowSpec(
        "9", "+ one graph a step (row i)", engine={"graph": True}, gpu="a CUDA graph needs a GPU"
    ),
    RowSpec("10", "+ the generator's average", engine={"graph": True, "averaged": True}),
    RowSpec(
        "11",
        "10 by Triton alone, Adam and average in one launch",
        engine={"graph": True, "averaged": True, "impl": "triton"},
        gpu="Triton needs a GPU",
    ),
)
"""Each ingredient added in turn."""


def choose(names: Sequence[str], device: torch.device, quick: bool) -> list[RowSpec]:
    """The rows named by letter or key; by default all, or in a quick run those that need no long
    compilation."""
    here = [row for row in ROWS if device.type == "cpu" or not row.cpu]
    if not names:
        if not quick:
            return here
        wanted = ("a", "c", "f", "g", "i") if device.type == "cuda" else ("a", "c", "i")
        return [row for row in here if row.letter in wanted]
    for name in names:
        if name not in LETTERS and name not in BY_KEY:
            raise FastganError(f"no row {name!r}: choose from {', '.join(LETTERS)}")
    return [row for row in here if row.letter in names or row.key in names]
