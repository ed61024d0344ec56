"""Moving averages of many tensors in one launch: 12 bytes an element (average and live value read,
average written)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastgan.kernels.adam import lerp
from fastgan.kernels.common import tl, triton

DEFAULT: dict[str, Any] = {"BLOCK": 1024, "num_warps": 4}


@triton.jit
def average_kernel(rows_ptr, share_ptr, BLOCK: tl.constexpr):
    """One program a row (address of the average, address of the live value, elements <= BLOCK),
    int64."""
    row = rows_ptr + tl.program_id(0).to(tl.int64) * 3
    average_ptr = tl.load(row).to(tl.pointer_type(tl.float32))
    live_ptr = tl.load(row + 1).to(tl.pointer_type(tl.float32))
    share = tl.load(share_ptr)
    i = tl.arange(0, BLOCK)
    mask = i < tl.load(row + 2)
    average = tl.load(average_ptr + i, mask=mask, other=0.0)
    live = tl.load(live_ptr + i, mask=mask, other=0.0)
    tl.store(average_ptr + i, lerp(average, live, share), mask=mask)


def average_(rows: Tensor, share: Tensor) -> None:
    """rows: (pieces, 3) int64 on the device; share: fp32 0-dim."""
    average_kernel[(rows.shape[0],)](rows, share, **DEFAULT)
