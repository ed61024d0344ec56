"""The strings in a file: one a line, or a column of a table; plain or as .gz."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from fastgan import files
from fastgan.data.tables.reading import separator_of
from fastgan.errors import FastganError, printable

LARGEST = 2**28
"""Bytes of a file, unpacked."""

LONGEST = 4096
"""Characters of a line that is looked at; longer ones are left out."""

TABLES = (".csv", ".tsv")
COLUMN = "smiles"
"""The column that is read where none is named."""


def read_strings(source: str, column: str | None = None, words: bool = False) -> list[str]:
    """The strings of a file in order, those of no character left out.

    A .csv or .tsv file gives a column: the one named, or the one called SMILES, or its only one;
    any other file a string a line, UTF-8 or UTF-16 with a mark. words: what stands before the first
    blank of a line, which is where .smi files have the SMILES; a first line "smiles" is a header.
    Raises FastganError.
    """
    path = files.path_of(source, "--data")
    if files.kind(path) != "file":
        there = "is a folder" if files.kind(path) == "folder" else "is not there"
        raise FastganError(f"{source} {there}: name a file of strings, one a line")
    text = _text(source, path)
    inner = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    if inner.suffix.lower() in TABLES:
        return [cell for cell in _cells(text, path.name, column) if cell]
    if column is not None:
        raise FastganError(f"--column {printable(column)} is for a .csv or .tsv file: leave it out")
    lines = [line.strip() for line in text.split("\n")]
    if words:
        lines = [line.split(None, 1)[0] for line in lines if line]
        lines = lines[1:] if lines and lines[0].lower() == COLUMN else lines
    return [line for line in lines if line]


def _text(source: str, path: Path) -> str:
    """The content of a file, unpacked. Raises FastganError."""
    with files.explained(f"can't read {source}"):
        data = files.read(path, LARGEST, follow=True)
    if path.suffix.lower() == ".gz":
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(LARGEST + 1)
        except (OSError, EOFError, zlib.error) as error:
            why = str(error) or "it is damaged"
            raise FastganError(f"{source} can't be unpacked: {printable(why)}") from None
        if len(data) > LARGEST:
            raise FastganError(f"{source} is larger than {LARGEST:,} bytes: give a part of it")
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    if b"\0" in data[:4096] and not wide:
        raise FastganError(f"{source} is no text: give a file of strings, one a line")
    try:
        return files.text(data)
    except UnicodeDecodeError:
        raise FastganError(f"{source} is no UTF-8 text: save it as such") from None


def _cells(text: str, name: str, column: str | None) -> Iterator[str]:
    """The cells of a column below the header, stripped. Raises FastganError."""
    separator = separator_of(text[: 2**16])
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        header = [cell.strip() for cell in next(rows, [])]
        at = _column(header, name, column)
        for row in rows:
            if not row:
                continue
            if at >= len(row):
                raise FastganError(
                    f"{name}, line {rows.line_num}: {len(row)} values, and the strings are number "
                    f"{at + 1}: repair the line"
                )
            yield row[at].strip()
    except csv.Error as error:
        raise FastganError(f"{name}, line {rows.line_num}: {error}: save it as CSV") from None


def _column(header: list[str], name: str, column: str | None) -> int:
    if column is None:
        small = [cell.lower() for cell in header]
        if COLUMN in small:
            return small.index(COLUMN)
        if len(header) == 1:
            return 0
    elif column in header:
        return header.index(column)
    there = ", ".join(printable(cell) for cell in header[:12]) or "none"
    asked = "no column SMILES" if column is None else f"no column {printable(column)}"
    raise FastganError(f"{name} has {asked}; there are {there}: name one with --column")
