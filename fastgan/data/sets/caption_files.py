"""Captions as people keep them: a text beside each image, captions.txt, or a table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from fastgan.data.listing import Listing, stem
from fastgan.data.pixels import Unreadable
from fastgan.data.tables.reading import LARGEST, cut, decoded
from fastgan.errors import FastganError, printable

ENDINGS = (".txt", ".csv", ".tsv", ".json", ".jsonl")
"""Files that may hold captions, and are no images."""

KNOWN = ("captions", "metadata")
"""How the names of tables begin that are taken before others."""

CAPTIONS = ("caption", "captions", "text", "prompt", "description")
"""Columns of captions, the first that is there."""

FILES = (
    *("file_name", "filename", "file", "image", "img", "image_name", "image_path", "path"),
    *("image_id", "name", "id"),
)
"""Columns of file names, the first that is there."""

_TRANSLATION = re.compile(r"\s*[a-z]{2,3}(_[A-Z]{2})?(@\w+)?\.utf8=")


@dataclass(frozen=True)
class Captions:
    """What files say of the images beside them.

    source: those files, in a few words; empty where there are none. lists: (folder, {end of a path:
    caption}); one counts for the images below its folder, and where none is above an image, all do.
    beside: {path without extension: caption}.
    """

    source: str = ""
    lists: Sequence[tuple[str, Mapping[str, str]]] = ()
    beside: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str:
        """The caption of an image by its path from the root, or an empty text. Longer ends of the
        path go before shorter ones."""
        above = [part for part in self.lists if not part[0] or name.startswith(f"{part[0]}/")]
        above.sort(key=lambda part: -len(part[0]))
        parts = name.split("/")
        ends = ["/".join(parts[i:]) for i in range(len(parts))]
        for _, found in above or self.lists:
            for key in (tried for end in ends for tried in (end, stem(end))):
                if key in found:
                    return found[key]
        return self.beside.get(stem(name), "")

    def example(self) -> str:
        """A file that has a caption."""
        return next((file for _, found in self.lists for file in found), "")


def read_captions(listing: Listing, column: str | None = None) -> Captions:
    """The captions in a folder or archive: of captions.txt and the .txt beside images; where those
    give none, of tables, or of the .json beside images.

    column: of a table or of JSON objects; texts are passed over. Raises FastganError for a table
    that can't be read, or has no such column.
    """
    place = {name: i for i, name in enumerate(listing.names)}
    images = {stem(name) for name in place if not name.lower().endswith(ENDINGS)}
    beside = {name for name in place if stem(name) in images}

    def text(name: str) -> str:
        if not listing.sizes[place[name]]:
            return ""
        try:
            return decoded(listing.content(place[name], LARGEST))
        except Unreadable as error:
            raise FastganError(f"can't read {listing.root}: {name}: {error}") from None

    if column is None:
        named = [name for name in place if name.rpartition("/")[2] == "captions.txt"]
        lists = [(name.rpartition("/")[0], _lines(text(name))) for name in named]
        texts = {stem(name): _plain(text(name)) for name in beside if name.endswith(".txt")}
        if any(found for _, found in lists) or any(texts.values()):
            return Captions("captions.txt" if named else "a .txt beside them", lists, texts)
    tables = [name for name in place if name.lower().endswith(ENDINGS[1:]) and name not in beside]
    for begin in KNOWN:
        if chosen := [n for n in tables if n.rpartition("/")[2].lower().startswith(begin)]:
            return _joined([_table(name, text(name), column) for name in chosen])
    objects = sorted(name for name in beside if name.lower().endswith(".json"))
    found = {stem(name): _object(name, text(name), column) for name in objects}
    if any(found.values()):
        return Captions("a .json beside them", beside=found)
    read: list[_Table] = []
    refused: dict[str, FastganError] = {}
    for name in tables:  # of whatever names: those that can be tables of these images' captions
        try:
            read.append(_table(name, text(name), column))
        except FastganError as error:
            refused[name] = error
    if refused and not read:
        raise refused[max(refused, key=lambda name: listing.sizes[place[name]])]
    pictures = [name for name in place if not name.lower().endswith(ENDINGS)]
    fitting = [table for table in read if any(map(_joined([table]).of, pictures))]
    return _joined(fitting or read)


def _lines(text: str) -> dict[str, str]:
    """captions.txt as {file name: caption}: the name, then a tab, comma or bar, then the caption;
    of several for one image the first."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        parts = re.match(r"\s*([^\t,|]+?)(?:#\d+)?\s*[\t,|]\s*(.+)", line)
        if parts:
            found.setdefault(parts[1], parts[2].strip())
    return found


def _plain(text: str) -> str:
    """The whole of a text, or its first line where others are translations, as Tux Paint's
    stamps have them: fr.utf8=Un chat."""
    lines = [line for line in text.splitlines() if line.strip()]
    translated = any(_TRANSLATION.match(line) for line in lines[1:])
    return " ".join(" ".join(lines[:1] if translated else lines).split())


@dataclass(frozen=True)
class _Table:
    """name: of the file. column: that of the captions. found: {file: caption}."""

    name: str
    column: str
    found: Mapping[str, str]


def _joined(tables: Sequence[_Table]) -> Captions:
    if not tables:
        return Captions()
    more = f" and {len(tables) - 1} more" if len(tables) > 1 else ""
    lists = [(table.name.rpartition("/")[0], table.found) for table in tables]
    return Captions(f"{tables[0].column!r} of {tables[0].name}{more}", lists)


def _table(name: str, text: str, column: str | None) -> _Table:
    ending = name.lower().rpartition(".")[2]
    read = {"json": _of_json, "jsonl": _of_lines}.get(ending, _of_cells)
    rows = read(name, text)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    captions = _caption_column(name, keys, column)
    rest = [key for key in keys if key != captions]
    files = _first_of(FILES, rest) or (rest[0] if len(rest) == 1 else None)
    if files is None:
        raise FastganError(
            f"{name} has no column of file names ({', '.join(FILES[:4])}): it has {_few(keys)}; "
            "call one of them file_name"
        )
    found: dict[str, str] = {}
    for row in rows:
        caption, file = _caption(row.get(captions)), row.get(files)
        if caption and file is not None:
            key = str(file).strip().replace("\\", "/").removeprefix("./")
            found.setdefault(key, caption)
    return _Table(name, captions, found)


def _caption_column(name: str, keys: Sequence[str], column: str | None) -> str:
    if not keys:
        raise FastganError(f"{name} has no entry: give a file and a caption in each")
    found = _first_of(CAPTIONS if column is None else (column.lower(),), keys)
    if found is not None:
        return found
    if column is not None:
        raise FastganError(f"--caption-column: {name} has no {column!r}, it has {_few(keys)}")
    raise FastganError(
        f"{name} has no column of captions ({', '.join(CAPTIONS)}): it has {_few(keys)}; choose "
        "one with --caption-column"
    )


def _first_of(wanted: Sequence[str], keys: Sequence[str]) -> str | None:
    lowered = {key.strip().lower(): key for key in reversed(keys)}
    return next((lowered[one] for one in wanted if one in lowered), None)


def _few(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 12} more" if len(keys) > 12 else ""
    return printable(", ".join(key or "one without a name" for key in keys[:12])) + more


def _caption(value: Any) -> str:
    """A caption in one line; of a list the first."""
    if isinstance(value, list):
        return next(filter(None, map(_caption, value)), "")
    return " ".join(str(value).split()) if type(value) in (str, int, float) else ""


def _of_cells(name: str, text: str) -> list[dict[str, Any]]:
    """Rows of a CSV or TSV file; without a header, those of files and captions."""
    sheet = cut(text, name)
    if len(sheet.header) == 2 and re.search(r"\.[A-Za-z]{3,4}$", sheet.header[0]):
        names, rows = [FILES[0], CAPTIONS[0]], [sheet.header, *sheet.rows]
    else:
        names, rows = sheet.header, sheet.rows
    return [dict(zip(names, row, strict=True)) for row in rows]


def _of_lines(name: str, text: str) -> list[dict[str, Any]]:
    """Rows of a file with a JSON object a line."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows = [_parsed(name, line, number) for number, line in lines]
    for (number, _), row in zip(lines, rows, strict=True):
        if not isinstance(row, dict):
            raise FastganError(f"{name}, line {number}: no JSON object: write one a line")
    return rows


def _of_json(name: str, text: str) -> list[dict[str, Any]]:
    """Rows of {file: caption or captions or object}, of a list of objects, or of COCO's images and
    annotations."""
    content = _parsed(name, text)
    if isinstance(content, dict):
        images, notes = content.get("images"), content.get("annotations")
        if _objects(images) and _objects(notes):
            files = {str(image.get("id")): image.get("file_name") for image in images}
            return [{**note, FILES[0]: files.get(str(note.get("image_id")))} for note in notes]
        return [
            {**(value if isinstance(value, dict) else {CAPTIONS[0]: value}), FILES[0]: file}
            for file, value in content.items()
        ]
    if not _objects(content):
        raise FastganError(
            f'{name} is no list of captions: write {{"cat.png": "a sleeping cat"}}, or a list of '
            "objects with file_name and caption"
        )
    return content


def _objects(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _object(name: str, text: str, column: str | None) -> str:
    """The caption in a JSON object beside an image."""
    row = _parsed(name, text) if text.strip() else {}
    if not isinstance(row, dict):
        raise FastganError(f"{name} is no JSON object: write one with a caption")
    key = _first_of(CAPTIONS if column is None else (column.lower(),), list(row))
    return _caption(row[key]) if key is not None else ""


def _parsed(name: str, text: str, line: int = 1) -> Any:
    """JSON. line: where it begins in its file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at, why = line + error.lineno - 1, error.msg
        raise FastganError(f"{name}, line {at}: {why}: this is no JSON, mend it there") from None
    except (ValueError, RecursionError) as error:
        raise FastganError(f"{name}, from line {line}: {error}: write it anew") from None
