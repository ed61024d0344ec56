"""What `fastgan verify`, `--aot`, `bench` and `tune` know of the normalisation ops."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan.kernels.activations import ACTIVATIONS, row
from fastgan.ops.norm import functional as norm
from fastgan.ops.norm import handed_on, reference
from fastgan.verify.cases.norm_launches import (
    ONE_CHANNEL,
    TUNED,
    affine_bytes,
    moments_bytes,
    norm_bytes,
    variants,
)
from fastgan.verify.registry import Case, Kwargs, Mask, Op, Outputs, register


def _masked(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`fn` whose piecewise-linear activation takes the branch that `mask` says."""

    @functools.wraps(fn)
    def call(
        *,
        mask: Tensor | None = None,
        activation: str | None = None,
        slope: float = 0.01,
        **kwargs: Any,
    ) -> Tensor:
        negative = row(activation or "identity").negative
        if mask is None or negative is None:
            return fn(activation=activation or "identity", slope=slope, **kwargs)
        p = fn(activation="identity", **kwargs)
        return torch.where(mask, p, p * negative(slope))

    return call


def _observed(kwargs: Kwargs, outputs: Outputs) -> Any:
    return outputs["out"] > 0 if row(kwargs.get("activation") or "identity").negative else None


def _scaled(kwargs: Kwargs, fn: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """(p, |x s| + |t|), with s and t found from p at x and at 0 of the same statistics: p is affine
    in x channel by channel."""
    x = kwargs["input"]
    p = fn(**{**kwargs, "activation": "identity"})
    weight, bias = (
        kwargs.get("weight", kwargs.get("scale")),
        kwargs.get("bias", kwargs.get("shift")),
    )
    t = (
        torch.zeros_like(p)
        if bias is None
        else reference.per_channel(reference.per_sample(bias, x.shape[0]), x).expand_as(p)
    )
    # the kernels subtract the mean first: |x s| is at most the spread about it plus the mean itself
    centred = (p - t).abs()
    ratio = (
        torch.ones_like(p)
        if weight is None
        else reference.per_channel(reference.per_sample(weight, x.shape[0]), x).abs().expand_as(p)
    )
    std = x.std().clamp_min(1e-12)
    return p, centred + ratio * x.abs() / std + t.abs()


batch_reference = _masked(reference.batch_norm_reference)
instance_reference = _masked(reference.instance_norm_reference)
affine_reference = _masked(reference.affine_act_reference)


def _input(
    shape: Sequence[int],
    ratio: float,
    dtype: torch.dtype,
    device: torch.device,
    generator: torch.Generator,
) -> Tensor:
    x = torch.randn(tuple(shape), generator=generator) + ratio
    x = x.to(device, dtype)
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats[x.dim()]) if x.dim() in formats else x


def _case(
    name: str,
    shape: tuple[int, ...],
    *tags: str,
    act: str | None = None,
    ratio: float = 1.0,
    conditional: bool = False,
    training: bool = True,
    groups: int = 1,
    running: bool = True,
    affine: bool = True,
    momentum: float | None = 0.1,
) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        draw = lambda *size: torch.rand(size, generator=generator).to(device) + 0.5
        vector = (shape[0], shape[1]) if conditional else (shape[1],)
        return {
            "input": _input(shape, ratio, dtype, device, generator),
            "running_mean": draw(shape[1]) if running else None,
            "running_var": draw(shape[1]) if running else None,
            "weight": draw(*vector) if affine else None,
            "bias": draw(*vector) - 1.0 if affine else None,
            "training": training,
            "momentum": momentum,
            "activation": act,
            "slope": 0.2,
            "groups": groups,
            "num_batches_tracked": torch.tensor(5, device=device) if running and training else None,
        }

    # PyTorch's own CPU kernel misses the bound at |mean|/std = 100 (6e-5) second order is plain
    # PyTorch whatever the kernels: the large quick case leaves it to the others
    directions = ("forward", "backward") if "splits" in name else None
    return Case(
        name,
        make,
        set(tags),
        directions=directions,
        engines=("triton",) if ratio == 100.0 else None,
    )


