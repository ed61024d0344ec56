"""BatchNorm and InstanceNorm on the fused ops: subclasses of torch.nn's with the same parameters,
buffers, keys and semantics.

None of them but the conditional one has an __init__ or state of its own, so that an instance's
class can simply be assigned. Where no kernel can run they are PyTorch's own forward after one
comparison.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.kernels.activations import activation as activate
from fastgan.kernels.common import INTERPRET
from fastgan.ops.dispatch import plain
from fastgan.ops.norm.functional import batch_norm, instance_norm

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "ConditionalBatchNorm2d",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "current_groups",
    "grouped",
    "kernels_take",
]

_groups = 1


def current_groups() -> int:
    """How many batches the modules of this package take their input for: 1, or what :func:`grouped`
    says."""
    return _groups


@contextlib.contextmanager
def grouped(groups: int) -> Iterator[None]:
    """Within the block a batch stands for `groups` batches one after the other (real, fake): each
    has statistics and a sigma of its own, and buffers move as by as many forwards, in order.
    """
    global _groups
    before, _groups = _groups, groups
    try:
        yield
    finally:
        _groups = before


def kernels_take(x: Tensor) -> bool:
    """Whether a kernel may be had for x. Elsewhere PyTorch's own forward is the reference, and
    taking it costs nothing extra."""
    return (x.is_cuda or INTERPRET) and (x.dim() == 2 or x.stride(1) == 1)


def composed(
    weight: Tensor | None, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """gamma and beta of (x*weight + bias)*scale + shift, each (C,) or (N, C), both of the same
    shape where both are there."""
    if scale is not None:
        weight = scale if weight is None else weight * scale
        bias = bias if bias is None else bias * scale
    if shift is not None:
        bias = shift if bias is None else bias + shift
    if weight is not None and bias is not None and weight.dim() != bias.dim():
        weight, bias = torch.broadcast_tensors(weight, bias)
    return weight, bias


class _Fused(nn.Module):
    """What fused modules add to torch.nn's: an activation, and adoption of an existing module."""

    activation: str | None = None
    slope: float = 0.01
    join: Any = None
    """Where accelerate(rewrite=True) put one: decides whether the norm runs now or with the
    activation that takes its output."""

    @classmethod
    def adopt(cls, module: Any, activation: str | None = None, slope: float = 0.01) -> Any:
        """`module`, an instance of the torch.nn class this one extends, itself made into this
        class: same parameters, buffers and hooks."""
        module.__class__ = cls
        module.activation, module.slope = activation, slope
        return module

    def _activated(self, y: Tensor, activation: str | None, slope: float) -> Tensor:
        return y if activation is None else activate(y, activation, slope)

    def extra_repr(self) -> str:
        return super().extra_repr() + (
            "" if self.activation is None else f", activation={self.activation}"
        )


class _BatchNormForward(_Fused):
    def forward(
        self: Any, input: Tensor, activation: str | None = None, slope: float = 0.01
    ) -> Tensor:
        """(N, C, *) to the same shape; see :func:`fastgan.ops.batch_norm`. `activation`, `slope`: a
        container's, for a module that has none of its own."""
        if activation is None:
            if self.join is not None and self.activation is None:
                return self.join.of_module(self, input)
            activation, slope = self.activation, self.slope
        return self.run(input, activation, slope)

    def run(
        self: Any,
        input: Tensor,
        activation: str | None = None,
        slope: float = 0.01,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        move: bool = True,
    ) -> Tensor:
        """act(norm(input)*scale + shift); scale and shift are (C,) or (N, C). `move` False leaves
        the buffers as they are."""
        groups = current_groups()
        # PyTorch's module reads the count of momentum=None on the host, for free on a CPU; the op
        # does not, and its running variance is one rounding off
        counts = self.momentum is None and self.training
        simple = scale is None and shift is None and move and groups == 1
        if (
            simple
            and not kernels_take(input)
            and not (counts and not (input.is_cpu and plain(input)))
        ):
            return self._activated(super().forward(input), activation, slope)
        self._check_input_dim(input)
        training = self.training or (self.running_mean is None and self.running_var is None)
        keep = not self.training or (self.track_running_stats and move)
        tracked = self.num_batches_tracked if self.training and keep else None
        return batch_norm(
            input,
            self.running_mean if keep else None,
            self.running_var if keep else None,
            *composed(self.weight, self.bias, scale, shift),
            training,
            0.0 if self.momentum is None and tracked is None else self.momentum,
            self.eps,
            activation=activation,
            slope=slope,
            groups=groups if training else 1,
            num_batches_tracked=tracked,
        )


