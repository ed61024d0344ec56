"""Memory that shows wrong accesses: outputs start as NaN, and NaN guards lie around every tensor.

An element never written stays NaN and fails its comparison; a read beyond a tensor brings NaN into
the result; a write beyond it changes a guard.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor

# 16 bits at a time: a NaN in fp32, fp16 and bf16, and in fp32 and bf16 a signalling one, so that a
# kernel which reads it, computes and writes the result back leaves other bits behind
FILL = 0xFFA5 - 0x10000
HEAD = 4096  # keeps the allocator's alignment
TAIL = 1 << 17  # a block that ignores its mask stays within: 32768 fp32 elements

_empty = torch.empty


@dataclass
class Guards:
    """The guarded buffers of one call."""

    buffers: list[tuple[Tensor, int]] = field(default_factory=list)

    def storage(self, nbytes: int, device: torch.device) -> Tensor:
        """A uint8 buffer with ``nbytes`` usable bytes at offset HEAD, filled."""
        nbytes += nbytes % 2
        buffer = _empty((HEAD + nbytes + TAIL) // 2, dtype=torch.int16, device=device).fill_(FILL)
        self.buffers.append((buffer, nbytes))
        return buffer.view(torch.uint8)

    def empty(
        self,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        """Like torch.empty_strided, guarded; not a view in autograd's sense."""
        extent = 0 if 0 in size else 1 + sum((n - 1) * s for n, s in zip(size, stride))
        buffer = self.storage(extent * dtype.itemsize, device)
        out = _empty(0, dtype=dtype, device=device)
        return out.set_(buffer.untyped_storage(), HEAD // dtype.itemsize, size, stride)

    def broken(self) -> bool:
        """True if anything outside a tensor was written."""
        outside = (part for b, n in self.buffers for part in (b[: HEAD // 2], b[(HEAD + n) // 2 :]))
        return any(bool((part != FILL).any()) for part in outside)

    def copy(self, value: Any, memo: dict[int, Tensor] | None = None) -> Any:
        """A guarded deep copy of a call's arguments: tensors that share memory share it in the copy
        too. Leaves lose requires_grad.
        """
        memo = {} if memo is None else memo
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            key = storage.data_ptr() or id(value)
            if key not in memo:
                memo[key] = self.storage(storage.nbytes(), value.device)
                source = _empty(0, dtype=torch.uint8, device=value.device).set_(
                    storage, 0, (storage.nbytes(),), (1,)
                )
                memo[key][HEAD : HEAD + storage.nbytes()].copy_(source)
            offset = HEAD // value.dtype.itemsize + value.storage_offset()
            out = _empty(0, dtype=value.dtype, device=value.device)
            return out.set_(memo[key].untyped_storage(), offset, value.size(), value.stride())
        if isinstance(value, dict):
            return {k: self.copy(v, memo) for k, v in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(self.copy(v, memo) for v in value))
        if isinstance(value, (list, tuple)):
            return type(value)(self.copy(v, memo) for v in value)
        return copy.deepcopy(value)


@contextlib.contextmanager
def poisoned(guards: Guards) -> Iterator[None]:
    """Within the block, torch.empty, empty_like, empty_strided and Tensor.new_empty give guarded
    memory full of NaN."""
    plain = {name: getattr(torch, name) for name in ("empty", "empty_like", "empty_strided")}
    new_empty, new_empty_strided = Tensor.new_empty, Tensor.new_empty_strided

    def wrap(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def inner(*args: Any, **kwargs: Any) -> Tensor:
            if kwargs.get("out") is not None or kwargs.get("pin_memory"):
                return make(*args, **kwargs)
            device = kwargs.get("device")
            like = args[0] if args and isinstance(args[0], Tensor) else None
            where = (
                torch.device(device)
                if device is not None
                else like.device
                if like is not None
                else torch.get_default_device()
            )
            if where.type == "meta" or torch.compiler.is_compiling():
                return make(*args, **kwargs)
            shape = make(
                *args, **{**kwargs, "device": "meta"}
            )  # sizes, strides and dtype without memory
            if type(shape) is not Tensor:
                return make(*args, **kwargs)
            out = guards.empty(tuple(shape.size()), shape.stride(), shape.dtype, where)
            return out.requires_grad_(bool(kwargs.get("requires_grad")))

        return inner

    with contextlib.ExitStack() as stack:
        for name, make in plain.items():
            stack.enter_context(mock.patch.object(torch, name, wrap(make)))
        stack.enter_context(mock.patch.object(Tensor, "new_empty", wrap(new_empty)))
        stack.enter_context(mock.patch.object(Tensor, "new_empty_strided", wrap(new_empty_strided)))
        yield
