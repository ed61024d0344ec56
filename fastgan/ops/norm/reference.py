"""Normalisation in plain PyTorch, any floating type and device, differentiable to any order: what
the kernels are compared with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.kernels.activations import activation as activate

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def dense(x: Tensor) -> Tensor:
    """x (N, C, *) with channels innermost in memory: itself where it lies so, else a copy."""
    if x.dim() in _LAST:
        return x.contiguous(memory_format=_LAST[x.dim()])
    return x.contiguous() if x.dim() == 2 else x.transpose(1, 2).contiguous().transpose(1, 2)


def like(x: Tensor) -> Tensor:
    """An uninitialised tensor of x's shape and type, channels innermost."""
    return torch.empty_like(dense(x))


def rows(x: Tensor) -> Tensor:
    """x (N, C, *) as rows [N *, C]."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def per_channel(vector: Tensor, x: Tensor) -> Tensor:
    """A [C] or [N, C] vector shaped to broadcast against x (N, C, *)."""
    return vector.reshape((1,) * (2 - vector.dim()) + tuple(vector.shape) + (1,) * (x.dim() - 2))


def per_sample(vector: Tensor, samples: int) -> Tensor:
    """[C], or [A, C] with A dividing `samples`, as something that `per_channel` broadcasts."""
    return (
        vector
        if vector.dim() == 1 or vector.shape[0] in (1, samples)
        else vector.repeat_interleave(samples // vector.shape[0], 0)
    )


def batch_norm_reference(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    activation: str = "identity",
    slope: float = 0.01,
    groups: int = 1,
    num_batches_tracked: Tensor | None = None,
) -> Tensor:
    """PyTorch's own batch_norm (group by group, in order), gamma and beta per sample where given
    so, and the activation."""
    conditional = any(v is not None and v.dim() == 2 for v in (weight, bias))
    outputs = []
    for part in input.chunk(groups) if training and groups > 1 else (input,):
        factor: float | None = momentum
        if training and num_batches_tracked is not None:
            num_batches_tracked.add_(1)
        if training and momentum is None and running_mean is not None:
            outputs.append(
                _cumulative(
                    part,
                    running_mean,
                    running_var,
                    None if conditional else weight,
                    None if conditional else bias,
                    eps,
                    num_batches_tracked,
                )
            )
            continue
        outputs.append(
            F.batch_norm(
                part,
                running_mean,
                running_var,
                None if conditional else weight,
                None if conditional else bias,
                training,
                0.0 if factor is None else factor,
                eps,
            )
        )
    p = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    if conditional:
        wide = p if weight is None else p * per_channel(weight, p)
        p = (wide if bias is None else wide + per_channel(bias, p)).to(input.dtype)
    return activate(p, activation, slope)


def _cumulative(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    tracked: Tensor | None,
) -> Tensor:
    """momentum=None without reading the count on the host: normalise by the batch, then move the
    buffers by 1/count."""
    assert running_var is not None
    assert tracked is not None
    with torch.no_grad():
        wide = x.detach().to(torch.promote_types(running_mean.dtype, x.dtype))
        var, mean = torch.var_mean(wide, [0, *range(2, x.dim())], correction=1)
        factor = tracked.to(running_mean.dtype).reciprocal()
        running_mean.lerp_(mean.to(running_mean.dtype), factor)
        running_var.lerp_(var.to(running_var.dtype), factor)
    return F.batch_norm(x, None, None, weight, bias, True, 0.0, eps)


def instance_norm_reference(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: str = "identity",
    slope: float = 0.01,
) -> Tensor:
    """PyTorch's own instance_norm, gamma and beta per sample where given so, and the activation."""
    conditional = any(v is not None and v.dim() == 2 for v in (weight, bias))
    p = F.instance_norm(
        input,
        running_mean,
        running_var,
        None if conditional else weight,
        None if conditional else bias,
        use_input_stats,
        momentum,
        eps,
    )
    if conditional:
        wide = p if weight is None else p * per_channel(weight, p)
        p = (wide if bias is None else wide + per_channel(bias, p)).to(input.dtype)
    return activate(p, activation, slope)


def affine_act_reference(
    input: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    *,
    activation: str = "identity",
    slope: float = 0.01,
) -> Tensor:
    """act(input scale + shift) in fp32 or wider, cast back to the input's type."""
    p = input if input.dtype == torch.float64 else input.float()
    if scale is not None:
        p = p * per_channel(per_sample(scale, input.shape[0]), p)
    if shift is not None:
        p = p + per_channel(per_sample(shift, input.shape[0]), p)
    return activate(p, activation, slope).to(input.dtype)


def moments_reference(input: Tensor, groups: int = 1) -> tuple[Tensor, Tensor]:
    """(mean, biased variance), each [groups, C], in fp32 or wider."""
    x = input if input.dtype == torch.float64 else input.float()
    x = x.reshape(groups, -1, *x.shape[1:])
    var, mean = torch.var_mean(x, [1, *range(3, x.dim())], correction=0)
    return mean, var


def rows_forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    stats: tuple[Tensor, Tensor] | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(p, xhat, rstd) of rows x [A, L, C] with weight, bias [A, C] and stats [A, C]; without
    statistics xhat is x."""
    rstd = torch.ones_like(x[:, :1]) if stats is None else (stats[1] + eps).rsqrt()[:, None]
    xhat = x if stats is None else (x - stats[0][:, None]) * rstd
    p = xhat if weight is None else xhat * weight[:, None]
    return (p if bias is None else p + bias[:, None]), xhat, rstd


def rows_backward(
    dz: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    stats: tuple[Tensor, Tensor] | None,
    segments: int | None,
    eps: float,
    activation: str,
    slope: float,
) -> tuple[Tensor, Tensor]:
    """(dx [A, L, C], sums [A, 2, C] of dp and dp xhat): the backward formulas as differentiable
    PyTorch. dz, x [A, L, C]; weight, bias [A, C].

    With `segments` the statistics are those of x itself (its A parts, `segments` statistics); else
    `stats` [A, C], or none, are constants.
    """
    parts, _, channels = x.shape
    if segments is not None:
        whole = x.reshape(segments, -1, channels)
        var, mean = torch.var_mean(whole, 1, correction=0)
        each = parts // segments
        stats = (mean.repeat_interleave(each, 0), var.repeat_interleave(each, 0))
    p, xhat, rstd = rows_forward(x, weight, bias, stats, eps)
    leaf = p if p.requires_grad else p.detach().requires_grad_()
    (dp,) = torch.autograd.grad(activate(leaf, activation, slope), leaf, dz, create_graph=True)
    sums = torch.stack((dp.sum(1), (dp * xhat).sum(1)), 1)
    gdp = dp if weight is None else dp * weight[:, None]
    if segments is None:
        return gdp * rstd, sums
    over = (segments, -1, channels)
    mean0 = gdp.reshape(over).mean(1).repeat_interleave(parts // segments, 0)[:, None]
    mean1 = (gdp * xhat).reshape(over).mean(1).repeat_interleave(parts // segments, 0)[:, None]
    return rstd * (gdp - mean0 - xhat * mean1), sums
