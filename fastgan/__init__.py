"""fastgan: train GANs fast, on kernels that are proven against PyTorch references.

    trainer = fastgan.Trainer(generator=G, discriminator=D, data="my_images", out="runs/mine")
    trainer.fit(steps=20_000)
    G = fastgan.load("runs/mine")

Everything is imported when first used, so that the command line starts at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastgan.errors import FastganError

if TYPE_CHECKING:
    from fastgan.engine.capture import capture
    from fastgan.engine.load import load, sample
    from fastgan.engine.stage import Stage
    from fastgan.engine.trainer import Trainer
    from fastgan.objectives import Adversarial, Noise, Objective, Phase
    from fastgan.swap import accelerate, report, revert

__version__ = "0.1.0"

_MODULES = ("data", "metrics", "objectives", "ops", "pictures", "recipes")
_WHERE = {
    "Trainer": "fastgan.engine.trainer",
    "accelerate": "fastgan.swap",
    "report": "fastgan.swap",
    "revert": "fastgan.swap",
    "capture": "fastgan.engine.capture",
    "Stage": "fastgan.engine.stage",
    "load": "fastgan.engine.load",
    "sample": "fastgan.engine.load",
    "Adversarial": "fastgan.objectives",
    "Noise": "fastgan.objectives",
    "Objective": "fastgan.objectives",
    "Phase": "fastgan.objectives",
}

__all__ = [
    "Adversarial",
    "FastganError",
    "Noise",
    "Objective",
    "Phase",
    "Stage",
    "Trainer",
    "accelerate",
    "capture",
    "load",
    "report",
    "revert",
    "sample",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(importlib.import_module(_WHERE[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"fastgan.{name}")
    raise AttributeError(f"module 'fastgan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE, *_MODULES])
