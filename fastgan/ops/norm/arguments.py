"""What the arguments of normalisation must be, and what of them decides the engine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels.activations import row

_KERNEL_TYPES = (torch.float32, torch.float16, torch.bfloat16)


def unsupported(
    engine: str,
    dtype: torch.dtype,
    asked: bool,
    channels_last: bool,
    empty: bool,
    huge: bool,
    buffers: bool,
) -> str | None:
    """Why an engine can't take arguments of these :func:`facts_of`; None where it can."""
    if engine != "triton":
        return None
    if dtype not in _KERNEL_TYPES:
        return f"{dtype} is not fp32, fp16 or bf16"
    if empty:
        return "the input is empty"
    if huge:
        return "more than 2^31 rows"
    if not buffers:
        return (
            "running statistics, gamma and beta must lie on the input's device, running "
            "statistics in fp32"
        )
    if not channels_last and not asked:
        return "the input is not channels_last: the kernels would copy it"
    return None


def facts_of(
    impl: str,
    x: Tensor,
    vectors: tuple[Tensor | None, ...] = (),
    running: tuple[Tensor | None, ...] = (),
) -> tuple[bool, bool, bool, bool, bool]:
    """(triton was asked for, x is channels_last, is empty, has 2^31 rows or more, vectors and
    running statistics lie where the kernels want them)."""
    place, fit, shape = x.get_device(), True, x.shape
    for v in vectors:
        if v is not None and v.get_device() != place:
            fit = False
    for v in running:
        if v is not None and (v.get_device() != place or v.dtype != torch.float32):
            fit = False
    last = len(shape) == 2 or x.stride()[1] == 1 or shape[1] == 1
    count = x.numel()
    return impl == "triton", last, count == 0, count // max(shape[1], 1) >= 2**31, fit


def checked(
    name: str,
    x: Tensor,
    activation: str | None,
    vectors: Sequence[Tensor | None],
    grouped: bool = False,
) -> str:
    """The activation's name. Raises FastganError for shapes that do not fit (a row of `vectors` per
    group where `grouped`, else per sample) and unknown activations."""
    act = "identity" if activation is None else activation
    row(act)
    if not 2 <= x.dim() <= 5:
        raise FastganError(
            f"{name} takes (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W), not {tuple(x.shape)}"
        )
    channels = (x.shape[1],)
    for v in vectors:
        if v is None or (v.dim() == 1 and v.shape == channels):  # no guess at a batch's size
            continue
        fits = v.dim() == 2 and v.shape[1] == x.shape[1] and v.shape[0] > 0
        if not fits or (x.shape[0] % v.shape[0] if grouped else v.shape[0] != x.shape[0]):
            rows = "group" if grouped else "sample"
            raise FastganError(
                f"{name} of {tuple(x.shape)}: shape {tuple(v.shape)} is neither ({x.shape[1]},) "
                f"nor one row of it per {rows}"
            )
    return act


def divided(x: Tensor, groups: int) -> None:
    """Raises FastganError where the batch of x has no `groups` equal parts."""
    if groups != 1 and (groups < 1 or x.shape[0] % groups):
        raise FastganError(f"a batch of {x.shape[0]} does not split into {groups} equal groups")
