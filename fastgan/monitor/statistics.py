"""What the losses log, gathered on the device and read once per log interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastgan.distributed.context import DistributedContext


class Statistics:
    """A window of `size` steps of named scalars in one device tensor; writing never reads the
    device.

    Lazy terms are absent from most steps: a host-side mask says which entries count, so a row holds
    means over the steps that computed the term.
    """

    def __init__(
        self, size: int, device: torch.device, ranks: DistributedContext | None = None
    ) -> None:
        self.size, self.device, self.ranks = size, device, ranks or DistributedContext()
        self.names: list[str] = []
        self.values = torch.zeros(size, 0, device=device)
        self.seen = np.zeros((size, 0), bool)
        self.filled = 0
        self._places: dict[tuple[str, ...], tuple[list[int], Tensor | None]] = {}
        self._all: list[int] = []

    def add(self, logged: Mapping[str, Tensor]) -> None:
        names = tuple(logged)
        places = self._places.get(names)
        if places is None:
            places = self._places[names] = self._make_room(names)
        values = [
            value if value.dtype == torch.float32 else value.float() for value in logged.values()
        ]
        columns, where = places
        if columns == self._all:
            torch.stack(values, out=self.values[self.filled])
        else:
            if where is None:  # kept: a copy to the device waits for it
                where = torch.tensor(columns, device=self.device)
                self._places[names] = columns, where
            self.values[self.filled].index_copy_(0, where, torch.stack(values))
        self.seen[self.filled] = False
        self.seen[self.filled, columns] = True
        self.filled += 1

    def _make_room(self, names: tuple[str, ...]) -> tuple[list[int], Tensor | None]:
        """Columns for these names; those that are new come last."""
        new = [name for name in names if name not in self.names]
        if new:
            self.names += new
            self.values = torch.cat([self.values, self.values.new_zeros(self.size, len(new))], 1)
            self.seen = np.pad(self.seen, ((0, 0), (0, len(new))))
        self._all = list(range(len(self.names)))
        return [self.names.index(name) for name in names], None

    def _averaged(self) -> Tensor:
        """The window so far, means over all ranks."""
        return self.ranks.mean(self.values[: self.filled])

    @property
    def full(self) -> bool:
        return self.filled >= self.size

    def peek(self) -> dict[str, float]:
        """Means over the window so far (float64 sums, in step order); reads the device.

        A non-finite step makes its mean non-finite.
        """
        values = self._averaged().double().cpu().numpy()
        seen = self.seen[: self.filled]
        return {
            name: math.fsum(values[seen[:, i], i]) / int(seen[:, i].sum())
            if np.isfinite(values[seen[:, i], i]).all()
            else math.nan
            for i, name in enumerate(self.names)
            if seen[:, i].any()
        }

    def take(self) -> dict[str, float]:
        """`peek`, then empty the window."""
        row = self.peek()
        self.filled = 0
        return row

    def state_dict(self) -> dict[str, Any]:
        seen = torch.from_numpy(self.seen[: self.filled].copy())
        values = self._averaged() if self.filled else self.values[:0]
        values = values.cpu().masked_fill(~seen, 0.0)  # unseen entries still hold an earlier window
        return {"names": list(self.names), "values": values, "seen": seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.names = list(state["names"])
        self._places = {}
        self.filled = len(state["values"])
        self.values = torch.zeros(self.size, len(self.names), device=self.device)
        self.values[: self.filled] = state["values"].to(self.device)
        self.seen = np.zeros((self.size, len(self.names)), bool)
        self.seen[: self.filled] = state["seen"].numpy()
