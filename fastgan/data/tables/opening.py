"""A table from a CSV file: which columns are numbers, which are kinds, and what is refused."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastgan.data.tables.columns import DECIMALS, NUMBER, Column
from fastgan.data.tables.reading import Sheet, read_sheet
from fastgan.errors import FastganError, printable

MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "?", "#n/a"))
"""Texts, in lower case, that stand for no value."""

FEW = 10
"""Whole numbers of so many different values are taken for kinds."""

MOST = 200
"""Different values of a discrete column, at most."""

FEWEST = 50
"""Rows of a table, at least."""


@dataclass(frozen=True)
class Table:
    """The rows of a table as numbers.

    columns: without counts and modes, which `fitted` adds. values: float64 (n, columns); the number
    of its value in a discrete column, NaN where a continuous one has none. notes: what was guessed.
    """

    name: str
    columns: tuple[Column, ...]
    values: np.ndarray
    separator: str
    notes: tuple[str, ...] = ()


def open_table(
    source: str,
    *,
    categorical: str | None = None,
    continuous: str | None = None,
    leave_out: str | None = None,
) -> Table:
    """A CSV file as a table. categorical, continuous, leave_out: names of columns, parted by commas
    (those with a comma in quotes), whose kind is not to be guessed. Raises FastganError."""
    sheet = read_sheet(source)
    return from_sheet(
        source,
        sheet,
        names(categorical, "--categorical", sheet.header),
        names(continuous, "--continuous", sheet.header),
        names(leave_out, "--leave-out", sheet.header),
    )


def from_sheet(
    name: str,
    sheet: Sheet,
    categorical: Sequence[str] = (),
    continuous: Sequence[str] = (),
    leave_out: Sequence[str] = (),
) -> Table:
    """The texts of a table as numbers. Raises FastganError."""
    if both := set(categorical) & set(continuous):
        raise FastganError(f"column {both.pop()} can't be both --categorical and --continuous")
    if len(sheet.rows) < FEWEST:
        raise FastganError(f"{name} has {len(sheet.rows)} rows: give at least {FEWEST}")
    columns, values, ids = [], [], []
    for i, column in enumerate(sheet.header):
        if column in leave_out:
            continue
        texts = ["" if row[i].lower() in MISSING else row[i] for row in sheet.rows]
        kind = "discrete" if column in categorical else "continuous" if column in continuous else ""
        try:
            made, numbers = read_column(column, texts, kind, sheet.separator)
        except FastganError as error:
            raise FastganError(f"{name}: {error}") from None
        if made.values and len(made.values) > MOST:
            ids.append(f"{printable(column)} has {len(made.values):,} different texts")
        columns.append(made)
        values.append(numbers)
    if ids:
        some = "; ".join(ids[:3])
        raise FastganError(
            f"{name}: {some}: more than {MOST} are no kinds but names, which a generator can't "
            "learn: leave such columns out (--leave-out NAME,NAME), or group their values"
        )
    if len(columns) < 2:
        raise FastganError(f"{name} has {len(columns)} columns to learn: give at least two")
    return Table(
        name, tuple(columns), np.stack(values, 1), sheet.separator, tuple(notes(columns, values))
    )


def read_column(
    name: str, texts: Sequence[str], kind: str = "", separator: str = ","
) -> tuple[Column, np.ndarray]:
    """One column of texts, "" where a value is missing. kind: "discrete", "continuous", or "" to
    guess. Raises FastganError for a text in a continuous column."""
    known = [text for text in texts if text]
    if not known:
        raise FastganError(f"column {printable(name)} is empty: leave it out (--leave-out)")
    comma = separator != "," and any("," in text for text in known)
    comma = comma and not any("." in text for text in known)
    plain = [text.replace(",", ".") if comma else text for text in known]
    wrong = next((t for t, p in zip(known, plain) if not NUMBER.fullmatch(p)), None)
    codes = any(p.lstrip("+-")[:1] == "0" and p.lstrip("+-")[1:2].isdigit() for p in plain)
    if kind == "continuous" and wrong is not None:
        raise FastganError(
            f"column {printable(name)} holds {printable(wrong)!r}, which is no number: take it out "
            "of --continuous"
        )
    whole = all(p.lstrip("+-").isdigit() for p in plain)
    few = len(set(plain)) <= (FEW if whole else 1)
    if kind != "continuous" and (kind == "discrete" or wrong is not None or codes or few):
        values = sorted(set(texts), key=_order)
        index = {value: i for i, value in enumerate(values)}
        numbers = np.array([index[text] for text in texts], np.float64)
        return Column(name, values=tuple(values)), numbers
    numbers = np.full(len(texts), np.nan)
    numbers[[i for i, text in enumerate(texts) if text]] = [float(text) for text in plain]
    if (
        np.abs(numbers[np.isfinite(numbers)]).max() > 1e30
        or len(known) > np.isfinite(numbers).sum()
    ):
        raise FastganError(f"column {printable(name)} holds numbers beyond 1e30: scale it")
    exponent = any("e" in p.lower() for p in plain)
    digits = max(len(p.partition(".")[2]) for p in plain)
    decimals = -1 if exponent or digits > DECIMALS else digits
    return Column(name, decimals=decimals, comma=comma), numbers


def values_like(source: str, columns: Sequence[Column]) -> np.ndarray:
    """float64 (n, columns): the rows of another CSV file as values of these columns. Raises
    FastganError where one is not there, or holds what it can't."""
    sheet = read_sheet(source)
    found = np.full((len(sheet.rows), len(columns)), np.nan)
    for i, column in enumerate(columns):
        if column.name not in sheet.header:
            raise FastganError(f"{source} has no column {printable(column.name)}, which RUN has")
        at = sheet.header.index(column.name)
        for number, row in enumerate(sheet.rows):
            text = "" if row[at].lower() in MISSING else row[at]
            plain = text.replace(",", ".") if column.comma else text
            if column.discrete and text in column.values:
                found[number, i] = column.values.index(text)
            elif not column.discrete and NUMBER.fullmatch(plain):
                found[number, i] = float(plain)
            elif column.discrete or text:
                raise FastganError(
                    f"{source}: column {printable(column.name)} holds {printable(text)!r}, which "
                    "RUN has not seen"
                )
    return found


