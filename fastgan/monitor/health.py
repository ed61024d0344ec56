"""Watches a training run for what goes wrong with GANs: collapse, a side too strong, oscillation,
stall, non-finite values.

The rules read metric rows (means over a log interval) and, now and then, a few samples. What each
threshold rests on, and the runs it was tried on, is in docs/watching.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastgan.monitor import early
from fastgan.monitor.evidence import (
    describe,
    distances,
    facts_of,
    last_run,
    lead_changes,
    mean_of,
    swing_of,
)
from fastgan.ops.loss_table import LOSSES

QUIET = 1000
"""Steps during which a cause that was named is not named again."""

BUCKET = 25
"""Rows are averaged to buckets of at least this many steps: 25 batches of 64 give accuracies to
about 0.01."""

SPAN = 500
"""Steps for which a side must be too strong, or samples stand still, before it is said."""

MEMORY = 1000
"""Steps over which swings are counted."""

LOW_SPREAD, LOW_NEAREST = 0.4, 0.2
"""Collapse: mean distance between samples, or median distance to the nearest other sample, against
the reals'."""

LEARNING = 200
"""Steps in which a generator may make one grey image and be healthy."""

STILL = 0.01
"""Stall: mean change of the samples from fixed latents, against the mean distance between reals."""

REMEDIES = {
    "collapse": "go back to an earlier checkpoint; lower the learning rates, raise the batch size "
    "or regularise D (R1)",
    "discriminator-too-strong": "lower D's learning rate, regularise D (R1), or use more data",
    "generator-too-strong": "raise D's learning rate or width, or lower G's learning rate",
    "oscillation": "lower both learning rates, use Adam with beta1 <= 0.5, or regularise D (R1)",
    "stall": "raise the learning rates if they are tiny; otherwise look for a generator that gets "
    "no gradient (saturated output)",
    "non-finite": "go back to the last good checkpoint with a lower learning rate, or train in "
    "fp32",
}


@dataclass(frozen=True)
class Alert:
    """One warning. cause: a key of REMEDIES. evidence: the numbers it rests on. remedy: what to try
    first. since: the last step at which all was well, of an illness that training seldom comes back
    from by itself (a collapse, noise, a divergence); None for all others."""

    cause: str
    step: int
    evidence: str
    remedy: str
    since: int | None = None

    def __str__(self) -> str:
        return f"step {self.step}: {self.cause}: {self.evidence}. Try: {self.remedy}"


@dataclass(frozen=True)
class Limits:
    """What D's outputs mean under a family of losses, as thresholds. `margin` is mean output on
    reals minus mean output on fakes.

    D is too strong from (strong_accuracy, strong_margin) on, too weak below (weak_accuracy,
    weak_margin); an accuracy of None is not looked at.
    """

    strong_accuracy: float | None
    strong_margin: float
    weak_accuracy: float | None
    weak_margin: float


LIMITS = {
    # Healthy DCGANs reach accuracies of 0.995 with margins up to 11; sigmoid(-6) leaves G 0.2 % of
    # a clear-cut decision.
    "logits": Limits(0.995, 12.0, 0.56, 0.1),
    "relativistic": Limits(
        None, 12.0, None, 0.05
    ),  # only differences of outputs are trained: zero means nothing
    "hinge": Limits(0.995, 3.0, 0.56, 0.1),  # beyond a margin of 2 D's loss is zero
    "least-squares": Limits(None, 0.97, None, 0.03),  # targets 1 and 0
    "wasserstein": Limits(None, math.inf, None, 0.0),  # a strong critic is the aim
}


def limits(loss: str) -> Limits:
    """How D's outputs are read under a loss of the table; those of an objective's own loss count as
    logits."""
    return LIMITS[LOSSES[loss].outputs if loss in LOSSES else "logits"]


