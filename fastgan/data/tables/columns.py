"""What a column holds, and rows of columns as rows of numbers for a network (Xu et al. 2019, arXiv
1907.00503, section 4.2)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastgan.data.tables import mixture

BINS = 24
"""Of the histogram of a continuous column that a run keeps for its charts."""

NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
DECIMALS = 10

REACH = 4.0
"""Deviations of a mode that -1 and 1 stand for."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    values: what a discrete one holds, in order of their text, "" for a missing one; () where it is
        continuous.
    counts: rows of each value; of each of BINS bins of `span` where it is continuous.
    weights, means, deviations: of the modes of a continuous one. missing: its rows without a value.
    low, high: the least and largest number. span: what all but one in a hundred lie in.
    decimals: digits that its texts have behind the point; -1: six that count. comma: whether that
        point is a comma.
    """

    name: str
    values: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()
    missing: int = 0
    low: float = 0.0
    high: float = 0.0
    span: tuple[float, float] = (0.0, 0.0)
    decimals: int = 0
    comma: bool = False

    @property
    def discrete(self) -> bool:
        return bool(self.values)

    @property
    def slots(self) -> int:
        """Values or modes that one number of several stands for, a missing value among them."""
        return len(self.values) or len(self.means) + (self.missing > 0)

    def text(self, number: float) -> str:
        """A value as it stands in the file."""
        if self.discrete:
            return self.values[int(number)]
        if not np.isfinite(number):
            return ""
        shown = f"{number:.6g}" if self.decimals < 0 else f"{number:.{self.decimals}f}"
        if float(shown) == 0:
            shown = shown.removeprefix("-")
        return shown.replace(".", ",") if self.comma else shown


def fitted(column: Column, values: np.ndarray) -> Column:
    """The column with counts and modes of float64 values (n,): codes where it is discrete, NaN
    where it is missing."""
    if column.discrete:
        counts = np.bincount(values.astype(np.int64), minlength=len(column.values))
        return dataclasses.replace(column, counts=tuple(counts.tolist()))
    known = values[np.isfinite(values)]
    weights, means, deviations = mixture.fit(known)
    first, last = np.quantile(known, (0.005, 0.995)).tolist()
    if column.decimals == 0:  # bins of whole numbers, as many in each
        first = float(np.floor(first))
        wide = max(1.0, float(np.ceil((last - first + 1) / BINS)))
        first, last = first - 0.5, first - 0.5 + wide * BINS
    elif first == last:
        last = first + max(1.0, abs(first)) * 1e-6
    return dataclasses.replace(
        column,
        counts=histogram(known, (first, last)),
        weights=tuple(weights.tolist()),
        means=tuple(means.tolist()),
        deviations=tuple(deviations.tolist()),
        missing=len(values) - len(known),
        low=float(known.min()),
        high=float(known.max()),
        span=(first, last),
    )


def histogram(known: np.ndarray, span: tuple[float, float]) -> tuple[int, ...]:
    """How many numbers (n,) lie in each of BINS bins of a span; those beyond are in the outermost
    ones."""
    first, last = span
    inside = np.clip(known, first, last)
    return tuple(np.histogram(inside, BINS, (first, last))[0].tolist())


@dataclass(frozen=True)
class Layout:
    """Where the columns are in a row of numbers: one-hot values of the discrete ones, then one-hot
    modes of the continuous ones, then each one's place within its mode, in [-1, 1].

    discrete, continuous: numbers of the columns. groups: width of each one-hot group, in the order
        of the row. starts: where each begins.
    """

    discrete: tuple[int, ...]
    continuous: tuple[int, ...]
    groups: tuple[int, ...]
    starts: tuple[int, ...]

    @staticmethod
    def of(columns: Sequence[Column]) -> Layout:
        discrete = tuple(i for i, c in enumerate(columns) if c.discrete)
        continuous = tuple(i for i, c in enumerate(columns) if not c.discrete)
        groups = tuple(columns[i].slots for i in (*discrete, *continuous))
        starts = tuple(sum(groups[:i]) for i in range(len(groups)))
        return Layout(discrete, continuous, groups, starts)

    @property
    def width(self) -> int:
        return sum(self.groups) + len(self.continuous)


def encode(columns: Sequence[Column], values: np.ndarray, seed: int = 0) -> np.ndarray:
    """float32 (n, width) rows of values (n, columns); which mode stands for a number is drawn by
    the seed."""
    layout = Layout.of(columns)
    rows = np.zeros((len(values), layout.width), np.float32)
    at = np.arange(len(values))
    for start, i in zip(layout.starts, (*layout.discrete, *layout.continuous)):
        column, given = columns[i], values[:, i]
        if column.discrete:
            rows[at, start + given.astype(np.int64)] = 1
            continue
        known = np.isfinite(given)
        shown = np.where(known, given, column.means[0])
        modes = np.array(column.weights), np.array(column.means), np.array(column.deviations)
        u = np.random.default_rng([seed, i]).random(len(values))
        mode = mixture.choose(shown, modes, u)
        place = (shown - modes[1][mode]) / (REACH * modes[2][mode])
        place = np.round(np.clip(place, -0.99, 0.99) * 2**16) / 2**16  # alike on all machines
        rows[at, start + np.where(known, mode, len(column.means))] = 1
        alpha = sum(layout.groups) + layout.continuous.index(i)
        rows[:, alpha] = np.where(known, place, 0)
    return rows


def decode(columns: Sequence[Column], rows: np.ndarray) -> np.ndarray:
    """Values float64 (n, columns) of rows (n, width): the largest of each group, numbers within
    what was seen."""
    layout = Layout.of(columns)
    values = np.empty((len(rows), len(columns)))
    for start, i in zip(layout.starts, (*layout.discrete, *layout.continuous)):
        column = columns[i]
        chosen = rows[:, start : start + column.slots].argmax(1)
        if column.discrete:
            values[:, i] = chosen
            continue
        mode = np.minimum(chosen, len(column.means) - 1)
        place = rows[:, sum(layout.groups) + layout.continuous.index(i)].astype(np.float64)
        numbers = np.array(column.means)[mode] + REACH * place * np.array(column.deviations)[mode]
        numbers = np.clip(numbers, column.low, column.high)
        if column.decimals >= 0:
            numbers = np.round(numbers, column.decimals)
        values[:, i] = np.where(chosen < len(column.means), numbers, np.nan)
    return values
