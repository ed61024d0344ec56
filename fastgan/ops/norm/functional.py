"""Normalisation with activation: batch, grouped (real | fake), class-conditional and instance norm.

    z = act((x - mean) / sqrt(var + eps) gamma + beta)

(Ioffe, Szegedy, "Batch normalization", 2015.)

Statistics are fp32, of x as stored, over a channel's rows of its group. docs/internals/kernels.md
has the layout, what backward keeps and the bytes moved. Norm that is handed on as moments, scale
and shift is in handed_on.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.ops.dispatch import Dispatcher, pytorch_at_once
from fastgan.ops.norm import apply
from fastgan.ops.norm import train as ag
from fastgan.ops.norm.arguments import checked, divided, facts_of, unsupported
from fastgan.ops.norm.reference import batch_norm_reference, instance_norm_reference

__all__ = ["batch_norm", "instance_norm"]

_batch_norm_engine = Dispatcher("batch_norm", ("triton", "reference"), unsupported)
_instance_norm_engine = Dispatcher("instance_norm", ("triton", "reference"), unsupported)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
    slope: float = 0.01,
    groups: int = 1,
    num_batches_tracked: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """torch.nn.functional.batch_norm with an activation, on input (N, C, *) of 2 to 5 dimensions;
    fp32, fp16, bf16 (float64: reference).

    Agrees with PyTorch for every argument it has: buffers are updated in place in training
    (unbiased variance), one value per channel raises ValueError.
    `weight`, `bias`: (C,), or (N, C) for class-conditional norm. `activation`: None or a name of
    the activation table; `slope` is leaky_relu's.
    `groups`: equal parts of the batch with statistics of their own (2: real | fake in one call),
    buffers updated part by part in order.
    `num_batches_tracked` (int64, 0-dim) grows by `groups` on the device; `momentum=None`
    (cumulative average) takes its factor from it, never on the host.
    Output is channels_last where the kernels ran. Exact in second order. Raises FastganError for
    shapes that do not fit and unknown activations.
    """
    act = checked("batch_norm", input, activation, (weight, bias))
    divided(input, groups)
    if training and momentum is None and running_mean is not None and num_batches_tracked is None:
        raise FastganError(
            "batch_norm with momentum=None needs num_batches_tracked, the count its factor comes "
            "from"
        )
    if not pytorch_at_once(impl, input):
        facts = facts_of(impl, input, (weight, bias), (running_mean, running_var))
        if _batch_norm_engine(impl, input, *facts) == "triton":
            return _batch_norm_triton(
                input,
                running_mean,
                running_var,
                weight,
                bias,
                training,
                momentum,
                eps,
                act,
                slope,
                groups,
                num_batches_tracked,
            )
    return batch_norm_reference(
        input,
        running_mean,
        running_var,
        weight,
        bias,
        training,
        momentum,
        eps,
        activation=act,
        slope=slope,
        groups=groups,
        num_batches_tracked=num_batches_tracked,
    )


def _batch_norm_triton(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float | None,
    eps: float,
    act: str,
    slope: float,
    groups: int,
    tracked: Tensor | None,
) -> Tensor:
    if (running_mean is None) != (running_var is None):
        raise FastganError("batch_norm takes running_mean and running_var together or neither")
    if training:
        rows = input.numel() // (input.shape[1] * groups)
        if rows == 1:
            raise ValueError(
                "Expected more than 1 value per channel when training, got input size "
                f"{input.size()}"
            )
        if eps <= 0.0:
            raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
        return ag.train(
            input,
            weight,
            bias,
            groups,
            eps,
            act,
            slope,
            running_mean,
            running_var,
            tracked,
            momentum,
        )[0]
    if running_mean is None:
        raise RuntimeError(
            "Expected running_mean and running_var to be defined when training=False"
        )
    if eps < 0.0:
        raise ValueError(f"batch_norm eps must be non-negative, but got {eps}")
    return apply.apply(input, weight, bias, running_mean, running_var, eps, act, slope)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
    slope: float = 0.01,
    impl: str = "auto",
) -> Tensor:
    """torch.nn.functional.instance_norm with an activation (AdaIN-like with `weight`, `bias` of (N,
    C)); types and errors as
    :func:`batch_norm`.

    Buffers move by the mean over samples of each sample's statistics, as PyTorch's do.
    """
    act = checked("instance_norm", input, activation, (weight, bias))
    if not pytorch_at_once(impl, input):
        facts = facts_of(impl, input, (weight, bias), (running_mean, running_var))
        if _instance_norm_engine(impl, input, *facts) == "triton":
            if not use_input_stats:
                return _batch_norm_triton(
                    input,
                    running_mean,
                    running_var,
                    weight,
                    bias,
                    False,
                    momentum,
                    eps,
                    act,
                    slope,
                    1,
                    None,
                )
            n = input.numel() // (input.shape[0] * input.shape[1])
            if n == 1:
                raise ValueError(
                    "Expected more than 1 spatial element when training, got input size "
                    f"{input.size()}"
                )
            z, stats = ag.train(
                input, weight, bias, input.shape[0], eps, act, slope, None, None, None, momentum
            )
            if running_mean is not None and running_var is not None:
                with torch.no_grad():
                    running_mean.lerp_(stats[0].mean(0), momentum)
                    running_var.lerp_(stats[1].mean(0) * (n / (n - 1)), momentum)
            return z
    return instance_norm_reference(
        input,
        running_mean,
        running_var,
        weight,
        bias,
        use_input_stats,
        momentum,
        eps,
        activation=act,
        slope=slope,
    )
