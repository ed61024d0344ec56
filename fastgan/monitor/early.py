"""What the watch can tell at its first looks: signs that no training comes back from by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

DENSE = 300
"""Up to this step samples are looked at every 50 steps, later every 200."""

NOISE_FROM, NOISE_SPREAD = 250, 0.08
"""From this step on samples may not be closer to each other than this part of what parts reals."""

TINY = 1e-6
"""Learning rates up to here change nothing: Adam moves a weight by about that much a step."""

FAR = 8
"""Times the margin from which D is too strong: no run in the fixtures came back from that."""


CRITIC = 2000
"""A Wasserstein critic that a penalty keeps at slope 1 tells images of 1024x1024 in colour apart by
at most 2 sqrt(3 * 1024 * 1024), about 3500; small ones by a tenth of that."""


def look_due(step: int) -> bool:
    """Whether samples are looked at after `step` steps."""
    return step % (50 if step <= DENSE else 200) == 0


def constant(fakes: Tensor) -> str | None:
    """Evidence that the generator gives one and the same image, whatever its input."""
    apart = float((fakes - fakes[:1]).abs().max())
    if apart > 1e-5:
        return None
    return f"all {len(fakes)} samples are one and the same image: the generator ignores its input"


def blind(bucket: Mapping[str, float]) -> str | None:
    """Evidence that D gives one and the same output, whatever it is shown."""
    if "margin" not in bucket or abs(bucket["margin"]) > 1e-6 * max(1.0, abs(bucket["real"])):
        return None
    return f"D gives {bucket['real']:.3g} on reals and fakes alike: it does not look at the images"


def noise(
    step: int, looks: Sequence[Mapping[str, float]], bucket: Mapping[str, float], limits: Any
):
    """Evidence that D is always right while the samples are alike and do not come apart."""
    now = looks[-1]
    before = [look for look in looks if look["step"] <= step - 100]
    if step < NOISE_FROM or now["spread"] >= NOISE_SPREAD or not before:
        return None
    certain = bucket.get("margin", 0.0) >= limits.strong_margin / 2 and (
        limits.strong_accuracy is None or bucket.get("accuracy", 1.0) >= limits.strong_accuracy
    )
    if not certain or now["spread"] > 1.25 * before[-1]["spread"]:
        return None
    return (
        f"samples are alike ({now['spread']:.2f} times as far apart as reals, and "
        f"{before[-1]['spread']:.2f} at step {int(before[-1]['step'])}), while D is always right "
        f"(margin {bucket['margin']:.3g})"
    )


def runaway(buckets: Sequence[Mapping[str, float]], limits: Any) -> str | None:
    """Evidence that D's margin has left all bounds."""
    margins = [b.get("margin", 0.0) for b in buckets[-2:]]
    if math.isinf(limits.strong_margin):
        if len(margins) < 2 or min(margins) < CRITIC:
            return None
        return (
            f"the critic's outputs lie {margins[-1]:.3g} apart on reals and fakes: nothing holds "
            "it, and the run may diverge"
        )
    if len(margins) < 2 or not FAR * limits.strong_margin <= min(margins) < 1000:
        return None  # larger ones are a divergence
    return (
        f"D's outputs lie {margins[-1]:.3g} apart on reals and fakes, where "
        f"{limits.strong_margin:g} is much: G gets no gradient, and the run may diverge"
    )


def asleep(rates: Mapping[str, float]) -> str | None:
    """Evidence that networks can't learn. rates: the largest learning rate of each one's
    optimiser, now and in the next steps of its schedule."""
    slow = {name: rate for name, rate in rates.items() if rate <= TINY}
    if not slow:
        return None
    named = " and ".join(f"{name}'s learning rate is {rate:g}" for name, rate in slow.items())
    return f"{named}: its weights hardly move"
