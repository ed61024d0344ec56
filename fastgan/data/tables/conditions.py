"""The rows of a table as a data set for a conditional generator: training by sampling (Xu et al.
2019, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastgan.data.dataset import Dataset
from fastgan.data.tables.columns import Column, Layout, encode
from fastgan.data.tables.opening import Table

NUMBERS = 2**25
"""Of all rows together, up to which each column's conditions have as many rows as the table."""


class Rows(Dataset):
    """Encoded rows and the condition that each stands for.

    Fields: "image", float32 (n, width), a row as `encode` makes it; "condition", int64 (n,), the
    slot of the row that is told, where there are discrete columns. A discrete column is told as
    often as any other, a value of it by the logarithm of its rows, so that rare ones are seen;
    each pair of these has rows of its own, all of that value's in turn.
    columns: fitted to the values float64 (rows, columns). classes: the values of the column
    `target`, where it is discrete; samples can be asked of one.
    """

    def __init__(
        self, table: Table, columns: Sequence[Column], values: np.ndarray, target: int, seed: int
    ) -> None:
        self.columns, self.target, self.rows = tuple(columns), target, len(values)
        self.separator = table.separator
        rows, slots = chosen(columns, values, seed)
        arrays = {"image": encode(columns, values, seed)[rows]}
        if slots is not None:
            arrays["condition"] = slots
        of_target = columns[target].values
        super().__init__(
            table.name,
            arrays,
            dict.fromkeys(arrays, "tensor"),
            classes=of_target or None,
            notes=table.notes,
        )

    @property
    def present(self) -> np.ndarray:
        return np.flatnonzero(self.columns[self.target].counts) if self.classes else super().present

    def describe(self) -> str:
        kinds = sum(column.discrete for column in self.columns)
        return (
            f"{self.name}: {self.rows:,} rows of {len(self.columns)} columns ({kinds} of kinds, "
            f"{len(self.columns) - kinds} of numbers), as {self.fields['image'].shape[0]} numbers"
        )


def chosen(
    columns: Sequence[Column], values: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """(numbers of rows, the slot that each is told by), int64 (m,) each; None without discrete
    columns, where each row stands once."""
    layout, n = Layout.of(columns), len(values)
    if not layout.discrete:
        return np.arange(n), None
    each = min(n, max(n // len(layout.discrete), NUMBERS // (layout.width * len(layout.discrete))))
    dice = np.random.default_rng([seed, 3])
    rows, slots = [], []
    for start, i in zip(layout.starts, layout.discrete):
        codes = values[:, i].astype(np.int64)
        counts = np.bincount(codes, minlength=columns[i].slots)
        chances = np.log1p(counts) / np.log1p(counts).sum()
        for code, chance in enumerate(chances):
            if counts[code]:
                those = dice.permutation(np.flatnonzero(codes == code))
                many = max(1, round(each * chance))
                rows.append(np.resize(those, many))
                slots.append(np.full(many, start + code))
    return np.concatenate(rows), np.concatenate(slots)
