"""Registered operators: each has a PyTorch reference, one or more engines behind ``impl=``, and a
proof (``fastgan verify``).

Public names are loaded on first use, so that importing one op does not pay for the others.
"""

from __future__ import annotations

import importlib
from typing import Any

# module -> the public names it exports: one line a family
_EXPORTS: dict[str, tuple[str, ...]] = {
    "dispatch": ("prefer", "why"),
    "augment": ("diffaugment",),
    "bias": ("add_bias",),
    "conv.functional": ("conv2d", "conv_transpose2d", "no_weight_gradients"),
    "conv.fold": ("conv2d_average", "upsample_conv2d"),
    "conv.fused": ("conv_moments", "conv_transpose_moments"),
    "images": ("gather", "gather_random_flip"),
    "loss": ("adversarial",),
    "norm.functional": ("batch_norm", "instance_norm"),
    "norm.handed_on": ("affine", "affine_act", "moments", "update_running_stats"),
    "adam.flat_parameters": ("FlatParameters",),
    "adam.functional": ("adam_ema_",),
    "adam.optimizer": ("FlatAdam",),
    "resample": ("avg_pool2", "upsample2"),
    "random": ("normal", "stream_id", "uniform"),
    "spectral.functional": ("spectral_sigma",),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(
        importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name
    )
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
