"""Limits of the tree, checked by `make lint`: lines a file and files a folder of the product,
private names, which stay in their module, and names of test files, which pytest tells apart by the
name alone.

Columns and complexity are ruff's to check. A file at its limit is split by what it is about, not
where it happens to be full.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("fastgan", "kernels", "bench")
LINES = 400
RECIPE = 150
"""Lines of a file that defines a recipe."""
FILES = 16
OTHERS = {"_C", "_device", "_fields", "_parameters", "_scale", "_step_supports_amp_scaling"}
OTHERS |= {"_version"}
"""Private names of torch and Python that ours happen to be called as well."""


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
                text = file.read_text("utf-8")
                lines = len(text.splitlines())
                most = RECIPE if "    recipe: ClassVar[str] = " in text else LINES
                if lines > most:
                    found.append(f"{name / file.name}: {lines} lines, {most} at most")
    return found


def defined(tree: ast.AST) -> Iterator[str]:
    """Names that a module gives to its own things, attributes included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield from [node.attr] if ast.unparse(node.value) in ("self", "cls") else []


def private() -> list[str]:
    """One line for each private name of ours that another module uses."""
    files = {path.resolve() for top in PRODUCT for path in (ROOT / top).rglob("*.py")}
    trees = {path: ast.parse(path.read_text("utf-8")) for path in sorted(files)}
    mine = {path: set(defined(tree)) for path, tree in trees.items()}
    ours = {name for names in mine.values() for name in names} - OTHERS
    hidden = lambda name: name.startswith("_") and not name.startswith("__")
    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastgan"):
                names = [alias.name for alias in node.names if hidden(alias.name)]
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
                name = node.attr
                names = [name] if hidden(name) and name in ours - mine[path] else []
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            found += [f"{where}: {name} is private to another module" for name in names]
    return found


def twice() -> list[str]:
    """One line for each name that two test files have: pytest imports the first for both."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        found.setdefault(path.name, []).append(str(path.relative_to(ROOT)))
    return [f"{' and '.join(paths)}: one name" for paths in found.values() if len(paths) > 1]


if __name__ == "__main__":
    answer = broken() + private() + twice()
    print("\n".join(answer), end="\n" if answer else "")
    sys.exit(bool(answer))
