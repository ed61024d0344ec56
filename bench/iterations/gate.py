"""A row's time counts only after its gradients pass: from one saved state at several steps, against
float64."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fastgan.bench.iterations.measure import sync
from fastgan.bench.iterations.ours import Ours, inputs_at
from fastgan.bench.iterations.pieces import Gradients, Inputs, Options
from fastgan.bench.iterations.plain import Plain
from fastgan.bench.iterations.suites import Suite

STEPS = (0, 50, 500)
FACTOR = 2.0
"""Times row c's error."""
FLIP = 2e-3
"""Relative error up to which rows that compute in fp32 (a CPU's) count as equal: one activation
whose sign rounding decides moves a network's gradient by up to 1e-3, in PyTorch's own rows as in
ours, or does not. In bf16 there are thousands of them, and twice row c's error is the bound alone.
"""

State = dict[str, dict[str, Tensor]]


def error(found: Sequence[Tensor], gold: Sequence[Tensor]) -> float:
    """Relative L2 error over all parameters of one network, in float64. inf where shapes differ or
    a value is not finite."""
    if len(found) != len(gold) or any(f.shape != g.shape for f, g in zip(found, gold)):
        return float("inf")
    wrong = sum(
        float((f.to(g.device).double() - g.double()).square().sum()) for f, g in zip(found, gold)
    )
    size = sum(float(g.double().square().sum()) for g in gold)
    value = (wrong / size) ** 0.5 if size else float(wrong > 0)
    return value if np.isfinite(value) else float("inf")


@dataclass
class Verdict:
    """errors: {step: {network: relative error}}. allowed: the same, twice row c's. worst: the
    largest quotient of the two, found at `where` with an error of `value`.
    """

    errors: dict[int, dict[str, float]]
    allowed: dict[int, dict[str, float]]
    worst: float = 0.0
    where: str = ""
    value: float = 0.0

    @property
    def passed(self) -> bool:
        return self.worst <= 1.0

    def line(self) -> str:
        """One line for people."""
        said = (
            f"gradient error {self.value:.1e}, {self.worst:.2f} of what is allowed ({self.where})"
        )
        return said if self.passed else f"{said}: not timed"


@dataclass
class Gate:
    """Saved states, their float64 gradients, and row c's errors on them."""

    suite: Suite
    arrays: Mapping[str, np.ndarray]
    device: torch.device
    steps: tuple[int, ...] = STEPS
    states: dict[int, State] = field(default_factory=dict)
    gold: dict[int, Gradients] = field(default_factory=dict)
    inputs: dict[int, Inputs] = field(default_factory=dict)
    reference: dict[int, dict[str, float]] = field(default_factory=dict)
    low_reference: dict[int, dict[str, float]] = field(default_factory=dict)
    """On a CPU: of row c in bf16, which rows that compute in bf16 are held against."""

    def prepare(self, until: float = float("inf")) -> None:
        """Train fp32 to each step, take float64 gradients there, and row c's. Raises what PyTorch
        raises.

        until: on time.monotonic's clock; a step that training would not reach in half of what is
            left is taken from `steps`.
        """
        trained = Plain(self.suite, Options("fp32"), self.arrays, self.device, dropout=False)
        exact = Plain(self.suite, Options("fp64"), self.arrays, self.device, dropout=False)
        count = len(next(iter(self.arrays.values())))
        done, pace = 0, 0.0
        for at in self.steps:
            if at and (at - done) * pace > (until - time.monotonic()) / 2:
                self.steps = tuple(step for step in self.steps if step < at)
                break
            started = time.perf_counter()
            with trained.flags():
                for _ in range(at - done):
                    trained.step()
            sync(self.device)
            pace, done = (time.perf_counter() - started) / max(at - done, 1), at
            self.states[at] = trained.state()
            self.inputs[at] = inputs_at(self.suite, at, count, self.device)
            with exact.flags():
                found = exact.gradients(self.states[at], self.inputs[at])
            self.gold[at] = {name: [g.cpu() for g in grads] for name, grads in found.items()}
        trained.close()
        exact.close()
        row_c = Plain(self.suite, Options(), self.arrays, self.device, dropout=False)
        self.reference = self.measure(row_c)
        row_c.close()

    def measure(self, row: Plain | Ours) -> dict[int, dict[str, float]]:
        """The row's errors."""
        found: dict[int, dict[str, float]] = {}
        with row.flags():
            for at in self.steps:
                if isinstance(row, Plain):
                    given = row.gradients(self.states[at], self.inputs[at])
                else:
                    given = row.gradients(self.states[at], at)
                found[at] = {
                    name: error(given.get(name, []), gold) for name, gold in self.gold[at].items()
                }
        return found

    def judge(self, row: Plain | Ours) -> Verdict:
        """Whether each network's error at each step is at most twice row c's."""
        errors = self.measure(row)
        on_cpu = self.device.type == "cpu"
        least = FLIP if on_cpu and not row.low else 1e-12
        if on_cpu and row.low and not self.low_reference:
            options = Options(everywhere=True)
            low_c = Plain(self.suite, options, self.arrays, self.device, dropout=False)
            self.low_reference = self.measure(low_c)
            low_c.close()
        reference = self.low_reference if on_cpu and row.low else self.reference
        allowed = {
            at: {name: max(FACTOR * value, least) for name, value in nets.items()}
            for at, nets in reference.items()
        }
        verdict = Verdict(errors, allowed)
        for at, nets in errors.items():
            for name, value in nets.items():
                quotient = value / allowed[at][name]
                if quotient >= verdict.worst:
                    verdict.worst, verdict.where, verdict.value = (
                        quotient,
                        f"{name} at step {at}",
                        value,
                    )
        return verdict
