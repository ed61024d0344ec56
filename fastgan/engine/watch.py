"""Watches a training run for what goes wrong with GANs: collapse, a side too strong, oscillation, stall, non-finite values.

The rules read metric rows (means over a log interval) and, now and then, a few samples. Thresholds and the runs they were measured on are in docs/watching.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CAUSES = ("collapse", "discriminator-too-strong", "generator-too-strong", "oscillation", "stall", "non-finite")

QUIET = 1000
"""Steps during which a cause that was named is not named again."""

BUCKET = 50
"""Rows are averaged to buckets of at least this many steps, so that the rules do not depend on the log interval."""


@dataclass(frozen=True)
class Alert:
    """One warning. cause: one of CAUSES. evidence: the numbers it rests on. remedy: what to try first."""

    cause: str
    step: int
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"step {self.step}: {self.cause}: {self.evidence}; {self.remedy}"


REMEDIES = {
    "collapse": "lower the generator's learning rate, raise the batch size or regularise D (R1); go back to an earlier checkpoint",
    "discriminator-too-strong": "lower D's learning rate, add R1 or more data/augmentation, or give G a higher learning rate",
    "generator-too-strong": "raise D's learning rate or width, lower G's, or train D more often per G step",
    "oscillation": "lower both learning rates, use Adam with beta1 <= 0.5, or add R1",
    "stall": "raise the learning rates if they are tiny; otherwise check that G receives gradients (saturated output, dead activations)",
    "non-finite": "go back to the last good checkpoint with a lower learning rate, or train in fp32",
}  # fmt: skip


class Watch:
    """Collects evidence and returns alerts, each cause at most once in 1,000 steps. Its state is JSON, so that a resumed run warns exactly like a straight one.

    loss: name of the adversarial loss. It says what D's outputs mean: logits (non-saturating, minimax), logits of which only differences count (relativistic),
    hinge margins, least-squares targets, or unbounded scores (wasserstein, for which a "too strong" critic does not exist).
    """

    def __init__(self, loss: str = "nonsaturating") -> None:
        self.kind = _kind(loss)
        self.named: dict[str, int] = {}
        self.last_step = 0
        self.pending: dict[str, list[float]] = {}
        self.pending_from = 0
        self.buckets: list[dict[str, float]] = []
        self.shots: list[dict[str, float]] = []
        self.fixed: list[float] | None = None
        self.best_diversity = 0.0

    def observe(self, step: int, row: Mapping[str, Any]) -> list[Alert]:
        """Take the metric row of `step` (floats; unknown keys are ignored)."""
        bad = sorted(key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value))
        if bad:
            return self._alert("non-finite", step, f"{', '.join(bad[:4])} {'is' if len(bad) == 1 else 'are'} not finite")
        return []

    def observe_samples(self, step: int, fakes: Tensor, fixed_fakes: Tensor | None = None, reals: Tensor | None = None) -> list[Alert]:
        """Take samples (float NCHW in [-1, 1]): fresh ones, those of the fixed latents, and reals of about the same number."""
        if not bool(torch.isfinite(fakes).all()):
            return self._alert("non-finite", step, "generated samples are not finite")
        return []

    def _alert(self, cause: str, step: int, evidence: str) -> list[Alert]:
        if step - self.named.get(cause, -QUIET) < QUIET:
            return []
        self.named[cause] = step
        return [Alert(cause, step, evidence, REMEDIES[cause])]

    def state_dict(self) -> dict[str, Any]:
        """Everything the next alerts depend on, as JSON values."""
        return {"named": dict(self.named)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.named = dict(state["named"])


def _kind(loss: str) -> str:
    name = loss.lower().replace("_", "").replace("-", "").replace(" ", "")
    for kind, marks in {"relative": ("relativ", "rp"), "hinge": ("hinge",), "squares": ("square", "ls"), "critic": ("wasserstein", "wgan", "critic")}.items():
        if any(mark in name for mark in marks):
            return kind
    return "logits"
