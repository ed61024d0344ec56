"""The noise of coming steps, drawn many steps at once on the CPU."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from fastgan.kernels.common import INTERPRET
from fastgan.objectives.base import Named, Noise, draw

NUMBERS = 1 << 14
"""Numbers of one draw, about: a draw of ten costs PyTorch as many operators, and nearly as long, as
one of thousands."""

STEPS = 1 if INTERPRET else 64
"""Most steps of one draw; the interpreter takes as long for each sample."""


class NoiseBuffer:
    """Noise by step, as `draw` gives it. Draws begin at multiples of a fixed number of steps: where
    a run was stopped changes nothing.

    rounds: fresh batches of a step. batch_size: samples of each.
    """

    def __init__(self, noise: Mapping[str, Noise], seed: int, batch_size: int, rounds: int) -> None:
        self.noise, self.seed, self.batch_size, self.rounds = noise, seed, batch_size, rounds
        numbers = rounds * batch_size * sum(math.prod(spec.shape) for spec in noise.values())
        self.steps = max(1, min(STEPS, NUMBERS // max(numbers, 1)))
        self._block = -1
        self._drawn = Named()

    def of(self, step: int) -> list[Named]:
        """The noise of each round of `step`."""
        block, within = divmod(step, self.steps)
        size = self.rounds * self.batch_size
        if block != self._block:
            self._drawn = draw(
                self.noise, self.seed, torch.tensor(block * self.steps * size), self.steps * size
            )
            self._block = block
        starts = range(within * size, (within + 1) * size, self.batch_size)
        return [
            Named({name: value[at : at + self.batch_size] for name, value in self._drawn.items()})
            for at in starts
        ]
