"""Spectral norm of all layers of a network together: sigma in 2 n + 1 launches for n power
iterations, the weights divided by it in one more, their gradients in two.

    u <- W v / |W v|,  v <- W^T u / |W^T u|,  sigma = u^T W v

(Miyato, Kataoka, Koyama, Yoshida, "Spectral normalization for generative adversarial networks",
2018, algorithm 1).

A product is a launch: it normalises its input vector on load (the norm is summed anew by every
program, in one order) and writes the raw product. The finishing launch normalises both vectors and
needs no third product, for sigma = u^T (W v) = |W^T u| when v = W^T u /
|W^T u| (and |W v| where the iteration ends with u). No atomics: results repeat bit for bit.

Weights are fp32 matrices [h, w] seen through strides: column m = o P + i lies at o so + i si, and
its entry of v at o vo + i vi. So a convolution's weight is read where it lies, contiguous or
channels_last, with output channels in dimension 0 or 1. Pointers travel as arguments (addresses may
change, also inside graph capture); sizes and the list of blocks are device tables kept per set of
shapes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastgan.kernels import tuning
from fastgan.kernels.common import cdiv, next_power_of_2
from fastgan.kernels.norm.running import device_table
from fastgan.kernels.spectral.kernels import (
    column_product_kernel,
    finish_kernel,
    normalise_kernel,
    outer_kernel,
    overlap_kernel,
    row_product_kernel,
    weight_gradient_kernel,
)

DEFAULT = {
    "ROWS": 8,
    "ROW_COLUMNS": 256,
    "COLUMNS": 64,
    "COLUMN_ROWS": 32,
    "num_warps": 4,
    "num_stages": 1,
}
CANDIDATES = [
    DEFAULT,
    {**DEFAULT, "ROWS": 4, "ROW_COLUMNS": 512},
    {**DEFAULT, "ROWS": 2, "ROW_COLUMNS": 1024},
    {**DEFAULT, "COLUMNS": 128, "COLUMN_ROWS": 16},
    {**DEFAULT, "COLUMNS": 32, "COLUMN_ROWS": 64},
    {**DEFAULT, "COLUMNS": 32, "COLUMN_ROWS": 128, "num_warps": 8},
]
FINISH = {"BLOCK": 4096, "num_warps": 8, "num_stages": 1}


Matrix = tuple[int, int, int, int, int, int, int, int]


def matrix(weight: Tensor, dim: int) -> Matrix | None:
    """(h, w, P, row stride, si, so, vi, vo) of a weight whose rows are dimension `dim` (0 or 1);
    None where strides do not allow it."""
    return _matrix(weight.shape, weight.stride(), dim)


@functools.lru_cache(maxsize=4096)
def _matrix(size: tuple[int, ...], stride: tuple[int, ...], dim: int) -> Matrix | None:
    if len(size) < 2 or dim not in (0, 1) or 0 in size:
        return None
    for i in range(2, len(size) - 1):
        if stride[i] != stride[i + 1] * size[i + 1]:
            return None
    h, other = size[dim], 1 - dim
    taps = math.prod(size[2:])
    sk, sa = (stride[-1] if len(size) > 2 else 1), stride[other]
    w = size[other] * taps
    if taps == 1:
        return h, w, w, stride[dim], sa, 0, 1, 0
    if sa == taps * sk or size[other] == 1:
        return h, w, w, stride[dim], sk, 0, 1, 0
    if sa < sk:
        return h, w, size[other], stride[dim], sa, sk, taps, 1
    return h, w, taps, stride[dim], sk, sa, 1, taps


@dataclass(frozen=True)
class LayerTables:
    """The device tables of a set of layers."""

    layers: Tensor
    row_blocks: Tensor
    column_blocks: Tensor
    us: tuple[int, ...]
    vs: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, int]:
        """(all entries of u, all entries of v)."""
        return sum(self.us), sum(self.vs)


@functools.cache
def plan(
    matrices: tuple[Matrix, ...], rows: int, columns: int, device: torch.device
) -> LayerTables:
    """Tables for layers of these matrices, in blocks of `rows` and of `columns`; made once, before
    any graph capture."""
    table: list[int] = []
    row_blocks: list[int] = []
    column_blocks: list[int] = []
    u0 = v0 = 0
    for i, m in enumerate(matrices):
        table += [*m, u0, v0]
        u0, v0 = u0 + m[0], v0 + m[1]
        row_blocks += [v for b in range(cdiv(m[0], rows)) for v in (i, b)]
        column_blocks += [v for b in range(cdiv(m[1], columns)) for v in (i, b)]
    made = [device_table(tuple(t), torch.int32, device) for t in (table, row_blocks, column_blocks)]
    return LayerTables(
        made[0], made[1], made[2], tuple(m[0] for m in matrices), tuple(m[1] for m in matrices)
    )


def _config(matrices: tuple[Matrix, ...], device: torch.device) -> dict[str, int]:
    elements = sum(m[0] * m[1] for m in matrices)
    return dict(
        tuning.config(
            "spectral", "fp32", (("elements", elements), ("layers", len(matrices))), DEFAULT, device
        )
    )


def power(
    weights: Sequence[Tensor],
    us: Sequence[Tensor],
    vs: Sequence[Tensor],
    matrices: tuple[Matrix, ...],
    iterations: int,
    eps: float,
    v_first: bool,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(sigma [groups, layers], unit u [groups, U], unit v [groups, V]), all fp32; `us`, `vs` are
    left as the last group leaves them.

    `iterations` a group: 0 (eval) takes u and v as they are, in two launches for one group.
        `v_first`: v is updated before u.
    """
    device = weights[0].device
    config = _config(matrices, device)
    tables = plan(matrices, config["ROWS"], config["COLUMNS"], device)
    layers, (total_u, total_v) = len(weights), tables.sizes
    launch = {
        "LAYERS": layers,
        "num_warps": config["num_warps"],
        "num_stages": config["num_stages"],
    }
    by_rows = {**launch, "BLOCK_R": config["ROWS"], "BLOCK_C": config["ROW_COLUMNS"]}
    by_columns = {**launch, "BLOCK_R": config["COLUMN_ROWS"], "BLOCK_C": config["COLUMNS"]}
    raw_u, unit_u = (
        torch.empty((groups, total_u), dtype=torch.float32, device=device) for _ in range(2)
    )
    raw_v, unit_v = (
        torch.empty((groups, total_v), dtype=torch.float32, device=device) for _ in range(2)
    )
    sigma = torch.empty((groups, layers), dtype=torch.float32, device=device)
    w, u, v = tuple(weights), tuple(us), tuple(vs)
    rows_grid, columns_grid = (
        (tables.row_blocks.shape[0] // 2,),
        (tables.column_blocks.shape[0] // 2,),
    )

    def row_product(source: Tensor | None, out: Tensor) -> None:
        row_product_kernel[rows_grid](
            w,
            v,
            out if source is None else source,
            out,
            tables.layers,
            tables.row_blocks,
            eps,
            FLAT=source is not None,
            **by_rows,
        )

    def column_product(source: Tensor | None, out: Tensor) -> None:
        column_product_kernel[columns_grid](
            w,
            u,
            out if source is None else source,
            out,
            tables.layers,
            tables.column_blocks,
            eps,
            FLAT=source is not None,
            **by_columns,
        )

    if iterations == 0:
        for group in range(groups):
            row_product(None, raw_u[group])
    first, second = (column_product, row_product) if v_first else (row_product, column_product)
    first_out, second_out = (raw_v, raw_u) if v_first else (raw_u, raw_v)
    source: Tensor | None = None
    for group in range(groups):
        for _ in range(iterations):
            first(source, first_out[group])
            second(first_out[group], second_out[group])
            source = second_out[group]
    finish_kernel[(layers, groups)](
        u,
        v,
        raw_u,
        raw_v,
        unit_u,
        unit_v,
        sigma,
        tables.layers,
        total_u,
        total_v,
        eps,
        LAYERS=layers,
        ITERATED=iterations > 0,
        LAST_IS_V=not v_first,
        **{**FINISH, "BLOCK": min(FINISH["BLOCK"], next_power_of_2(max(*tables.us, *tables.vs)))},
    )
    return sigma, unit_u, unit_v


def outer(
    dsigma: Tensor,
    unit_u: Tensor,
    unit_v: Tensor,
    like: Sequence[Tensor],
    matrices: tuple[Matrix, ...],
) -> list[Tensor]:
    """dW = sum over groups of dsigma u v^T of every layer, laid out as the weights; one launch."""
    config = _config(matrices, dsigma.device)
    tables = plan(matrices, config["ROWS"], config["COLUMNS"], dsigma.device)
    grads = [torch.empty_like(w) for w in like]
    outer_kernel[(tables.row_blocks.shape[0] // 2,)](
        tuple(grads),
        dsigma,
        unit_u,
        unit_v,
        tables.layers,
        tables.row_blocks,
        *tables.sizes,
        dsigma.shape[0],
        LAYERS=len(grads),
        BLOCK_R=config["ROWS"],
        BLOCK_C=config["ROW_COLUMNS"],
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
    )
    return grads


def normalised(
    weights: Sequence[Tensor], sigma: Tensor, matrices: tuple[Matrix, ...], dtype: torch.dtype
) -> list[Tensor]:
    """W / sigma of every layer in `dtype`, laid out as the (dense) weights; sigma [layers]; one
    launch."""
    config, tables = _by_rows(matrices, sigma.device)
    out = [torch.empty_like(w, dtype=dtype) for w in weights]
    normalise_kernel[(tables.row_blocks.shape[0] // 2,)](
        tuple(weights), tuple(out), sigma, tables.layers, tables.row_blocks, **config
    )
    return out


def gradients(
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    sigma: Tensor,
    unit_u: Tensor,
    unit_v: Tensor,
    matrices: tuple[Matrix, ...],
) -> list[Tensor]:
    """dW = (dWn - <dWn, W / sigma> u v^T) / sigma of every layer, fp32; `grads`, of one type, laid
    out as the weights; two launches."""
    config, tables = _by_rows(matrices, sigma.device)
    programs = tables.row_blocks.shape[0] // 2
    partial = torch.empty(programs, dtype=torch.float32, device=sigma.device)
    out = [torch.empty_like(w) for w in weights]
    overlap_kernel[(programs,)](
        tuple(weights), tuple(grads), partial, tables.layers, tables.row_blocks, **config
    )
    most = next_power_of_2(max(cdiv(m[0], config["BLOCK_R"]) for m in matrices))
    weight_gradient_kernel[(programs,)](
        tuple(grads),
        tuple(out),
        partial,
        sigma,
        unit_u,
        unit_v,
        tables.layers,
        tables.row_blocks,
        MOST_BLOCKS=most,
        **config,
    )
    return out


def _by_rows(
    matrices: tuple[Matrix, ...], device: torch.device
) -> tuple[dict[str, int], LayerTables]:
    config = _config(matrices, device)
    launch = {
        "LAYERS": len(matrices),
        "BLOCK_R": config["ROWS"],
        "BLOCK_C": config["ROW_COLUMNS"],
        "num_warps": config["num_warps"],
        "num_stages": config["num_stages"],
    }
    return launch, plan(matrices, config["ROWS"], config["COLUMNS"], device)
