"""What the layers of a step are computed by on a GPU, where PyTorch's own kernels are slow for
images that lie channels innermost: a convolution's bias and its gradient, a spectral norm's
division (which scales the result instead of the weight), nearest upsampling and 2x2 average
pooling.

Inside :class:`Layers` the functions of torch.nn are taken by their arguments; networks stay as they
are. Upsampling stays in the type that comes in, where autocast would make it fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fastgan.kernels.norm import backward_sums
from fastgan.kernels.norm import forward as norm
from fastgan.ops import dispatch
from fastgan.ops.norm.handed_on import affine_act
from fastgan.ops.norm.reference import dense
from fastgan.ops.resample import average_pool, upsample

TWO = (2, 2.0, (2, 2), (2.0, 2.0), [2, 2], [2.0, 2.0])


class _Bias(torch.autograd.Function):
    """y + b by channel; the gradient of b is one reading of y's."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, b: Tensor) -> Tensor:
        ctx.kind = b.dtype
        return norm.apply(dense(y), None, b.contiguous(), None, None, 0.0, "identity", 0.0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        need = ctx.needs_input_grad
        if not need[1]:
            return g, None
        total = g.sum((0, 2, 3)) if dispatch.batched(g) else _ChannelSum.apply(g)
        return g if need[0] else None, total.to(ctx.kind)


class _ChannelSum(torch.autograd.Function):
    """fp32 (C,) of g (N, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, g: Tensor) -> Tensor:
        ctx.shape, ctx.kind = g.shape, g.dtype
        rows = dense(g)
        given = (None, None, None, None)
        return backward_sums.reduce(rows, rows, *given, 0.0, "identity", 0.0, False)[1][0, 0]

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Tensor:  # type: ignore[override]
        return u.to(ctx.kind)[:, None, None].expand(ctx.shape)


def channels_innermost(x: Any) -> bool:
    """Whether the kernels take it: images on a GPU, channels_last, of a type they know."""
    return (
        isinstance(x, Tensor)
        and x.is_cuda
        and x.dim() == 4
        and x.stride()[1] == 1
        and x.shape[1] > 1
        and x.numel() < 1 << 31
        and x.dtype in (torch.float32, torch.float16, torch.bfloat16)
    )


class Layers(TorchFunctionMode):
    """Enter it last: what it calls is seen by the modes entered before."""

    def __init__(self) -> None:
        super().__init__()
        self._taken: dict[Any, Callable[..., Any]] = {
            torch.conv2d: self._conv2d,
            torch._C._nn.avg_pool2d: _avg_pool2d,
            F.interpolate: _interpolate,
        }
        self._divided: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._inverses: dict[int, tuple[Tensor, tuple[Tensor, ...]]] = {}

    def __enter__(self) -> Layers:
        global _active
        _active = self
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        global _active
        _active = None
        super().__exit__(*error)
        self._divided.clear()
        self._inverses.clear()

    def divided(self, weight: Tensor, sigma: Tensor) -> Tensor:
        """weight / sigma, which a convolution that takes it divides its result by instead; whatever
        else takes it gets the quotient."""
        stands_for = weight.view_as(weight)
        self._divided[id(stands_for)] = (stands_for, weight, sigma)
        return stands_for

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        taken = self._taken.get(func)
        if taken is not None:
            result = taken(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if self._divided and func not in HARMLESS:
            args = tuple(self._quotient(a) for a in args)
            kwargs = {key: self._quotient(value) for key, value in kwargs.items()}
        return func(*args, **kwargs)

    def _quotient(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return (
                type(value)(map(self._quotient, value)) if type(value) in (list, tuple) else value
            )
        found = self._divided.get(id(value))
        return value if found is None else found[1] / found[2]

    def _conv2d(
        self, input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **named: Any
    ) -> Any:
        divided = self._divided.get(id(weight))
        if bias is None and divided is None:
            return NotImplemented
        if not channels_innermost(input) or dispatch.transformed() or groups_of(rest, named) != 1:
            return NotImplemented
        if divided is None:
            y = torch.conv2d(input, weight, None, *rest, **named)
            return _Bias.apply(y, bias)
        _, whole, sigma = divided
        y = torch.conv2d(input, whole, None, *rest, **named)
        return affine_act(y, self._inverse(sigma).expand(y.shape[1]), bias)

    def _inverse(self, sigma: Tensor) -> Tensor:
        """1 / sigma, of all that were found together at once."""
        together = sigma._base
        if together is None or not together.is_contiguous():
            return sigma.reciprocal()
        found = self._inverses.get(id(together))
        if found is None:
            found = together, together.reciprocal().flatten().unbind()
            self._inverses[id(together)] = found
        return found[1][sigma.storage_offset() - together.storage_offset()]


HARMLESS = {
    Tensor.is_cuda.__get__,  # type: ignore[attr-defined]
    Tensor.shape.__get__,  # type: ignore[attr-defined]
    Tensor.dtype.__get__,  # type: ignore[attr-defined]
    Tensor.device.__get__,  # type: ignore[attr-defined]
    Tensor.dim,
    Tensor.size,
}
"""What reads no value of a weight that stands for its quotient."""


def groups_of(rest: tuple[Any, ...], named: dict[str, Any]) -> int:
    """conv2d's, behind stride, padding and dilation."""
    return named.get("groups", rest[3] if len(rest) > 3 else 1)


def _avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    plain = kernel_size in TWO and (stride in TWO or not stride) and padding in (0, (0, 0), [0, 0])
    if not plain or divisor_override or not channels_innermost(input) or dispatch.transformed():
        return NotImplemented
    return average_pool(input) if not (input.shape[2] % 2 or input.shape[3] % 2) else NotImplemented


def _interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    *rest: Any,
    **named: Any,
) -> Any:
    wanted = size is None and scale_factor in TWO and mode == "nearest"
    if not wanted or rest or any(named.values()):
        return NotImplemented
    if not channels_innermost(input) or dispatch.transformed():
        return NotImplemented
    return upsample(input)


_active: Layers | None = None


def divide(weight: Tensor, sigma: Tensor) -> Tensor:
    """weight / sigma; within a step's layers it is put off until somebody takes it."""
    if _active is None or weight.dim() != 4 or not weight.is_cuda:
        return weight / sigma
    return _active.divided(weight, sigma)
