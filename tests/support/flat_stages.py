"""Stages of a tiny DCGAN, whose Adam is FlatAdam where the fixture `flattened` says so."""

import torch
from run_support import images

import fastgan
from fastgan.models.dcgan import Discriminator, Generator
from fastgan.ops.adam.optimizer import FlatAdam
from fastgan.precision import resolve
from fastgan.trainer.stages.active import ActiveStage
from fastgan.trainer.stages.stage import Stage, open_streams

CPU = torch.device("cpu")


CONV = {"G": (Generator, (16, 1, 8, 2)), "D": (Discriminator, (16, 1, 2))}


def stage_of(
    objective=None,
    optimizers=None,
    graphs=None,
    precision="fp32",
    schedules=None,
    nets=None,
    **options,
):
    torch.manual_seed(0)
    nets = nets or {name: make(*arguments) for name, (make, arguments) in CONV.items()}
    data = open_streams(images(40, 16), size=None, channels=None, strict=False)
    objective = objective or fastgan.Adversarial(latent_shape=(8, 1, 1), r1=1.0, lazy_r1=3)
    stage = Stage(nets, objective, optimizers=optimizers, schedules=schedules or {}, ema=("G",))
    common = {
        "index": 0,
        "seed": 3,
        "batch_size": 8,
        "ema_decay": 0.9,
        "flip": True,
        "device": CPU,
        "resident_bytes": 2**31,
    }
    layout = {"memory_format": torch.channels_last}
    return ActiveStage(
        stage,
        data,
        precision=resolve(precision, CPU),
        graphs=graphs,
        **{**common, **layout, **options},
    )


def plain_adam(p):
    """torch's single-tensor Adam, whose arithmetic FlatAdam's reference path repeats."""
    return torch.optim.Adam(p, 2e-3, (0.5, 0.999), foreach=False, fused=False)


def is_flat(stage):
    return [isinstance(stage.optimizers[name], FlatAdam) for name in "GD"]
