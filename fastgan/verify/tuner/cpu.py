"""`fastgan tune` on a CPU: the forms of the recipes' convolutions, into this CPU's table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fastgan.cpu import table
from fastgan.cpu.layers import Look, operations
from fastgan.cpu.measure import TYPES, measure
from fastgan.errors import FastganError
from fastgan.objectives.base import draw
from fastgan.recipes import ImageSpec, find

BATCH = 4

MEASURED = ("gan", "dcgan", "cgan", "sngan", "fastgan", "wgan-gp")
"""Recipes whose layers are measured ahead; other shapes are measured when a training begins."""


def run(types: Sequence[str], budget: float, say: Callable[[str], None]) -> int:
    """Measure what the table lacks, each recipe at its own size and batch, within a budget of
    seconds; 0 if everything was reached, 1 if some is left. Raises FastganError."""
    if unknown := [name for name in types if name not in TYPES]:
        raise FastganError(f"--type {unknown[0]}: on a CPU forms are measured in fp32 and bf16")
    layers = []
    for name in MEASURED:
        config = find(name)()
        size, channels = config.defaults_for()
        images = ImageSpec(size or 32, channels or 3, classes=10)
        built = config.build(images)
        assert built.objective is not None
        noise = draw(built.objective.noise, 0, torch.zeros((), dtype=torch.int64), BATCH)
        label = (torch.zeros(BATCH, dtype=torch.int64),)
        given = label if getattr(built.objective, "conditional", False) else ()
        with Look(built.nets) as look:
            fake = built.nets["G"](noise["z"], *given)
            built.nets["D"](fake, *given)
        layers += look.layers(config.batch_size / BATCH)
    found = measure(layers, types, budget)
    whole = table.load()
    wanted = [o.key(name) for o in operations(layers) for name in types]
    for key in wanted:
        if (form := whole.form(key)) != "onednn":
            times = found.operations[key]
            say(f"{key}: {form}, {times[form]:.3f} ms, PyTorch's own {times['onednn']:.3f}")
    left = sum(key not in whole.operations for key in wanted)
    where = f"{len(wanted) - left} operations in {table.path()}"
    say(where + (f"; {left} left, run again" if left else ""))
    return int(left > 0)
