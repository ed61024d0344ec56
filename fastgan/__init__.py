"""fastgan: train GANs fast, on kernels that are proven against PyTorch references.

    trainer = fastgan.Trainer(generator=G, discriminator=D, data="my_images", out="runs/mine")
    trainer.fit(steps=20_000)
    G = fastgan.load("runs/mine")

Everything is imported when first used, so that the command line starts at once.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from fastgan.errors import FastganError

if TYPE_CHECKING:
    from fastgan.acceleration import accelerate, report, revert
    from fastgan.graphs.capture import capture
    from fastgan.objectives import Adversarial, Noise, Objective, Phase
    from fastgan.trainer.callbacks import Callback
    from fastgan.trainer.reuse.load import load, sample
    from fastgan.trainer.stages.stage import Stage
    from fastgan.trainer.trainer import Trainer

__version__ = "0.1.0"

# A checkout without symbolic links: kernels/ and bench/ lie beside this folder.
if not os.path.isdir(os.path.join(__path__[0], "kernels")):
    __path__.append(os.path.dirname(__path__[0]))

_MODULES = ("data", "metrics", "objectives", "ops", "recipes")
_WHERE = {
    "Trainer": "fastgan.trainer.trainer",
    "Callback": "fastgan.trainer.callbacks",
    "accelerate": "fastgan.acceleration",
    "report": "fastgan.acceleration",
    "revert": "fastgan.acceleration",
    "capture": "fastgan.graphs.capture",
    "Stage": "fastgan.trainer.stages.stage",
    "load": "fastgan.trainer.reuse.load",
    "sample": "fastgan.trainer.reuse.load",
    "Adversarial": "fastgan.objectives",
    "Noise": "fastgan.objectives",
    "Objective": "fastgan.objectives",
    "Phase": "fastgan.objectives",
}

__all__ = [
    "Adversarial",
    "Callback",
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
    if name == "pictures":
        return importlib.import_module("fastgan.monitor.pictures")
    raise AttributeError(f"module 'fastgan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE, *_MODULES])
