"""What a run on a CPU computes with: precision and forms of convolutions, measured once, kept in
the run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from fastgan.cpu.identity import identity
from fastgan.cpu.layers import Look
from fastgan.cpu.measure import Choice, choose, forms_of
from fastgan.distributed.context import DistributedContext
from fastgan.ops.conv.formed import Forms
from fastgan.ops.dispatch import pytorch_at_once

StageForms = Mapping[str, Mapping[str, Forms]]


class CpuEngine:
    """Chooses for one run.

    on: whether there is a choice: one process on a CPU, with impl "auto". choice: of the stage that
    was entered last, None where nothing was measured.
    """

    def __init__(
        self, precision: str, impl: str, device: torch.device, ranks: DistributedContext
    ) -> None:
        here = device.type == "cpu" and ranks.world == 1
        self.on = here and pytorch_at_once(impl, torch.empty(0))
        self.precision = precision
        self.choice: Choice | None = None
        self._kept: StageForms | None = None

    def keep(self, precision: str, forms: Any = None) -> None:
        """What a run was trained with, instead of a measurement.

        Raises FastganError where a form is unknown.
        """
        if self.on and self.precision == "auto":
            self.precision = precision
        self._kept = forms_of(forms or {})

    def look(self, nets: Mapping[str, nn.Module]) -> AbstractContextManager[Look | None]:
        """Sees the convolutions of the networks inside, where there is something to choose."""
        return Look(nets) if self.on and self._kept is None else nullcontext()

    def choose(self, look: Look | None, times: float, layout: torch.memory_format) -> StageForms:
        """The forms of the stage that is entered; sets `choice` and `precision`.

        times: images of a step for each one seen. layout: forms put channels innermost, so networks
        that can't have that keep PyTorch's."""
        kept, self._kept = self._kept, None
        if kept is not None:
            return kept if self.on else {}
        if look is None:
            return {}
        layers = look.layers(times) if layout == torch.channels_last else []
        self.choice = choose(layers, self.precision)
        self.precision = self.choice.precision
        return self.choice.forms

    def facts(self) -> dict[str, Any] | None:
        """For run.json."""
        return None if self.choice is None else {**identity(), **self.choice.as_json()}

    def line(self) -> str | None:
        """What was chosen and why, for people."""
        if self.choice is None or not (self.choice.forms or "ms" in self.choice.why):
            return None
        count = sum(map(len, self.choice.forms.values()))
        layers = f"{count} layer{'s' * (count != 1)} by forms that are faster here"
        return (
            f"{self.choice.precision} ({self.choice.why}), {layers if count else 'no other form'}"
        )