def _instance_case(
    name: str, shape: tuple[int, ...], *tags: str, act: str | None = None, conditional: bool = False
) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        vector = (shape[0], shape[1]) if conditional else (shape[1],)
        return {
            "input": _input(shape, 1.0, dtype, device, generator),
            "running_mean": torch.zeros(shape[1], device=device),
            "running_var": torch.ones(shape[1], device=device),
            "weight": torch.rand(vector, generator=generator).to(device) + 0.5,
            "bias": torch.randn(vector, generator=generator).to(device),
            "activation": act,
            "slope": 0.2,
        }

    return Case(name, make, set(tags))


def _affine_case(
    name: str, shape: tuple[int, ...], rows: int | None, *tags: str, act: str | None = None
) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        vector = (shape[1],) if rows is None else (rows, shape[1])
        return {
            "input": _input(shape, 0.0, dtype, device, generator),
            "scale": torch.rand(vector, generator=generator).to(device) + 0.5,
            "shift": torch.randn(vector, generator=generator).to(device),
            "activation": act,
            "slope": 0.2,
        }

    return Case(name, make, set(tags))


def _moments_case(name: str, shape: tuple[int, ...], groups: int, ratio: float, *tags: str) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        return {"input": _input(shape, ratio, dtype, device, generator), "groups": groups}

    return Case(name, make, set(tags))


def _layers_case(channels: tuple[int, ...], groups: int, *tags: str) -> Case:
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        draw = lambda *size: torch.rand(size, generator=generator).to(device)
        return {
            "means": [draw(c) for c in channels],
            "variances": [draw(c) for c in channels],
            "tracked": [torch.tensor(i, device=device) for i in range(len(channels))],
            "stats": [draw(2, groups, c) for c in channels],
            "rows": [5 + i for i in range(len(channels))],
            "momenta": [None if i % 2 else 0.1 for i in range(len(channels))],
        }

    return Case(f"{len(channels)} layers, {groups} groups", make, set(tags))


ALL = ("forward", "backward", "double")

register(
    Op(
        "batch_norm",
        norm.batch_norm,
        batch_reference,
        [
            _case("train leaky_relu", (3, 33, 5, 7), "quick", "full", act="leaky_relu"),
            _case("train splits relu", (2, 17, 33, 34), "quick", "full", act="relu", ratio=3.0),
            _case(
                "train conditional groups",
                (4, 15, 3, 5),
                "quick",
                "full",
                act="relu",
                conditional=True,
                groups=2,
            ),
            _case(
                "train cumulative groups",
                (4, 3, 5, 2),
                "quick",
                "full",
                act="silu",
                groups=2,
                momentum=None,
            ),
            _case("eval tanh", (2, 8, 3, 5), "quick", "full", act="tanh", training=False),
            _case("train one channel", (1, 1, 7, 5), "full", act="sigmoid"),
            _case("train 2-D", (37, 19), "full", act="leaky_relu"),
            _case("train 3-D no affine", (3, 5, 11), "full", affine=False),
            _case("train 5-D", (2, 6, 3, 2, 5), "full", act="relu", running=False),
            _case("train large mean", (8, 16, 18, 17), "full", ratio=100.0),
            _case("train splits groups", (4, 33, 33, 32), "full", act="leaky_relu", groups=2),
            _case(
                "train splits conditional",
                (4, 5, 33, 32),
                "full",
                act="leaky_relu",
                conditional=True,
            ),
            _case(
                "frozen conditional",
                (3, 15, 4, 7),
                "full",
                act="leaky_relu",
                conditional=True,
                training=False,
            ),
            _case("gradcheck", (3, 2, 2, 3), "gradcheck", act="silu"),
            _case(
                "gradcheck conditional groups",
                (4, 2, 2, 1),
                "gradcheck",
                act="tanh",
                conditional=True,
                groups=2,
            ),
            _case("gradcheck eval", (2, 2, 2), "gradcheck", act="silu", training=False),
            *(
                _case(f"DCGAN-64 G {c}x{s}x{s}", (128, c, s, s), "layer", act="relu")
                for c, s in ((512, 4), (256, 8), (128, 16), (64, 32))
            ),
            *(
                _case(
                    f"DCGAN-64 D {c}x{s}x{s} real|fake",
                    (256, c, s, s),
                    "layer",
                    act="leaky_relu",
                    groups=2,
                )
                for c, s in ((128, 16), (256, 8), (512, 4))
            ),
            _case("DCGAN-64 G 64x32x32 batch 1024", (1024, 64, 32, 32), "layer", act="relu"),
            _case("pix2pix-256 64x128x128", (1, 64, 128, 128), "layer", act="leaky_relu"),
            _case("beyond 2^31 elements", (33000, 64, 32, 32), "huge", act="relu"),
        ],
        grad_inputs=("input", "weight", "bias"),
        mutates=("running_mean", "running_var", "num_batches_tracked"),
        directions=ALL,
        bounds={"backward:dbias": ONE_CHANNEL, "double:d2weight": ONE_CHANNEL},
        mask=Mask(_observed, lambda kwargs: _scaled(kwargs, batch_reference)),
        bytes=norm_bytes,
        kernels=variants,
        candidates=TUNED,
    )
)

