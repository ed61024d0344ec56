"""BatchNorm and InstanceNorm modules whose forward is ours: no state, no __init__, so that an instance's class can simply be
assigned.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastgan.kernels._common import INTERPRET
from fastgan.kernels._common import activation as activate
from fastgan.ops.norm import batch_norm, instance_norm


def kernels_take(x: Tensor) -> bool:
    """Whether a kernel may be had for x. Elsewhere PyTorch's own forward is the reference, and taking it costs nothing extra."""
    return (x.is_cuda or INTERPRET) and (x.dim() == 2 or x.stride(1) == 1)


class _BatchNorm:
    def forward(self: Any, input: Tensor, activation: str | None = None, slope: float = 0.0) -> Tensor:
        if not kernels_take(input):
            y = super().forward(input)  # type: ignore[misc]
            return y if activation is None else activate(y, activation, slope)
        self._check_input_dim(input)
        track = self.track_running_stats if self.training else True
        use_batch = self.training or (self.running_mean is None and self.running_var is None)
        return batch_norm(
            input,
            self.running_mean if track else None,
            self.running_var if track else None,
            self.weight,
            self.bias,
            use_batch,
            self.momentum,
            self.eps,
            activation=activation,
            slope=slope,
            num_batches_tracked=self.num_batches_tracked if self.training and track else None,
        )


class _InstanceNorm:
    def forward(self: Any, input: Tensor, activation: str | None = None, slope: float = 0.0) -> Tensor:
        # PyTorch also takes one sample without its batch axis, and warns of a wrong num_features: its own forward does both.
        usual = input.dim() == self._get_no_batch_dim() + 1 and input.shape[1] == self.num_features
        if not (usual and kernels_take(input)):
            y = super().forward(input)  # type: ignore[misc]
            return y if activation is None else activate(y, activation, slope)
        return instance_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            self.momentum if self.momentum is not None else 0.0,
            self.eps,
            activation=activation,
            slope=slope,
        )


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    pass


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    pass


class BatchNorm3d(_BatchNorm, nn.BatchNorm3d):
    pass


class InstanceNorm1d(_InstanceNorm, nn.InstanceNorm1d):
    pass


class InstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    pass


class InstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d):
    pass


INSTANCE_NORMS = (InstanceNorm1d, InstanceNorm2d, InstanceNorm3d)
