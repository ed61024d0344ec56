"""How far two tensors are apart: in L2, at the worst element, and bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

MOST = 1 << 28  # elements compared on a GPU: some float64 copies of more than this fill it


def _doubles(value: Tensor, gold: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64 where gold lies, or on the CPU where they are huge."""
    where = gold.device if gold.numel() <= MOST else torch.device("cpu")
    return value.detach().to(where, torch.float64), gold.detach().to(where, torch.float64)


def relative_l2(value: Tensor, gold: Tensor) -> float:
    """||value - gold|| / ||gold|| in float64 on gold's device (the numerator alone where gold is
    0); inf for a NaN where gold has none, or another shape.
    """
    if value.shape != gold.shape:
        return float("inf")
    a, b = _doubles(value, gold)
    same = (a == b) | (a.isnan() & b.isnan())  # infinities that agree are no error
    difference = torch.where(same, 0.0, a - b)
    error = (difference.norm() / (torch.where(b.isfinite(), b, 0.0).norm() or 1.0)).item()
    return error if error == error else float("inf")


def relative_peak(value: Tensor, gold: Tensor) -> float:
    """max |value - gold| / max |gold|, with the same conventions."""
    if value.shape != gold.shape or not gold.numel():
        return 0.0 if value.shape == gold.shape else float("inf")
    a, b = _doubles(value, gold)
    difference = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, a - b).abs().max().item()
    error = difference / (torch.where(b.isfinite(), b, 0.0).abs().max().item() or 1.0)
    return error if error == error else float("inf")


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal bit for bit, NaN included."""
    raw = lambda t: t.contiguous().reshape(-1).view(torch.uint8)
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(raw(a), raw(b))
