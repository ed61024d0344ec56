"""BatchNorm and InstanceNorm on the fused ops: subclasses of torch.nn's with the same parameters, buffers, keys and semantics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from fastgan.ops.norm import batch_norm, instance_norm

__all__ = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "ConditionalBatchNorm2d", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d",
    "current_groups", "grouped",
]  # fmt: skip

_groups = 1


def current_groups() -> int:
    """How many batches the modules of this package take their input for: 1, or what :func:`grouped` says."""
    return _groups


@contextlib.contextmanager
def grouped(groups: int) -> Iterator[None]:
    """Within the block a batch stands for `groups` batches one after the other (real, fake): each has statistics and a sigma
    of its own, and
    buffers move as by as many forwards, in order.
    """
    global _groups
    before, _groups = _groups, groups
    try:
        yield
    finally:
        _groups = before


class _Fused(nn.Module):
    """What fused modules add to torch.nn's: an activation, and adoption of an existing module."""

    activation: str | None = None
    slope: float = 0.01

    @classmethod
    def adopt(cls, module: Any, activation: str | None = None, slope: float = 0.01) -> Any:
        """`module`, an instance of the torch.nn class this one extends, itself made into this class: same parameters, buffers
        and hooks."""
        module.__class__ = cls
        module.activation, module.slope = activation, slope
        return module

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.activation is None else f", activation={self.activation}")


class _BatchNormForward(_Fused):
    def forward(self: Any, input: Tensor) -> Tensor:
        """(N, C, *) to the same shape; see :func:`fastgan.ops.batch_norm`."""
        self._check_input_dim(input)
        training = self.training or (self.running_mean is None and self.running_var is None)
        update = self.training and self.track_running_stats
        keep = not self.training or self.track_running_stats
        tracked = self.num_batches_tracked if update else None
        momentum = 0.0 if self.momentum is None and tracked is None else self.momentum
        return batch_norm(
            input,
            self.running_mean if keep else None,
            self.running_var if keep else None,
            self.weight,
            self.bias,
            training,
            momentum,
            self.eps,
            activation=self.activation,
            slope=self.slope,
            groups=current_groups() if training else 1,
            num_batches_tracked=tracked,
        )


class BatchNorm1d(_BatchNormForward, nn.BatchNorm1d):
    """torch.nn.BatchNorm1d, with an activation where one is set."""


class BatchNorm2d(_BatchNormForward, nn.BatchNorm2d):
    """torch.nn.BatchNorm2d, with an activation where one is set."""


class BatchNorm3d(_BatchNormForward, nn.BatchNorm3d):
    """torch.nn.BatchNorm3d, with an activation where one is set."""


class _InstanceNormForward(_Fused):
    def forward(self: Any, input: Tensor) -> Tensor:
        """(N, C, *) to the same shape; an unbatched input goes to PyTorch's own module."""
        if input.dim() == self._get_no_batch_dim() or input.shape[1] != self.num_features:
            out = super().forward(input)
            return out if self.activation is None else _activate(out, self.activation, self.slope)
        self._check_input_dim(input)
        return instance_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
            activation=self.activation,
            slope=self.slope,
        )


def _activate(x: Tensor, name: str, slope: float) -> Tensor:
    from fastgan.kernels._common import activation

    return activation(x, name, slope)


class InstanceNorm1d(_InstanceNormForward, nn.InstanceNorm1d):
    """torch.nn.InstanceNorm1d, with an activation where one is set."""


class InstanceNorm2d(_InstanceNormForward, nn.InstanceNorm2d):
    """torch.nn.InstanceNorm2d, with an activation where one is set."""


class InstanceNorm3d(_InstanceNormForward, nn.InstanceNorm3d):
    """torch.nn.InstanceNorm3d, with an activation where one is set."""


class ConditionalBatchNorm2d(nn.BatchNorm2d, _Fused):
    """Class-conditional batch norm (de Vries et al., "Modulating early visual processing by language", 2017): gamma and beta a
    class.

    forward(input (N, C, H, W), label int64 (N,)); `gamma` and `beta` are embeddings (num_classes, C), one and zero at the start.
    """

    def __init__(
        self, num_features: int, num_classes: int, eps: float = 1e-5, momentum: float | None = 0.1, **kwargs: Any
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
