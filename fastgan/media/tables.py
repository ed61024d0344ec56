"""Rows of a table: written as CSV, drawn as the shares of each column's values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fastgan.data.tables.columns import Column, Layout, decode
from fastgan.data.tables.reading import Sheet, write_sheet
from fastgan.media.charts import chart
from fastgan.objectives.medium import Medium


@dataclass(frozen=True)
class Table(Medium):
    """Samples are rows float32 (n, width), as `data.tables.columns.encode` lays them out.

    Args:
        columns: Of the table, with what was seen in the data.
        separator: What parts them in a file.
    """

    noun: ClassVar[str] = "rows"
    out: ClassVar[str] = "rows.csv"
    endings: ClassVar[tuple[str, ...]] = (".csv",)
    shown: ClassVar[int] = 1000

    columns: tuple[Column, ...] = ()
    separator: str = ","

    def finished(self, made: Tensor) -> Tensor:
        """Each group one-hot: 1 where it was largest."""
        rows, layout = made.float(), Layout.of(self.columns)
        hard = [
            torch.nn.functional.one_hot(part.argmax(1), part.shape[1]).float()
            for part in rows[:, : sum(layout.groups)].split(layout.groups, 1)
        ]
        return torch.cat([*hard, rows[:, sum(layout.groups) :]], 1)

    def watched(self, samples: Tensor) -> Tensor:
        return samples[:, None, None, :]

    def picture(self, samples: Tensor) -> Tensor:
        values = self.values(samples)
        return self._charts(values)

    def picture_of_reals(self, samples: Tensor) -> Tensor:
        """All of the data, whatever the samples: few rows have no shares."""
        return self._charts(None)

    def _charts(self, values: np.ndarray | None) -> Tensor:
        found = [
            chart(column, None if values is None else values[:, i])
            for i, column in enumerate(self.columns)
        ]
        return torch.from_numpy(np.stack(found)).float() / 255

    def values(self, samples: Tensor) -> np.ndarray:
        """float64 (n, columns): the number of its value in a discrete column, NaN where there is
        none."""
        return decode(self.columns, samples.numpy())

    def encode(self, samples: Tensor, ending: str) -> bytes:
        rows = [
            [column.text(value) for column, value in zip(self.columns, row)]
            for row in self.values(samples).tolist()
        ]
        return write_sheet(Sheet([column.name for column in self.columns], rows, self.separator))
