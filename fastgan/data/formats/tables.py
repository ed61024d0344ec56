"""Classes that a file beside the images gives: dataset.json of the StyleGAN tools, or a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from fastgan.files import text

TABLES = ("dataset.json", "labels.csv", "labels.tsv", "metadata.csv", "classes.csv")
"""Names that are looked for in the folders that all files share, the first that is there."""

LARGEST = 2**26
"""Bytes of such a file."""

_FILES = ("file", "filename", "file_name", "image", "image_id", "name", "path", "id", "img")
_CLASSES = ("label", "labels", "class", "category", "class_id", "target", "y")


def table_of(names: Sequence[str]) -> int | None:
    """Which of the names is a table of classes."""
    folders = [name.split("/")[:-1] for name in names]
    ends = zip(min(folders, default=[]), max(folders, default=[]))
    shared = [low for low, _ in takewhile(lambda pair: pair[0] == pair[1], ends)]
    for known in TABLES:
        for depth in range(len(shared) + 1):
            if (wanted := "/".join([*shared[:depth], known])) in names:
                return names.index(wanted)
    return None


def classes_of(
    table: str, data: bytes, names: Sequence[str]
) -> tuple[tuple[list[int], list[str]] | None, str | None]:
    """(labels and classes of the images of these names, or None; a line that says what was read).

    table: the name of the file with the content `data`. Numbers stay numbers, texts are sorted, a
    one-hot list is its largest entry.
    """
    try:
        content = text(data)
        found = _of_json(content) if table.endswith(".json") else _of_table(table, content)
    except (ValueError, TypeError, KeyError, RecursionError, csv.Error):
        return None, f"{table} is left out: it gives no file and class a line"
    if not found:
        return None, None
    folder = table.rpartition("/")[0]
    given = [_look_up(found, name, folder) for name in names]
    if missing := sum(label is None for label in given):
        return None, f"{table} is left out: it has no class for {missing} of {len(names)} images"
    numbers = all(str(label).isdecimal() and len(str(label)) < 5 for label in given)
    if numbers:
        labels = [int(str(label)) for label in given]
        return (labels, [str(k) for k in range(max(labels) + 1)]), f"classes are those of {table}"
    kinds = sorted({str(label) for label in given})
    place = {label: i for i, label in enumerate(kinds)}
    return ([place[str(label)] for label in given], kinds), f"classes are those of {table}"


def _look_up(found: Mapping[str, Any], name: str, folder: str) -> Any:
    inner = name.removeprefix(f"{folder}/")
    for key in (name, inner, inner.rpartition("/")[2]):
        for tried in (key, key.rpartition(".")[0]):
            if tried in found:
                return found[tried]
    return None


def _of_json(content: str) -> dict[str, Any]:
    labels = json.loads(content)["labels"]
    pairs = labels.items() if isinstance(labels, dict) else labels or ()
    found = {}
    for name, label in pairs:
        if isinstance(label, list):
            label = max(range(len(label)), key=label.__getitem__)
        if not isinstance(name, str) or type(label) not in (int, str) or label == "":
            raise ValueError
        found[name.replace("\\", "/")] = label
    return found


def _of_table(table: str, content: str) -> dict[str, Any]:
    tab = table.endswith(".tsv") or "\t" in content.partition("\n")[0]
    rows = [row for row in csv.reader(io.StringIO(content), delimiter="\t" if tab else ",") if row]
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    file = next((i for i, cell in enumerate(head) if cell in _FILES), None)
    kind = next((i for i, cell in enumerate(head) if cell in _CLASSES), None)
    if file is None or kind is None:
        if len(head) != 2 or file is not None or kind is not None:
            raise ValueError
        file, kind = 0, 1
    else:
        del rows[0]
    if any(len(row) <= max(file, kind) or not row[kind].strip() for row in rows):
        raise ValueError
    return {row[file].strip().replace("\\", "/"): row[kind].strip() for row in rows}