register(
    Op(
        "instance_norm",
        norm.instance_norm,
        instance_reference,
        [
            _instance_case("leaky_relu", (3, 15, 6, 7), "quick", "full", act="leaky_relu"),
            _instance_case("conditional", (2, 5, 3, 4), "full", act="relu", conditional=True),
            _instance_case("long", (2, 16, 48, 47), "full", act="relu"),
            _instance_case("3-D", (3, 4, 9), "full"),
            _instance_case("gradcheck", (2, 2, 5), "gradcheck", act="tanh"),
            _instance_case("pix2pix-256 128x64x64", (4, 128, 64, 64), "layer", act="leaky_relu"),
        ],
        grad_inputs=("input", "weight", "bias"),
        mutates=("running_mean", "running_var"),
        directions=ALL,
        mask=Mask(_observed, lambda kwargs: _scaled(kwargs, instance_reference)),
        bytes=norm_bytes,
    )
)

register(
    Op(
        "affine_act",
        handed_on.affine_act,
        affine_reference,
        [
            _affine_case("groups", (4, 33, 5, 3), 2, "quick", "full", act="leaky_relu"),
            *(
                _affine_case(f"activation {name}", (2, 33, 5, 3), None, "quick", "full", act=name)
                for name in ACTIVATIONS
            ),
            _affine_case("channels", (3, 3, 4, 5), None, "full", act="tanh"),
            _affine_case("samples", (3, 16, 7, 5), 3, "full", act="relu"),
            _affine_case("gradcheck", (2, 2, 3), 2, "gradcheck", act="silu"),
            _affine_case(
                "SNGAN-CIFAR 128x32x32", (128, 128, 32, 32), None, "layer", act="leaky_relu"
            ),
        ],
        grad_inputs=("input", "scale", "shift"),
        directions=ALL,
        mask=Mask(_observed, lambda kwargs: _scaled(kwargs, affine_reference)),
        bytes=affine_bytes,
    )
)

register(
    Op(
        "moments",
        handed_on.moments,
        reference.moments_reference,
        [
            _moments_case("mean 100 std", (2, 33, 17, 19), 1, 100.0, "quick", "full"),
            _moments_case("groups", (4, 33, 9, 5), 2, 1.0, "full"),
            _moments_case("gradcheck", (4, 2, 3), 2, 1.0, "gradcheck"),
            _moments_case("DCGAN-64 G 64x32x32 batch 1024", (1024, 64, 32, 32), 1, 1.0, "layer"),
        ],
        grad_inputs=("input",),
        outputs=("mean", "var"),
        directions=ALL,
        bytes=moments_bytes,
    )
)

register(
    Op(
        "update_running_stats",
        handed_on.update_running_stats,
        functools.partial(handed_on.update_running_stats, impl="reference"),
        [
            _layers_case((3, 17, 33), 2, "quick", "full"),
            _layers_case((1, 1500, 64, 512), 1, "full"),
        ],
        mutates=("means", "variances", "tracked"),
        dtypes=("fp32",),
    )
)
