"""Moving averages of a network's tensors in one pass: average <- lerp(average, live, share)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels import average as kernel
from fastgan.ops.dispatch import Dispatcher


@torch.library.custom_op("fastgan::average_", mutates_args=("averages",))
def _average_(
    averages: Sequence[Tensor], live: Sequence[Tensor], share: Tensor, rows: Tensor
) -> None:
    kernel.average_(rows, share)


@_average_.register_fake
def _(averages: Sequence[Tensor], live: Sequence[Tensor], share: Tensor, rows: Tensor) -> None:
    return None


def _unsupported(engine: str, dtype: torch.dtype, walkable: bool) -> str | None:
    if engine != "triton" or walkable:
        return None
    return "the kernel takes float32 tensors without gaps, each live one laid out as its average"


_choose = Dispatcher("average", ("triton", "reference"), _unsupported)


def _walkable(average: Tensor, live: Tensor) -> bool:
    kind = average.dtype == live.dtype == torch.float32
    # a tensor without gaps or repeats: as many elements between its first and its last as it has
    return kind and average.stride() == live.stride() and _span(average) == average.numel()


def _span(x: Tensor) -> int:
    return 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride()))


def average_rows(averages: Sequence[Tensor], live: Sequence[Tensor]) -> Tensor:
    """The kernel's table: valid for as long as these tensors keep their memory."""
    block, rows = kernel.DEFAULT["BLOCK"], []
    for a, b in zip(averages, live, strict=True):
        for at in range(0, a.numel(), block):
            rows.append((a.data_ptr() + 4 * at, b.data_ptr() + 4 * at, min(block, a.numel() - at)))
    on_gpu = averages[0].is_cuda
    table = torch.tensor(
        rows, dtype=torch.int64, pin_memory=on_gpu
    )  # pinned: the host does not wait
    return table.to(averages[0].device, non_blocking=on_gpu)


@torch.no_grad()
def average_(
    averages: Sequence[Tensor],
    live: Sequence[Tensor],
    share: Tensor,
    *,
    rows: Tensor | None = None,
    impl: str = "auto",
) -> None:
    """averages[i] += share * (live[i] - averages[i]) in place, rounded once or twice (torch.lerp's
    two formulas).

    averages, live: tensors of equal shapes; share: 0-dim on their device, fp32 (their type for the
    reference). rows: `average_rows` of these tensors, which saves making it (a captured step needs
    it made before). FastganError for unequal shapes.
    """
    for a, b in zip(averages, live, strict=True):
        if a.shape != b.shape:
            raise FastganError(
                f"the average of a tensor of shape {tuple(b.shape)} can't have shape "
                f"{tuple(a.shape)}"
            )
    if not averages:
        return
    walkable = all(map(_walkable, averages, live)) and share.dtype == torch.float32
    if _choose(impl, averages[0], walkable) == "reference":
        torch._foreach_lerp_(list(averages), list(live), [share.to(a.dtype) for a in averages])
    else:
        _average_(
            list(averages),
            list(live),
            share,
            average_rows(averages, live) if rows is None else rows,
        )


def average_reference_(averages: Sequence[Tensor], live: Sequence[Tensor], share: Tensor) -> None:
    """`average_` in plain PyTorch."""
    average_(averages, live, share, impl="reference")
