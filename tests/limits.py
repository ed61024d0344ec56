"""Limits of the tree, checked by `make lint`: lines a file, files a folder of the product.

Columns and complexity are ruff's to check. A file at its limit is split by what it is about, not
where it happens to be full.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("fastgan", "kernels", "bench")
LINES = 400
FILES = 16


def broken() -> list[str]:
    """One line for each limit that does not hold."""
    found = []
    for top in PRODUCT:
        folders = [
            ROOT / top,
            *(p for p in (ROOT / top).rglob("*") if p.is_dir() and not p.is_symlink()),
        ]
        for folder in folders:
            files = sorted(folder.glob("*.py"))
            name = folder.relative_to(ROOT)
            if len(files) > FILES:
                found.append(f"{name}: {len(files)} files, {FILES} at most")
            for file in files:
                lines = len(file.read_text("utf-8").splitlines())
                if lines > LINES:
                    found.append(f"{name / file.name}: {lines} lines, {LINES} at most")
    return found


if __name__ == "__main__":
    answer = broken()
    print("\n".join(answer), end="\n" if answer else "")
    sys.exit(bool(answer))
