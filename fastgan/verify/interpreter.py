"""The interpreter's sums as a GPU takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgan.kernels.common import INTERPRET


def tree_sum(data: np.ndarray, axis: int) -> np.ndarray:
    """The sum over `axis`, whose length is a power of two, halves added to halves."""
    parts = np.moveaxis(data, axis, 0)
    while parts.shape[0] > 1:
        half = parts.shape[0] // 2
        parts = parts[:half] + parts[half:]
    return parts[0]


def install() -> None:
    """Lets tl.sum add as a tree: a GPU reduces in registers and then by shuffles, Triton's
    interpreter (NumPy along an outer axis) one row after another, which costs an fp32 sum 2 to 4
    times the error. Only where kernels are interpreted.
    """
    if not INTERPRET:
        return
    from triton.runtime import interpreter

    def total(self: Any, input: Any) -> Any:
        data = input.handle.data
        axis, flat = (0, data.reshape(-1)) if self.axis is None else (self.axis, data)
        out = tree_sum(flat, axis)
        if self.keep_dims:
            out = out.reshape((1,) * data.ndim) if self.axis is None else np.expand_dims(out, axis)
        return self.to_tensor(out, input.dtype)

    interpreter.ReduceOps.sum = total
