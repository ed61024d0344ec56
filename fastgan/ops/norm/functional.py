"""Normalisation with activation: batch, grouped (real | fake), class-conditional and instance norm;
moments, scale and shift for norm that is handed on.

    z = act((x - mean) / sqrt(var + eps) gamma + beta)

(Ioffe, Szegedy, "Batch normalization", 2015.)

Statistics are fp32, of x as stored, over a channel's rows of its group. docs/internals/kernels.md
has the layout, what backward keeps and the bytes moved.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels.activations import row
from fastgan.ops.dispatch import Dispatcher, pytorch_at_once
from fastgan.ops.norm import apply
from fastgan.ops.norm import moments as mo
from fastgan.ops.norm import train as ag
from fastgan.ops.norm.reference import (
    affine_act_reference,
    batch_norm_reference,
    instance_norm_reference,
    moments_reference,
)

__all__ = ["affine", "affine_act", "batch_norm", "instance_norm", "moments", "update_running_stats"]

_KERNEL_TYPES = (torch.float32, torch.float16, torch.bfloat16)


def _unsupported(
    engine: str,
    dtype: torch.dtype,
    asked: bool,
    channels_last: bool,
    empty: bool,
    huge: bool,
    buffers: bool,
) -> str | None:
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


_batch_norm_engine = Dispatcher("batch_norm", ("triton", "reference"), _unsupported)
_instance_norm_engine = Dispatcher("instance_norm", ("triton", "reference"), _unsupported)
_affine_act_engine = Dispatcher("affine_act", ("triton", "reference"), _unsupported)
_moments_engine = Dispatcher("moments", ("triton", "reference"), _unsupported)


def _facts(
    impl: str,
    x: Tensor,
    vectors: tuple[Tensor | None, ...] = (),
    running: tuple[Tensor | None, ...] = (),
) -> tuple[bool, bool, bool, bool, bool]:
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


def _check(
    name: str,
    x: Tensor,
    activation: str | None,
    vectors: Sequence[Tensor | None],
    grouped: bool = False,
) -> str:
    act = "identity" if activation is None else activation
    row(act)
    if not 2 <= x.dim() <= 5:
        raise FastganError(
            f"{name} takes (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W), not {tuple(x.shape)}"
        )
    channels = (x.shape[1],)
    for v in vectors:
        if v is None or v.shape == channels:
            continue
        fits = v.dim() == 2 and v.shape[1] == x.shape[1] and v.shape[0] > 0
        if not fits or (x.shape[0] % v.shape[0] if grouped else v.shape[0] != x.shape[0]):
            rows = "group" if grouped else "sample"
            raise FastganError(
                f"{name} of {tuple(x.shape)}: shape {tuple(v.shape)} is neither ({x.shape[1]},) "
                f"nor one row of it per {rows}"
            )
    return act


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
    act = _check("batch_norm", input, activation, (weight, bias))
    if groups != 1 and (groups < 1 or input.shape[0] % groups):
        raise FastganError(f"a batch of {input.shape[0]} does not split into {groups} equal groups")
    if training and momentum is None and running_mean is not None and num_batches_tracked is None:
        raise FastganError(
            "batch_norm with momentum=None needs num_batches_tracked, the count its factor comes "
            "from"
        )
    if not pytorch_at_once(impl, input):
        facts = _facts(impl, input, (weight, bias), (running_mean, running_var))
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
    act = _check("instance_norm", input, activation, (weight, bias))
    if not pytorch_at_once(impl, input):
        facts = _facts(impl, input, (weight, bias), (running_mean, running_var))
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


def affine_act(
    input: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    *,
    activation: str | None = None,
    slope: float = 0.01,
    impl: str = "auto",
) -> Tensor:
    """act(input scale + shift), input (N, C, *); `scale`, `shift` are (C,), or (A, C) with A
    dividing N (one row per group or sample).

    Differentiable in all three, to second order; backward reads the gradient and the input once,
    for dx and both sums. This is how normalisation that was handed on is materialised, and how a
    spectral norm (scale = 1/sigma, shift = bias) and its activation leave a convolution.
    """
    act = _check("affine_act", input, activation, (scale, shift), grouped=True)
    if (
        scale is not None
        and shift is not None
        and scale.dim() == shift.dim() == 2
        and scale.shape[0] != shift.shape[0]
    ):
        raise FastganError(
            f"affine_act: scale {tuple(scale.shape)} and shift {tuple(shift.shape)} have different "
            "numbers of rows"
        )
    if (
        not pytorch_at_once(impl, input)
        and _affine_act_engine(impl, input, *_facts(impl, input, (scale, shift))) == "triton"
    ):
        scale, shift = _same_rows(scale, shift)
        return apply.apply(input, scale, shift, None, None, 0.0, act, slope)
    return affine_act_reference(input, scale, shift, activation=act, slope=slope)


def _same_rows(scale: Tensor | None, shift: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """A (C,) beside an (A, C) is repeated: the kernels index both by one row number."""
    if scale is not None and shift is not None and scale.dim() != shift.dim():
        scale, shift = (
            (scale.expand_as(shift), shift) if scale.dim() == 1 else (scale, shift.expand_as(scale))
        )
    return scale, shift


def moments(input: Tensor, groups: int = 1, *, impl: str = "auto") -> tuple[Tensor, Tensor]:
    """(mean, biased variance), fp32 (groups, C), of input (N, C, *) over each of `groups` equal
    parts of the batch; differentiable to second order."""
    _check("moments", input, None, ())
    if groups < 1 or input.shape[0] % groups:
        raise FastganError(f"a batch of {input.shape[0]} does not split into {groups} equal groups")
    if (
        not pytorch_at_once(impl, input)
        and _moments_engine(impl, input, *_facts(impl, input)) == "triton"
    ):
        mean, var = mo.norm_moments(input, groups).unbind(0)
        return mean, var
    return moments_reference(input, groups)


def affine(
    mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """(scale, shift) = (gamma / sqrt(var + eps), beta - mean scale) of fp32 (C,) or (groups, C)
    statistics; plain PyTorch, differentiable in all."""
    scale = (var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    return scale, (
        -mean * scale
        if bias is None
        else torch.addcmul(bias.to(scale.dtype), mean, scale, value=-1.0)
    )


def update_running_stats(
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    tracked: Sequence[Tensor],
    stats: Sequence[tuple[Tensor, Tensor]] | Sequence[Tensor],
    rows: Sequence[int],
    momenta: Sequence[float | None],
    *,
    impl: str = "auto",
) -> None:
    """Every layer's running mean and variance (C,) moved in place by its batch statistics, in one
    launch whatever the number of layers.

    `stats[i]`: (2, groups, C), or a pair of (groups, C), biased variance over rows[i] values a
    group; groups update in order. `tracked`: every layer's count (int64, 0-dim, grows by its
    groups) or empty; `momenta[i]` None is the cumulative average, from the count. Never part of an
    autograd graph.
    """
    packed = [s if isinstance(s, Tensor) else torch.stack(tuple(s)) for s in stats]
    fits = all(
        v.dtype == torch.float32 and v.is_contiguous() for v in (*means, *variances, *packed)
    )
    with torch.no_grad():
        if (
            fits
            and not pytorch_at_once(impl, means[0])
            and _moments_engine(impl, means[0], impl == "triton", True, False, False, True)
            == "triton"
        ):
            mo.update_running(
                list(means), list(variances), list(tracked), packed, list(rows), list(momenta)
            )
            return
        for i, (running_mean, running_var, s, n, momentum) in enumerate(
            zip(means, variances, packed, rows, momenta)
        ):
            for mean, var in zip(*s.detach().unbind(0)):
                if tracked:
                    tracked[i].add_(1)
                factor = (
                    tracked[i].to(running_mean.dtype).reciprocal() if momentum is None else momentum
                )
                running_mean.lerp_(mean.to(running_mean.dtype), factor)
                running_var.lerp_((var * (n / (n - 1))).to(running_var.dtype), factor)
