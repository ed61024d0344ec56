"""How far samples are from the reals, measured while a run trains, and which step was best."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from fastgan.data import Dataset
from fastgan.errors import FastganError
from fastgan.judges import instruments
from fastgan.judges.scores import Reference

SAMPLES = 500
"""Of each measurement: ten seconds of a core by the general network, less than one by the small."""

REALS = 2000
"""That samples are compared with, where there are so many."""


class Quality:
    """Distances of samples from the reals of the stage that is trained.

    Args:
        seed: Which reals are taken.
        device: Where the general network computes.

    Attributes:
        best: {"step", "score", "judge", "key"} of the smallest kernel distance of this stage, or
            None.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed, self.device = seed, device
        self.best: dict[str, Any] | None = None
        self._row: dict[str, float] = {}
        self._reference: Reference | None = None
        self._instrument: instruments.Instrument | None = None

    def enter(self, data: Dataset | None) -> None:
        """Measure against `data` from here on. Raises FastganError where that can't be done."""
        if data is None:
            raise FastganError("evaluate_every: there is no stream 'image' to compare with")
        instruments.check(data)
        self.best, self._row, self._reference, self._instrument = None, {}, None, None

    def observe(self, step: int, images: Tensor, data: Dataset) -> str:
        """Measure images float (n, C, H, W) in [0, 1]; a line about it. Raises FastganError."""
        if self._instrument is None:
            self._instrument = instruments.pick(data, self.device)
        judge = self._instrument
        if self._reference is None:
            dice = torch.Generator().manual_seed(self.seed)
            rows = torch.randperm(len(data), generator=dice)[:REALS].sort().values
            reals = instruments.reals_of(data, rows)
            if reals.shape[1:] != images.shape[1:]:
                raise FastganError(
                    f"samples are {tuple(images.shape[1:])}, real images {tuple(reals.shape[1:])}: "
                    "their distance can't be measured"
                )
            seen = [judge.features(part.float() / 255) for part in reals.split(500)]
            self._reference = Reference(torch.cat(seen))
        found = dataclasses.asdict(self._reference.scores(judge.features(images)))
        named = {
            f"{name.upper()}-{judge.name}" if name in ("fd", "kd") else name: value
            for name, value in found.items()
            if math.isfinite(value)
        }
        self._row = {f"evaluation/{name}": value for name, value in named.items()}
        if self.best is None or self.best["key"] != judge.key or found["kd"] < self.best["score"]:
            self.best = {"step": step, "score": found["kd"], "judge": judge.name, "key": judge.key}
        better = ", the best yet" if self.best["step"] == step else ""
        return f"step {step}: KD-{judge.name} {found['kd']:.4g}{better}"

    def take_row(self) -> dict[str, float]:
        """What was measured since the last row of metrics."""
        row, self._row = self._row, {}
        return row

    @property
    def best_step(self) -> int | None:
        return self.best["step"] if self.best is not None else None

    def state(self) -> dict[str, Any]:
        """What a checkpoint adds to its state, where anything was measured."""
        found = self.best is not None
        return {"evaluation": {"best": self.best, "row": self._row}} if found else {}

    def load(self, state: dict[str, Any]) -> None:
        self.best, self._row = state["best"], dict(state["row"])