class Health:
    """Collects evidence and returns alerts, each cause at most once in 1,000 steps.

    loss: name of the adversarial loss; it decides how D's outputs are read (`limits`). The state is
    JSON and complete: a resumed run warns exactly like a straight one.
    """

    def __init__(self, loss: str = "non-saturating") -> None:
        self.limits = limits(loss)
        self.named: dict[str, int] = {}
        self.last_step = 0
        self.reset()

    def enter(self, loss: str) -> None:
        """Begin a stage with another loss."""
        self.limits = limits(loss)
        self.reset()

    def reset(self) -> None:
        """Forget the evidence (not what was named): networks or data have changed, as between the
        stages of a pyramid."""
        self.pending: dict[str, float] = {}
        self.pending_weight: dict[str, float] = {}
        self.buckets: list[dict[str, float]] = []
        self.looks: list[dict[str, float]] = []
        self.fixed: list[list[int]] = []
        self.fixed_step = 0
        self.best_spread = 0.0
        self.top_rate = 0.0

    def observe(self, step: int, row: Mapping[str, Any]) -> list[Alert]:
        """Take the metric row of `step`: floats by key ("loss/D", "D/logit_real", "D/acc_fake",
        ...). Any may be missing."""
        numbers = {
            key: float(value) for key, value in row.items() if isinstance(value, (int, float))
        }
        if bad := sorted(key for key, value in numbers.items() if not math.isfinite(value)):
            return self._alert(
                "non-finite",
                step,
                f"{', '.join(bad[:4])} {'is' if len(bad) == 1 else 'are'} not finite",
            )
        weight = max(step - self.last_step, 1)
        self.last_step = step
        for key, value in facts_of(numbers).items():
            self.pending[key] = self.pending.get(key, 0.0) + weight * value
            self.pending_weight[key] = self.pending_weight.get(key, 0.0) + weight
        steps = max(self.pending_weight.values(), default=0.0)
        if steps < BUCKET:
            return []
        bucket = {key: total / self.pending_weight[key] for key, total in self.pending.items()}
        self.pending, self.pending_weight = {}, {}
        self.top_rate = max(self.top_rate, bucket.get("rate", 0.0))
        self.buckets = [b for b in self.buckets if b["to"] > step - MEMORY] + [
            {"from": step - steps, "to": step, **bucket}
        ]
        if evidence := early.blind(bucket):
            return self._alert("stall", step, evidence)
        return self._judge_growth(step) or [*self._judge_strength(step), *self._judge_swings(step)]

    def observe_samples(
        self,
        step: int,
        fakes: Tensor,
        fixed_fakes: Tensor | None = None,
        reals: Tensor | None = None,
        rates: Mapping[str, float] | None = None,
    ) -> list[Alert]:
        """Take a few images, float NCHW in [-1, 1]: fresh samples, those of the fixed latents, and
        about as many reals; and the networks' learning rates.

        Without reals nothing is said about collapse and stall. At most 64 images of each are used.
        """
        fake = describe(fakes)
        if not bool(torch.isfinite(fake).all()):
            return self._alert("non-finite", step, "generated images are not finite", step - 1)
        if reals is None or len(fake) < 4 or len(reals) < 4:
            return []
        real_spread, real_nearest = distances(describe(reals))
        if real_spread <= 0:
            return []
        spread, nearest = distances(fake)
        look = {"step": float(step), "spread": spread / real_spread}
        # Few or repeated reals put the nearest one at distance 0, which says nothing about the
        # samples.
        look["nearest"] = nearest / max(real_nearest, 0.1 * real_spread)
        if fixed_fakes is not None:
            # Sixteen images in whole thousandths: this goes into every checkpoint.
            now = (describe(fixed_fakes[:16]) * 1000).round()
            if self.fixed and len(self.fixed) == len(now) and len(self.fixed[0]) == now.shape[1]:
                moved = (now - torch.tensor(self.fixed)).norm(dim=1).mean() / 1000
                look["moved"] = float(moved) / real_spread
                look["since"] = float(self.fixed_step)
            # Change is measured over at least 100 steps, however often samples are shown.
            if not self.fixed or step - self.fixed_step >= 100:
                self.fixed, self.fixed_step = now.int().tolist(), step
        self.looks = [*self.looks, look][-64:]
        if evidence := early.asleep(rates or {}):
            return self._alert("stall", step, evidence)
        if evidence := early.constant(fakes):
            return self._alert("collapse", step, evidence, self._look_before(1))
        latest = self.buckets[-1] if self.buckets else {}
        if evidence := early.noise(step, self.looks, latest, self.limits):
            alike = last_run(self.looks, lambda look: look["spread"] < early.NOISE_SPREAD)
            return self._alert("collapse", step, evidence, self._look_before(len(alike)))
        return [*self._judge_stillness(step), *self._judge_diversity(step)]

    @property
    def diversity(self) -> float | None:
        """Mean distance between the last samples against the reals' (1: as diverse as the data),
        None before the first look."""
        return self.looks[-1]["spread"] if self.looks else None

    def state_dict(self) -> dict[str, Any]:
        """Everything the next alerts depend on, as JSON values."""
        return {key: getattr(self, key) for key in _STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        for key in _STATE:
            setattr(self, key, state[key])

    def _alert(self, cause: str, step: int, evidence: str, since: int | None = None) -> list[Alert]:
        if cause in self.named and step - self.named[cause] < QUIET:
            return []
        self.named[cause] = step
        return [Alert(cause, step, evidence, REMEDIES[cause], since)]

    def _look_before(self, count: int) -> int:
        """The step of the look before the last `count`; 0 where there is none."""
        return int(self.looks[-count - 1]["step"]) if len(self.looks) > count else 0

    def _small_until(self, key: str, most: float) -> int:
        """The end of the last bucket in which a value, by its size, was at most that; 0: of
        none."""
        ends = [b["to"] for b in self.buckets if abs(b.get(key, math.inf)) <= most]
        return int(ends[-1]) if ends else 0

    def _judge_strength(self, step: int) -> list[Alert]:
        limits = self.limits
        if evidence := early.runaway(self.buckets, limits):
            since = self._small_until("margin", limits.strong_margin)
            return self._alert("discriminator-too-strong", step, evidence, since)
        recent = [b for b in self.buckets if b["to"] > step - SPAN]
        if not recent or recent[0]["from"] > step - SPAN or any("margin" not in b for b in recent):
            return []

        def all_of(
            test: Callable[[float, float], bool], accuracy: float | None, margin: float
        ) -> bool:
            return all(
                test(b["margin"], margin)
                and (accuracy is None or "accuracy" not in b or test(b["accuracy"], accuracy))
                for b in recent
            )

        facts = (
            f"over {SPAN} steps D's outputs are {mean_of(recent, 'real'):.3g} on reals and "
            f"{mean_of(recent, 'fake'):.3g} on fakes"
        )
        if any("accuracy" in b for b in recent):
            facts += f", its accuracy {mean_of(recent, 'accuracy'):.3f}"
        if all_of(float.__ge__, limits.strong_accuracy, limits.strong_margin):
            return self._alert("discriminator-too-strong", step, facts)
        if all_of(float.__le__, limits.weak_accuracy, limits.weak_margin):
            if all(swing_of(recent, key) < 0.01 for key in ("margin", "loss_g", "loss_d")):
                return self._alert(
                    "stall", step, facts + ", and no loss has moved by 0.01: neither network learns"
                )
            return self._alert("generator-too-strong", step, facts + ": it can't tell them apart")
        return []

    def _judge_growth(self, step: int) -> list[Alert]:
        """D's outputs without bound: the run diverges long before a value overflows. Scores of a
        Wasserstein critic may drift."""
        recent = self.buckets[-4:]
        sizes = [abs(b[key]) for b in recent for key in ("real", "fake") if key in b]
        if (
            len(recent) < 4
            or math.isinf(self.limits.strong_margin)
            or not sizes
            or min(sizes) < 1000
        ):
            return []
        since = min(self._small_until(key, 100.0) for key in ("real", "fake"))
        evidence = f"D's outputs have grown to {max(sizes):.2g}: the run diverges"
        return self._alert("oscillation", step, evidence, since)

    def _judge_swings(self, step: int) -> list[Alert]:
        """D wins nearly always, then is beaten, and again: at least four changes of the lead within
        MEMORY steps."""
        if self.limits.strong_accuracy is None:
            changes = lead_changes(
                [b["margin"] for b in self.buckets if "margin" in b], *self._margin_band()
            )
            what = "the margin of D's outputs"
        else:
            changes = lead_changes(
                [b["accuracy"] for b in self.buckets if "accuracy" in b], 0.75, 0.95
            )
            bias = lead_changes([b["bias"] for b in self.buckets if "bias" in b], -0.5, 0.5)
            what = "D's accuracy"
            if bias > changes:
                changes, what = bias, "D's preference for calling images real"
        if changes < 4:
            return []
        first = int(self.buckets[0]["from"])
        return self._alert(
            "oscillation",
            step,
            f"{what} swung from one extreme to the other {changes} times since step {first}",
        )

    def _margin_band(self) -> tuple[float, float]:
        """Where accuracies mean nothing: the margin falls below a fifth of its usual size, or below
        0, and grows above twice."""
        sizes = sorted(abs(b["margin"]) for b in self.buckets if "margin" in b)
        usual = sizes[len(sizes) // 2] if sizes else 0.0
        return 0.2 * usual, 2.0 * usual

    def _judge_stillness(self, step: int) -> list[Alert]:
        run = last_run(self.looks, lambda look: look.get("moved", 1.0) < STILL)
        if len(run) < 3 or step - run[0]["since"] < SPAN:
            return []
        latest = self.buckets[-1] if self.buckets else {}
        # A learning rate that was scheduled down ends a run in stillness, as it should.
        ended = self.top_rate > 0 and latest.get("rate", self.top_rate) < 0.1 * self.top_rate
        # Where D can't tell samples from reals there is nothing left to learn; networks that never
        # learned are seen elsewhere.
        settled = abs(latest.get("margin", 1.0)) <= self.limits.weak_margin and (
            self.limits.weak_accuracy is None
            or latest.get("accuracy", 0.5) <= self.limits.weak_accuracy
        )
        if ended or settled:
            return []
        since, most = int(run[0]["since"]), max(look["moved"] for look in run)
        facts = (
            f"since step {since} samples from fixed latents have moved by at most "
            f"{100 * most:.1g} % of what parts two reals"
        )
        if "margin" in latest:
            facts += f", though D tells them from reals (margin {latest['margin']:.3g})"
        return self._alert("stall", step, facts)

    def _judge_diversity(self, step: int) -> list[Alert]:
        now = self.looks[-1]
        run = last_run(
            self.looks, lambda look: look["spread"] < LOW_SPREAD or look["nearest"] < LOW_NEAREST
        )
        if not run:
            self.best_spread = max(self.best_spread, now["spread"])
            return []
        # An untrained generator makes one grey image: only samples that were diverse, or had SPAN
        # steps, can collapse.
        fell = self.best_spread >= 0.6 or now["spread"] < 0.5 * self.best_spread
        began = run[0]["step"] if fell else max(run[0]["step"], LEARNING)
        if len(run) < 3 or step - began < (200 if fell else SPAN):
            return []
        # One that never was diverse may come apart slowly, first within its few kinds of images;
        # close to each other but all different is less diverse than reals, and no collapse.
        recovering = any(now[k] > 1.25 * run[-3][k] for k in ("spread", "nearest")[: 2 - fell])
        different = now["spread"] >= LOW_SPREAD / 2 and now["nearest"] >= LOW_NEAREST
        unmoved = all(look.get("moved", 1.0) < STILL for look in run[-3:])
        if recovering or (not fell and (unmoved or different)):
            return []
        facts = f"since step {int(run[0]['step'])} ({len(run)} looks) samples are alike: "
        facts += f"{now['spread']:.2f} times as far apart as reals, nearest neighbours "
        facts += f"{now['nearest']:.2f} times, "
        facts += f"after {self.best_spread:.2f} at best" if fell else "and they never were diverse"
        return self._alert("collapse", step, facts, self._look_before(len(run)) if fell else 0)


_STATE = (
    "named",
    "last_step",
    "pending",
    "pending_weight",
    "buckets",
    "looks",
    "fixed",
    "fixed_step",
    "best_spread",
    "top_rate",
)
