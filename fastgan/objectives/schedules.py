"""Schedules: functions from the step (0, 1, 2 ...) to a value.

They set optimiser options (lr, momentum) or an objective's scalars.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Constant:
    """Always `value`."""

    value: float

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class Linear:
    """From `start` to `end` over `steps` steps, beginning after `delay` steps; `end` from then
    on."""

    start: float
    end: float
    steps: int
    delay: int = 0

    def __call__(self, step: int) -> float:
        done = min(max((step - self.delay) / max(self.steps, 1), 0.0), 1.0)
        return self.start + (self.end - self.start) * done


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `start` to `end` over `steps` steps."""

    start: float
    end: float
    steps: int

    def __call__(self, step: int) -> float:
        done = min(step / max(self.steps, 1), 1.0)
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Exponential:
    """`start` / `rate`**step, never below `floor` (Goodfellow et al. 2014: 0.1 / 1.000004**step
    down to 1e-6)."""

    start: float
    rate: float
    floor: float = 0.0

    def __call__(self, step: int) -> float:
        return max(self.start * math.exp(-step * math.log(self.rate)), self.floor)
