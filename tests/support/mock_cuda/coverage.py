"""Which statements behind a GPU's branches the mocked tests run.

    python tests/support/mock_cuda/coverage.py [--write docs/internals/gpu-lines.md]

A statement counts where it runs on a GPU alone: the body of an `if` (or the first value of a
conditional expression) that asks for `is_cuda`, `on_gpu`, `device.type == "cuda"` or
`cuda.is_available()`, the else of its negation, and what follows a negation that leaves. Modules
that have such statements are compiled with a note before each, in every process of the mocked tests
where FASTGAN_GPU_LINES names a folder; nothing is traced, so the tests take as long as without.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
PRODUCT = ("fastgan", "kernels", "bench")
NAMES = {"on_gpu", "gpu", "cuda", "GPU"}
VARIABLE = "FASTGAN_GPU_LINES"
REASONS = {
    "bench/experiments/": "an experiment, whose way is proven by its stage's toy run on a CPU",
    "bench/fake_gpu.py": "the fake driver itself, which has tests of its own",
    "bench/test_micro.py": "pytest-benchmark's clock, an optional package",
    "bench/stages/": "a stage in a process of its own: by make long",
    "bench/iterations/measure.py": "reads NVML, or starts processes that are timed",
    "bench/": "a time or a table of a whole measurement, which a mock's clock can't make",
    "fastgan/distributed/context.py": "NCCL: the mock has one device",
    "fastgan/data/streaming.py": "more than the mocked rules cover",
    "fastgan/verify/": "the proof at level full, or the tuner's clock",
    "fastgan/": "reached on a GPU only",
    "kernels/": "reached on a GPU only",
}
"""Why a statement that no mocked test runs is not run, by the longest prefix of its path."""


def asks(test: ast.expr) -> int:
    """1 if the test holds on a GPU alone, -1 if it fails on a GPU alone, else 0."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return -asks(test.operand)
    if isinstance(test, ast.BoolOp):
        found = {asks(value) for value in test.values}
        wanted = 1 if isinstance(test.op, ast.And) else -1
        return wanted if wanted in found else 0
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        right = test.comparators[0]
        if isinstance(right, ast.Constant) and right.value == "cuda":
            return {ast.Eq: 1, ast.NotEq: -1}.get(type(test.ops[0]), 0)
    if isinstance(test, ast.Call) and isinstance(test.func, ast.Attribute):
        owner = test.func.value
        if test.func.attr == "is_available" and getattr(owner, "attr", "") == "cuda":
            return 1
    if isinstance(test, ast.Attribute):
        return int(test.attr == "is_cuda" or test.attr in NAMES)
    return int(isinstance(test, ast.Name) and test.id in NAMES)


def leaves(body: list[ast.stmt]) -> bool:
    return isinstance(body[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break))


class Noting(ast.NodeTransformer):
    """Finds the statements, and puts a note before each."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines: set[int] = set()

    def note(self, at: ast.AST) -> ast.Call:
        line = at.lineno  # type: ignore[attr-defined]
        self.lines.add(line)
        made = ast.Call(
            ast.Name("__gpu_line__", ast.Load()), [ast.Constant(self.path), ast.Constant(line)], []
        )
        return ast.copy_location(made, at)

    def block(self, body: list[ast.stmt], gated: bool) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for statement in body:
            named = isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))
            if gated and not named:
                out.append(ast.copy_location(ast.Expr(self.note(statement)), statement))
            asked = asks(statement.test) if isinstance(statement, ast.If) else 0
            for name in ("body", "orelse", "finalbody"):
                inner = getattr(statement, name, None)
                if isinstance(inner, list) and inner:
                    here = asked == (1 if name == "body" else -1)
                    off = asked == (-1 if name == "body" else 1)
                    setattr(statement, name, self.block(inner, here or (gated and not off)))
            for handler in getattr(statement, "handlers", []):
                handler.body = self.block(handler.body, gated)
            out.append(statement)
            gated |= asked == -1 and leaves(statement.body)  # type: ignore[attr-defined]
        return out

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        asked = asks(node.test)
        if asked:
            name = "body" if asked > 0 else "orelse"
            value = getattr(node, name)
            noted = ast.BoolOp(ast.Or(), [self.note(value), value])
            setattr(node, name, ast.copy_location(noted, value))
        return node


def noted(source: str, path: str) -> tuple[ast.Module, set[int]]:
    """The module with its notes, and the lines that have one."""
    tree, noting = ast.parse(source), Noting(path)
    if "cuda" in source or "gpu" in source.lower():
        tree.body = noting.block(tree.body, False)
        tree = noting.visit(tree)
    return ast.fix_missing_locations(tree), noting.lines


def relative(path: str | None) -> str | None:
    """The path in the tree of a product file, symbolic links followed; None for another's."""
    if not path or not path.endswith(".py"):
        return None
    real = Path(path).resolve()
    if not real.is_relative_to(ROOT):
        return None
    name = real.relative_to(ROOT)
    return name.as_posix() if name.parts[0] in PRODUCT else None


class Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        name = relative(path) or path
        tree, lines = noted(Path(path).read_text("utf-8"), name)
        return (
            compile(tree, path, "exec", dont_inherit=True) if lines else super().get_code(fullname)
        )


class Finder:
    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] != "fastgan":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and relative(spec.origin):
            spec.loader = Loader(spec.loader.name, spec.loader.path)  # type: ignore[union-attr]
        return spec


def install() -> None:
    """Notes what runs into a file of this process, where FASTGAN_GPU_LINES names a folder."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return
    seen: set[tuple[str, int]] = set()

    def note(path: str, line: int) -> None:
        if (path, line) not in seen:
            seen.add((path, line))
            with open(Path(folder) / f"{os.getpid()}.txt", "a", encoding="utf-8") as file:
                file.write(f"{path}:{line}\n")

    builtins.__gpu_line__ = note  # type: ignore[attr-defined]
    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]


def product() -> Iterator[tuple[str, str]]:
    for top in PRODUCT:
        for path in sorted((ROOT / top).rglob("*.py")):
            if path.resolve() == ROOT / path.relative_to(ROOT):
                yield path.relative_to(ROOT).as_posix(), path.read_text("utf-8")


def wanted() -> dict[str, set[int]]:
    """Every statement behind a GPU's branch: path to lines."""
    found = {path: noted(source, path)[1] for path, source in product()}
    return {path: lines for path, lines in found.items() if lines}


def ran(folder: Path) -> dict[str, set[int]]:
    """What the processes of the mocked tests noted."""
    found: dict[str, set[int]] = {}
    for file in folder.glob("*.txt"):
        for entry in file.read_text("utf-8").split():
            path, _, line = entry.rpartition(":")
            found.setdefault(path, set()).add(int(line))
    return found


def missed(folder: Path) -> list[tuple[str, int, str]]:
    """(path, line, its text) of the statements that did not run."""
    seen = ran(folder)
    return [
        (path, line, (ROOT / path).read_text("utf-8").splitlines()[line - 1].strip())
        for path, lines in wanted().items()
        for line in sorted(lines - seen.get(path, set()))
    ]


def reason(path: str) -> str:
    return REASONS[max((key for key in REASONS if path.startswith(key)), key=len)]


def page(left: list[tuple[str, int, str]]) -> str:
    """docs/internals/gpu-lines.md."""
    total = sum(map(len, wanted().values()))
    share = 100 * (total - len(left)) / total
    lines = [
        "# Behind a GPU's branches",
        "",
        f"{total} statements of the product run on a GPU alone. The mocked tests run "
        f"{total - len(left)} of",
        f"them, {share:.1f} %; the others are below. Made by",
        "`python tests/support/mock_cuda/coverage.py --write docs/internals/gpu-lines.md`.",
        "",
        "| file | statement | why no mocked test runs it |",
        "|---|---|---|",
    ]
    cell = lambda text: text.replace("|", "\\|")
    lines += [f"| `{path}` | `{cell(text)}` | {reason(path)} |" for path, _, text in left]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="GPU statements that no mocked test runs")
    parser.add_argument("--write", type=Path, help="a page with the list")
    chosen = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import mock_cuda

    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(Path(__file__).parent.glob("mocked_*.py")):
            done = mock_cuda.process(
                *("-m", "pytest", "-q", "-p", "no:randomly", "-m", "not slow", str(path)),
                env={VARIABLE: folder},
            )
            print(path.name, done.stdout.strip().splitlines()[-1])
        text = page(missed(Path(folder)))
    print(text)
    if chosen.write:
        chosen.write.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
