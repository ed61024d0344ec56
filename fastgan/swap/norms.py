"""BatchNorm and InstanceNorm whose forward is ours: no state and no __init__, so that an instance's class can simply be assigned.

They differ from fastgan.nn's in two things: the activation comes with the call (a container's plan owns it, not the module),
and where no
kernel can run they are PyTorch's own forward after one comparison.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastgan.kernels._common import INTERPRET
from fastgan.kernels._common import activation as activate
from fastgan.nn.norm import current_groups
from fastgan.ops.norm import batch_norm, instance_norm


def kernels_take(x: Tensor) -> bool:
    """Whether a kernel may be had for x. Elsewhere PyTorch's own forward is the reference, and taking it costs nothing extra."""
    return (x.is_cuda or INTERPRET) and (x.dim() == 2 or x.stride(1) == 1)


class _Owned(torch.autograd.Function):
    """x as a tensor of its own. Autograd forbids writing in place over a view that a Function returned, and what follows
    a norm may do just that: a ReLU(True), the next block's opening activation, `h += skip`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.data

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def owned(x: Tensor) -> Tensor:
    return _Owned.apply(x) if not torch.compiler.is_compiling() and x._base is not None and x.requires_grad else x


class _BatchNorm:
    def forward(self: Any, input: Tensor, activation: str | None = None, slope: float = 0.0) -> Tensor:
        groups = current_groups()
        if not kernels_take(input) and groups == 1:
            y = super().forward(input)  # type: ignore[misc]
            return y if activation is None else activate(y, activation, slope)
        self._check_input_dim(input)
        keep = not self.training or self.track_running_stats
        tracked = self.num_batches_tracked if self.training and self.track_running_stats else None
        training = self.training or (self.running_mean is None and self.running_var is None)
        return owned(
            batch_norm(
                input,
                self.running_mean if keep else None,
                self.running_var if keep else None,
                self.weight,
                self.bias,
                training,
                0.0 if self.momentum is None and tracked is None else self.momentum,
                self.eps,
                activation=activation,
                slope=slope,
                groups=groups if training else 1,
                num_batches_tracked=tracked,
            )
        )


class _InstanceNorm:
    def forward(self: Any, input: Tensor, activation: str | None = None, slope: float = 0.0) -> Tensor:
        # PyTorch also takes one sample without its batch axis, and warns of a wrong num_features: its own forward does both.
        usual = input.dim() == self._get_no_batch_dim() + 1 and input.shape[1] == self.num_features
        if not (usual and kernels_take(input)):
            y = super().forward(input)  # type: ignore[misc]
            return y if activation is None else activate(y, activation, slope)
        return owned(
            instance_norm(
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
        )


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """torch.nn.BatchNorm1d on the fused op."""


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """torch.nn.BatchNorm2d on the fused op."""


class BatchNorm3d(_BatchNorm, nn.BatchNorm3d):
    """torch.nn.BatchNorm3d on the fused op."""


class InstanceNorm1d(_InstanceNorm, nn.InstanceNorm1d):
    """torch.nn.InstanceNorm1d on the fused op."""


class InstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    """torch.nn.InstanceNorm2d on the fused op."""


class InstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d):
    """torch.nn.InstanceNorm3d on the fused op."""


INSTANCE_NORMS = (InstanceNorm1d, InstanceNorm2d, InstanceNorm3d)
