"""Writes docs/internals/errors.md: python docs/errors.py > docs/internals/errors.md"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PRODUCT = Path(__file__).parents[1] / "fastgan"
HEAD = """# Error messages

Every line that fastgan refuses something with, from the code: what is wrong with which thing, and
what to do. `{...}` is filled in. Messages are read where they are raised or returned to be raised;
those made elsewhere (by `explained`, which puts the system's own reason behind "can't write PATH")
are not listed.

This page is generated: `python docs/errors.py > docs/internals/errors.md`.
"""


def template(node: ast.expr) -> str | None:
    """The text of a literal or f-string, names in braces; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = []
        for part in node.values:
            if isinstance(part, ast.Constant):
                parts.append(str(part.value))
            else:
                assert isinstance(part, ast.FormattedValue)
                name = ast.unparse(part.value)
                parts.append("{" + (name if re.fullmatch(r"[\w.]{1,20}", name) else "...") + "}")
        return "".join(parts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = template(node.left), template(node.right)
        return None if left is None and right is None else f"{left or '{...}'}{right or '{...}'}"
    return None


def messages() -> dict[str, list[str]]:
    """{message: modules that raise it, or hand it to those that do}."""
    found: dict[str, list[str]] = defaultdict(list)
    for source in sorted(PRODUCT.rglob("*.py")):
        if source.is_relative_to(PRODUCT / "verify") or "kernels" in source.parts:
            continue
        for text in raised(ast.parse(source.read_text("utf-8"))):
            found[text].append(str(source.relative_to(PRODUCT)))
    return dict(found)


def raised(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        call = node.exc if isinstance(node, ast.Raise) else None
        if isinstance(node, ast.Return):  # a message that several places raise
            call = node.value
        if isinstance(call, ast.Call) and call.args:
            name = ast.unparse(call.func)
            if name.endswith("FastganError") and (text := template(call.args[0])):
                yield text


def split(text: str) -> tuple[str, str]:
    """(what is wrong, what to do): the last colon or semicolon parts them."""
    bare = re.sub(r"\{[^}]*\}", lambda m: "x" * len(m.group()), text)
    at = max(bare.rfind(": "), bare.rfind("; "))
    return (text, "") if at < 0 else (text[:at], text[at + 2 :])


def page() -> str:
    rooms: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for text, places in messages().items():
        reason, remedy = split(text)
        where = ", ".join(sorted({f"`{place}`" for place in places}))
        rooms[places[0].partition("/")[0].removesuffix(".py")].append((reason, remedy, where))
    lines = [HEAD]
    for room, rows in sorted(rooms.items()):
        lines += [
            f"## {room}",
            "",
            "| what is wrong | what to do, or why | where |",
            "|---|---|---|",
        ]
        shown = lambda part: part.replace("|", "\\|").replace("<", "&lt;")
        cells = [[shown(part) for part in row] for row in rows]
        lines += [f"| {' | '.join(row)} |" for row in sorted(cells)] + [""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
