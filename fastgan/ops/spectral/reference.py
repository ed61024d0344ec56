"""Spectral norm in plain PyTorch: the power iteration, float64-capable and differentiable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """The matrix that PyTorch takes the norm of: dimension `dim` in front, the others flattened."""
    return weight.movedim(dim, 0).flatten(1)


def spectral_sigma_reference(
    weights: Sequence[Tensor],
    us: Sequence[Tensor],
    vs: Sequence[Tensor],
    dims: Sequence[int],
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    v_first: bool = False,
    groups: int = 1,
) -> Tensor:
    """PyTorch's formulas, layer by layer."""
    rows = []
    for _ in range(groups):
        row = []
        for weight, u, v, dim in zip(weights, us, vs, dims):
            w = as_matrix(weight, dim)
            with torch.no_grad():
                for _ in range(n_power_iterations):
                    if v_first:
                        v.copy_(F.normalize(torch.mv(w.t(), u), dim=0, eps=eps))
                    u.copy_(F.normalize(torch.mv(w, v), dim=0, eps=eps))
                    if not v_first:
                        v.copy_(F.normalize(torch.mv(w.t(), u), dim=0, eps=eps))
            row.append(torch.dot(u.clone(), torch.mv(w, v.clone())))
        rows.append(torch.stack(row))
    return torch.stack(rows)
