"""What users write in PyTorch where an op's reference is not it: PyTorch's own generators and its
fused Adam.

A reference draws our random numbers bit by bit and adds in the order of the proof; held against
that, a kernel would look faster than it is. Every other op's rival is its reference, which is what
users write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastgan.ops.images import gather_reference
from fastgan.verify.registry import Kwargs, Op


def _as_they_are(kwargs: Kwargs) -> Kwargs:
    return kwargs


@dataclass(frozen=True)
class Rival:
    """PyTorch's way of doing what an op does.

    eager, source: what runs eagerly, and what is given to torch.compile. same: it computes the same
        numbers, so that it can be
    checked. given: the case's arguments as everybody is timed on them. own: those of the rival
        alone.
    """

    eager: Callable[..., Any]
    source: Callable[..., Any]
    same: bool = True
    given: Callable[[Kwargs], Kwargs] = _as_they_are
    own: Callable[[Kwargs], Kwargs] = _as_they_are


def _adam_fused(**k: Any) -> None:
    """torch.optim.Adam(fused=True) on one flat tensor, then average and low-precision copy;
    arguments as adam_ema_'s."""
    k["step"].add_(1)
    update = torch._fused_adamw_ if k["decoupled"] else torch._fused_adam_
    update(
        [k["param"]],
        [k["grad"]],
        [k["exp_avg"]],
        [k["exp_avg_sq"]],
        [],
        [k["step"]],
        lr=k["lr"],
        beta1=k["beta1"],
        beta2=k["beta2"],
        weight_decay=k["weight_decay"] or 0.0,
        eps=k["eps"],
        amsgrad=False,
        maximize=False,
    )
    _follow(k)


def _adam_formula(**k: Any) -> None:
    """Kingma & Ba 2015 as tensor operations, for the compiler to fuse; arguments as adam_ema_'s."""
    param, grad, decay, step = k["param"], k["grad"], k["weight_decay"], k["step"]
    step.add_(1)
    if decay and k["decoupled"]:
        param.mul_(1 - k["lr"] * decay)
    elif decay:
        grad = grad + decay * param
    k["exp_avg"].lerp_(grad, 1 - k["beta1"])
    k["exp_avg_sq"].mul_(k["beta2"]).addcmul_(grad, grad, value=1 - k["beta2"])
    spread = (k["exp_avg_sq"] / (1 - k["beta2"] ** step)).sqrt() + k["eps"]
    param.sub_(k["lr"] / (1 - k["beta1"] ** step) * k["exp_avg"] / spread)
    _follow(k)


def _follow(k: Kwargs) -> None:
    if k["ema"] is not None and k["ema_decay"] is not None:
        k["ema"].lerp_(k["param"], 1 - k["ema_decay"])
    if k["low"] is not None:
        k["low"].copy_(k["param"])


def _host_scalars(kwargs: Kwargs) -> Kwargs:
    """Hyper-parameters as the Python floats that users have; read once, outside what is timed."""
    names = ("lr", "beta1", "beta2", "eps", "weight_decay", "ema_decay")
    return kwargs | {name: float(kwargs[name]) for name in names if kwargs[name] is not None}


def _random_flip(images: Tensor, index: Tensor, dtype: torch.dtype, **unused: Any) -> Tensor:
    return gather_reference(
        images, index, torch.rand(len(index), device=images.device) < 0.5, dtype
    )


def _augment(images: Tensor, policy: str, **unused: Any) -> Tensor:
    """DiffAugment (Zhao et al. 2020) as published: one transformation after another, draws from
    PyTorch's generator."""
    n, _, height, width = images.shape
    device = images.device
    x = images.float()
    draw = lambda: torch.rand(n, 1, 1, 1, device=device)
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    if "color" in policy:
        x = x + (draw() - 0.5)
        mean = x.mean(1, keepdim=True)
        x = (x - mean) * (2 * draw()) + mean
        mean = x.mean((1, 2, 3), keepdim=True)
        x = (x - mean) * (draw() + 0.5) + mean
    if "translation" in policy:
        down, right = (int(size / 8 + 0.5) for size in (height, width))
        from_h = rows + torch.randint(-down, down + 1, (n, 1), device=device)
        from_w = columns + torch.randint(-right, right + 1, (n, 1), device=device)
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)
        h, w = (
            (from_h + 1).clamp(0, height + 1)[:, :, None],
            (from_w + 1).clamp(0, width + 1)[:, None],
        )
        x = padded[torch.arange(n, device=device)[:, None, None], h, w].permute(0, 3, 1, 2)
    if "cutout" in policy:
        cut_h, cut_w = int(height / 2 + 0.5), int(width / 2 + 0.5)
        top = torch.randint(0, height + 1 - cut_h % 2, (n, 1), device=device) - cut_h // 2
        left = torch.randint(0, width + 1 - cut_w % 2, (n, 1), device=device) - cut_w // 2
        in_h, in_w = (
            (rows >= top) & (rows < top + cut_h),
            (columns >= left) & (columns < left + cut_w),
        )
        x = x * ~(in_h[:, None, :, None] & in_w[:, None, None, :])
    return x.to(images.dtype)


def _uniform(
    position: Tensor, n: int, shape: tuple[int, ...], dtype: torch.dtype, **unused: Any
) -> Tensor:
    return torch.rand(n, *shape, dtype=dtype, device=position.device)


def _normal(
    position: Tensor, n: int, shape: tuple[int, ...], dtype: torch.dtype, **unused: Any
) -> Tensor:
    return torch.randn(n, *shape, dtype=dtype, device=position.device)


RIVALS: Mapping[str, Rival] = {
    "uniform": Rival(_uniform, _uniform, same=False),
    "normal": Rival(_normal, _normal, same=False),
    "images_gather_random_flip": Rival(_random_flip, _random_flip, same=False),
    "diffaugment": Rival(_augment, _augment, same=False),
    # without a loss scale, as bf16 trains: PyTorch's kernel divides the stored gradient by it again
    # at each call
    "adam_ema": Rival(
        _adam_fused, _adam_formula, given=lambda kwargs: kwargs | {"scale": None}, own=_host_scalars
    ),
}


def rival(op: Op) -> Rival:
    """What stands for PyTorch beside an op."""
    eager = op.eager or op.reference
    return RIVALS.get(op.name) or Rival(eager, eager)