class BatchNorm1d(_BatchNormForward, nn.BatchNorm1d):
    """torch.nn.BatchNorm1d, with an activation where one is set."""


class BatchNorm2d(_BatchNormForward, nn.BatchNorm2d):
    """torch.nn.BatchNorm2d, with an activation where one is set."""


class BatchNorm3d(_BatchNormForward, nn.BatchNorm3d):
    """torch.nn.BatchNorm3d, with an activation where one is set."""


class _InstanceNormForward(_Fused):
    def forward(
        self: Any, input: Tensor, activation: str | None = None, slope: float = 0.01
    ) -> Tensor:
        """(N, C, *) to the same shape; see :func:`fastgan.ops.instance_norm`, and _BatchNormForward
        for the activation."""
        if activation is None:
            if self.join is not None and self.activation is None:
                return self.join.of_module(self, input)
            activation, slope = self.activation, self.slope
        return self.run(input, activation, slope)

    def run(
        self: Any,
        input: Tensor,
        activation: str | None = None,
        slope: float = 0.01,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        move: bool = True,
    ) -> Tensor:
        """As _BatchNormForward.run."""
        # PyTorch also takes one sample without its batch axis, and warns of a wrong num_features:
        # its own forward does both.
        usual = input.dim() == self._get_no_batch_dim() + 1 and input.shape[1] == self.num_features
        plain = scale is None and shift is None and move
        if plain and not (usual and kernels_take(input)):
            return self._activated(super().forward(input), activation, slope)
        return instance_norm(
            input,
            self.running_mean if move or not self.training else None,
            self.running_var if move or not self.training else None,
            *composed(self.weight, self.bias, scale, shift),
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
            activation=activation,
            slope=slope,
        )


class InstanceNorm1d(_InstanceNormForward, nn.InstanceNorm1d):
    """torch.nn.InstanceNorm1d, with an activation where one is set."""


class InstanceNorm2d(_InstanceNormForward, nn.InstanceNorm2d):
    """torch.nn.InstanceNorm2d, with an activation where one is set."""


class InstanceNorm3d(_InstanceNormForward, nn.InstanceNorm3d):
    """torch.nn.InstanceNorm3d, with an activation where one is set."""


INSTANCE_NORMS = (InstanceNorm1d, InstanceNorm2d, InstanceNorm3d)


class ConditionalBatchNorm2d(nn.BatchNorm2d, _Fused):
    """Class-conditional batch norm (de Vries et al., "Modulating early visual processing by
    language", 2017): gamma and beta a class.

    forward(input (N, C, H, W), label int64 (N,)); `gamma` and `beta` are embeddings (num_classes,
    C), one and zero at the start.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        **kwargs: Any,
    ) -> None:
        activation, slope = kwargs.pop("activation", None), kwargs.pop("slope", 0.01)
        super().__init__(num_features, eps, momentum, affine=False, **kwargs)
        self.activation, self.slope = activation, slope
        self.gamma = nn.Embedding(num_classes, num_features)
        self.beta = nn.Embedding(num_classes, num_features)
        nn.init.ones_(self.gamma.weight)
        nn.init.zeros_(self.beta.weight)

    def forward(self, input: Tensor, label: Tensor) -> Tensor:  # type: ignore[override]
        self._check_input_dim(input)
        training = self.training or self.running_mean is None
        tracked = self.num_batches_tracked if self.training and self.track_running_stats else None
        return batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.gamma(label),
            self.beta(label),
            training,
            0.0 if self.momentum is None and tracked is None else self.momentum,
            self.eps,
            activation=self.activation,
            slope=self.slope,
            groups=current_groups() if training else 1,
            num_batches_tracked=tracked,
        )