def target_of(columns: Sequence[Column], target: str | None) -> int:
    """The number of the column that --target names; the last one without it. Raises
    FastganError."""
    listed = [column.name for column in columns]
    if target is None:
        return len(listed) - 1
    if len(found := names(target, "--target", listed)) != 1:
        raise FastganError(f"--target {printable(target)}: name one column")
    return listed.index(found[0])


def split(rows: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows to learn from, and of the share held out, int64, each in order; a
    function of the seed."""
    mixed = np.random.default_rng([seed, 11]).permutation(rows)
    apart = int(rows * share)
    return np.sort(mixed[apart:]), np.sort(mixed[:apart])


def _order(text: str) -> tuple[int, float, str]:
    """Numbers by size before texts by letters."""
    return (0, float(text), text) if NUMBER.fullmatch(text) else (1, 0.0, text)


def names(text: str | None, option: str, header: Sequence[str]) -> list[str]:
    """The names of columns in an option. Raises FastganError naming the nearest."""
    if text is None:
        return []
    found = [name.strip() for name in next(csv.reader([text], skipinitialspace=True))]
    for name in found:
        if name not in header:
            near = difflib.get_close_matches(name, header, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(header[:12])}"
            raise FastganError(printable(f"{option} {name}: no such column; {hint}"))
    return found


def notes(columns: Sequence[Column], values: Sequence[np.ndarray]) -> list[str]:
    """How the columns were understood."""
    kinds = [c for c in columns if c.discrete]
    numbers = [c.name for c in columns if not c.discrete]
    said = []
    if kinds:
        listed = ", ".join(f"{c.name} ({len(c.values)})" for c in kinds)
        said.append(f"kinds, with the number of their values: {listed}; or name --continuous ones")
    if numbers:
        said.append(f"numbers: {', '.join(numbers)}; or name --categorical ones")
    for column, found in zip(columns, values):
        gaps = int((~np.isfinite(found)).sum())
        if column.discrete and "" in column.values:
            gaps = int((found == column.values.index("")).sum())
        if gaps:
            said.append(
                f"{column.name} has no value in {gaps:,} of {len(found):,} rows: as often "
                "in samples, where it is learned"
            )
    return said
