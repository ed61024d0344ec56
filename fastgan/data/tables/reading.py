"""A CSV file as texts: encoding, separator, header, ragged lines."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from fastgan import files
from fastgan.errors import FastganError, printable

SEPARATORS = (",", ";", "\t", "|")

LARGEST = 2**30
"""Bytes of the largest file."""

LOOKED_AT = 50
"""Lines by which the separator is told."""


@dataclass(frozen=True)
class Sheet:
    """The texts of a table. header: one name a column. rows: a text a column each, stripped.
    separator: what parts them in the file."""

    header: list[str]
    rows: list[list[str]]
    separator: str


def read_sheet(source: str) -> Sheet:
    """The table in a CSV file: UTF-8 or UTF-16 with or without a mark, else Windows-1252; parted by
    comma, semicolon, tab or bar; quoted as RFC 4180 says; its first line names the columns.

    Raises FastganError naming the line that does not fit.
    """
    path = files.path_of(source, "--data")
    if files.kind(path) != "file":
        there = "is a folder" if files.kind(path) == "folder" else "is not there"
        raise FastganError(f"{source} {there}: name a CSV file")
    with files.explained(f"can't read {source}"):
        data = files.read(path, LARGEST, follow=True)
    if b"\0" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FastganError(f"{source} is no text: save the table as CSV")
    return parse(decoded(data), path.name)


def decoded(data: bytes) -> str:
    """The text of a file: UTF-8 or UTF-16 with or without a mark, else Windows-1252."""
    try:
        return files.text(data)
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def parse(text: str, name: str = "the table") -> Sheet:
    """The table in a text, as `read_sheet` reads it. Raises FastganError."""
    sheet = cut(text, name)
    _check_header(sheet.header, name)
    return sheet


def cut(text: str, name: str = "the table") -> Sheet:
    """The table in a text, whatever its first line names. Raises FastganError."""
    separator = separator_of(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    lines: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                lines.append((reader.line_num, [cell.strip() for cell in cells]))
    except csv.Error as error:
        raise FastganError(f"{name}, line {reader.line_num}: {error}: save it as CSV") from None
    if len(lines) < 2:
        raise FastganError(f"{name} has no rows below its header: a table has names, then values")
    header = lines[0][1]
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise FastganError(
                f"{name}, line {number}: {len(cells)} values for {len(header)} columns: a value "
                f"with {separator!r} in it stands in quotes"
            )
    return Sheet(header, [cells for _, cells in lines[1:]], separator)


def _check_header(header: list[str], name: str) -> None:
    for number, column in enumerate(header, 1):
        if not column:
            raise FastganError(f"{name}: column {number} has no name: its first line names them")
        if header.count(column) > 1:
            raise FastganError(f"{name}: two columns are called {printable(column)}: rename one")
    if all(is_number(column) for column in header):
        raise FastganError(
            f"{name}: its first line has numbers ({printable(header[0])}, ...) where names of "
            "columns belong: put a header above them"
        )


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def separator_of(text: str) -> str:
    """What parts the columns: that which gives the header most cells, and as many to the lines
    below it, as far as they are looked at."""
    head = "\n".join(text.splitlines()[:LOOKED_AT])
    best, most = ",", (0, 0)
    for separator in SEPARATORS:
        try:
            rows = [row for row in csv.reader(io.StringIO(head), delimiter=separator) if row]
        except csv.Error:
            continue
        wide = len(rows[0]) if rows else 0
        found = (sum(len(row) == wide for row in rows) if wide > 1 else 0, wide)
        if found > most:
            best, most = separator, found
    return best


def write_sheet(sheet: Sheet) -> bytes:
    """The table as UTF-8 CSV with the separator of its file."""
    made = io.StringIO(newline="")
    writer = csv.writer(made, delimiter=sheet.separator, lineterminator="\n")
    writer.writerow(sheet.header)
    writer.writerows(sheet.rows)
    return made.getvalue().encode()
