"""The pages of docs whose tables are computed: `python -m fastgan.bench.experiments.pages` makes
them anew, in a checkout."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from fastgan.bench import launches
from fastgan.bench.experiments import scaling

DOCS = Path(__file__).resolve().parents[2] / "docs"


def step(name: str) -> str:
    """Launches of a step by phase and kind, their bytes and least time."""
    rows = launches.table(launches.record(name)[0])
    body = [
        [row.phase, row.what, str(row.count), f"{row.megabytes:.2f}", f"{row.us:.1f}"]
        for row in rows
    ]
    count, megabytes, us = (
        sum(getattr(row, key) for row in rows) for key in ("count", "megabytes", "us")
    )
    body.append(["**step**", "", f"**{count}**", f"**{megabytes:.1f}**", f"**{us:.0f}**"])
    return scaling.table(["phase", "kind", "launches", "MB", "us (estimate)"], body)


PAGES: dict[str, Mapping[str, Callable[[], str]]] = {
    "many-gpus.md": scaling.TABLES,
    "internals/launches.md": {"dcgan-64-b128": lambda: step("dcgan-64-b128")},
}


def filled(page: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """A page with its tables, each between two comments that name it, made anew."""
    for name, make in tables.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        made = f"{begin}\n{make()}\n{end}"
        inside = f"{re.escape(begin)}.*?{re.escape(end)}"
        page = re.sub(inside, lambda _, made=made: made, page, flags=re.S)
    return page


if __name__ == "__main__":
    for where, tables in PAGES.items():
        path = DOCS / where
        path.write_text(filled(path.read_text("utf-8"), tables), "utf-8")
