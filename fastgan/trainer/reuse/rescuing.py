"""A rescue: what a run goes on with, and from where, after a collapse or a divergence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastgan.monitor import remedies
from fastgan.monitor.health import Alert
from fastgan.objectives import Adversarial, Objective
from fastgan.runs.checkpoint import Checkpoints
from fastgan.trainer.stages.stage import Stage


@dataclass(frozen=True)
class Rescue:
    """What `alert` leads to. to: the checkpoint that the run goes back to. options: by name, what
    it goes on with. before: what they were."""

    alert: Alert
    to: int
    options: dict[str, Any]
    before: dict[str, Any]

    def __str__(self) -> str:
        return f"back to step {self.to}, and on from there with {remedies.flags(self.options)}"

    def as_json(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "step": self.alert.step,
            "to": self.to,
            "cause": self.alert.cause,
            "evidence": self.alert.evidence,
            "options": self.options,
            "before": self.before,
        }

    def as_alert(self) -> Alert:
        """What stays in alerts.jsonl, at the step that the run goes back to."""
        evidence = f"at step {self.alert.step}: {self.alert.evidence}"
        return Alert(self.alert.cause, self.to, evidence, f"rescued: {self}")


def find(alert: Alert, config: Mapping[str, Any], checkpoints: Checkpoints) -> Rescue | str:
    """The rescue of a run with these options, or why there is none."""
    if alert.since is None:
        return "training may come back from it"
    options = remedies.changes(alert.cause, config)
    if not options:
        return "no option of this run may help"
    every = checkpoints.every or 1
    good = [s for s in checkpoints.steps() if s % every == 0 and s <= alert.since]
    if not good:
        return f"no checkpoint of up to step {alert.since} is left: raise --keep"
    return Rescue(alert, good[-1], options, {name: config.get(name) for name in options})


def options_of(objective: Objective) -> dict[str, Any]:
    """The options of an objective that a rescue can change, where no recipe stands between."""
    known = isinstance(objective, Adversarial)
    return {name: getattr(objective, name) for name in ("augment", "r1")} if known else {}


def changed(
    stages: Sequence[Stage], options: Mapping[str, Any], before: Mapping[str, Any]
) -> list[Stage]:
    """Stages whose objectives have these options, where they still have those of before."""
    found = []
    for stage in stages:
        own = options_of(stage.objective)
        new = {n: v for n, v in options.items() if n in own and own[n] == before.get(n)}
        if new:
            objective: Any = stage.objective
            stage = dataclasses.replace(stage, objective=dataclasses.replace(objective, **new))
        found.append(stage)
    return found
