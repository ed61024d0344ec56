"""How much of what runs on a GPU first (gpu_statements.py) the mocked tests run.

    python tests/support/mock_cuda/coverage.py --write docs/internals/gpu-lines.md

Modules that have such places are compiled with a note before each, in every process of the mocked
tests where FASTGAN_GPU_LINES names a folder; nothing is traced, so they take as long as without. A
place counts as run in mocked tests alone: what an ordinary test, Triton's interpreter or the fake
driver of `fastgan bench --launches` runs of it is not counted.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import functools
import json
import os
import sys
import tempfile
from collections import Counter
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
from mock_cuda import gpu_statements
from mock_cuda.gpu_statements import PRODUCT, ROOT
from mock_cuda.reasons import REASONS

VARIABLE = "FASTGAN_GPU_LINES"
WANTED = "wanted.json"
PAGE = ROOT / "docs/internals/gpu-lines.md"

STAND_INS = """
- clocks: events tell the host's time, so that tables and rows are made of numbers without meaning
- torch.compile: compiled rows run uncompiled; Triton's kernels run in its interpreter, and which
  configurations compile is `fastgan verify --aot`'s to show
- cuDNN: PyTorch's convolutions of a CPU
- NCCL: the call is checked, then gloo joins one process
- NVML: a module with a GPU of 400 W; torch's profiler finds no kernels
- memory: sizes are made up; the ceilings' half gigabyte and 8192-wide products are not computed
""".strip().splitlines()


class Place(NamedTuple):
    """A statement, or a part of one; `text` is its first line as Python writes it."""

    path: str
    number: int
    line: int
    function: str
    text: str


def texts(path: str, numbers: set[int]) -> list[Place]:
    """The places of one module by their numbers in ast.walk's order."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    inside: dict[int, str] = {}
    for node in ast.walk(tree):  # outer ones first: the innermost name stays
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{inside.get(id(node), '')}.{node.name}".strip(".")
            inside |= dict.fromkeys(map(id, ast.walk(node)), name)
    found = []
    for number, node in enumerate(ast.walk(tree)):
        if number in numbers:
            assert isinstance(node, (ast.stmt, ast.expr))
            text = ast.unparse(node).splitlines()[0]
            found.append(Place(path, number, node.lineno, inside.get(id(node), ""), text))
    return sorted(found, key=lambda place: (place.line, place.number))


@functools.cache
def wanted() -> tuple[Place, ...]:
    """Every place that runs on a GPU first."""
    return tuple(p for path, found in gpu_statements.places().items() for p in texts(path, found))


class Noting(ast.NodeTransformer):
    """Puts a note before each of the places."""

    def __init__(self, path: str, numbers: dict[int, int]) -> None:
        self.path, self.numbers = path, numbers

    def visit(self, node: ast.AST) -> Any:
        number = self.numbers.get(id(node))
        self.generic_visit(node)
        if number is None:
            return node
        note = ast.Call(
            ast.Name("__gpu_line__", ast.Load()),
            [ast.Constant(self.path), ast.Constant(number)],
            [],
        )
        if isinstance(node, ast.stmt):
            return [ast.copy_location(ast.Expr(note), node), node]
        return ast.copy_location(ast.BoolOp(ast.Or(), [note, node]), node)  # type: ignore[list-item]


def noted(source: str, path: str, numbers: set[int]) -> ast.Module:
    tree = ast.parse(source)
    chosen = {id(node): i for i, node in enumerate(ast.walk(tree)) if i in numbers}
    return ast.fix_missing_locations(Noting(path, chosen).visit(tree))


def relative(path: str | None) -> str | None:
    """The path in the tree of a product file, symbolic links followed; None for another's."""
    if not path or not path.endswith(".py"):
        return None
    real = Path(path).resolve()
    if not real.is_relative_to(ROOT):
        return None
    name = real.relative_to(ROOT)
    return name.as_posix() if name.parts[0] in PRODUCT else None


def install() -> None:
    """Notes what runs into a file of this process, where FASTGAN_GPU_LINES names a folder."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return
    numbers = json.loads((Path(folder) / WANTED).read_text("utf-8"))
    seen: set[tuple[str, int]] = set()

    def note(path: str, number: int) -> None:
        if (path, number) not in seen:
            seen.add((path, number))
            with open(Path(folder) / f"{os.getpid()}.txt", "a", encoding="utf-8") as file:
                file.write(f"{path}:{number}\n")

    class Loader(SourceFileLoader):
        def get_code(self, fullname: str) -> Any:
            path = self.get_filename(fullname)
            name = relative(path)
            if name not in numbers:
                return super().get_code(fullname)
            tree = noted(Path(path).read_text("utf-8"), name, set(numbers[name]))
            return compile(tree, path, "exec", dont_inherit=True)

    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            if name.partition(".")[0] != "fastgan":
                return None
            spec = PathFinder.find_spec(name, path, target)
            if spec is not None and relative(spec.origin):
                spec.loader = Loader(spec.loader.name, spec.loader.path)  # type: ignore[union-attr]
            return spec

    builtins.__gpu_line__ = note  # type: ignore[attr-defined]
    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]


def measure(only: str = "") -> tuple[set[tuple[str, int]], list[str]]:
    """Runs the mocked tests, but the slow: what they ran, and what pytest said where it failed."""
    import mock_cuda

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        numbers: dict[str, list[int]] = {}
        for place in wanted():
            numbers.setdefault(place.path, []).append(place.number)
        (folder / WANTED).write_text(json.dumps(numbers), "utf-8")
        failed = []
        for path in sorted(Path(__file__).parent.glob(f"mocked_{only}*.py")):
            done = mock_cuda.process(
                *("-m", "pytest", "-q", "--no-header", "-p", "no:randomly", "-m", "not slow"),
                str(path),
                env={VARIABLE: name},
            )
            if done.returncode:
                failed.append(done.stdout[-6000:] + done.stderr[-3000:])
        ran = set()
        for file in folder.glob("*.txt"):
            for entry in file.read_text("utf-8").split():
                path_, _, number = entry.rpartition(":")
                ran.add((path_, int(number)))
    return ran, failed


def reason(place: Place) -> str | None:
    return REASONS.get(place.path, {}).get(f"{place.function}: {place.text}")


def row(place: Place) -> str:
    text = place.text.replace("|", "\\|").replace("`", "'")
    return f"| `{place.path}` {place.function} | `{text}` | {reason(place) or 'not yet'} |"


def page(ran: set[tuple[str, int]]) -> str:
    """docs/internals/gpu-lines.md."""
    places = wanted()
    left = [place for place in places if (place.path, place.number) not in ran]
    share = 100 * (len(places) - len(left)) / len(places)
    part = lambda path: "/".join(path.split("/")[: 1 if path.startswith("kernels") else 2])
    total = Counter(part(place.path) for place in places)
    missed = Counter(part(place.path) for place in left)
    rule = (gpu_statements.__doc__ or "").strip().split("\n\n")[1:]
    return "\n".join(
        [
            "# What runs on a GPU first",
            "",
            "Nothing that runs without a GPU can reach these statements. Tests on a mock of CUDA",
            "([what it keeps and refuses](../../tests/support/mock_cuda/__init__.py)) run "
            f"{len(places) - len(left)} of {len(places)},",
            f"{share:.1f} %; the others are listed below with the reason. Made by",
            "`python tests/support/mock_cuda/coverage.py --write docs/internals/gpu-lines.md`.",
            "",
            "## What counts",
            "",
            *"\n\n".join(rule).splitlines(),
            "",
            "## What runs with a stand-in",
            "",
            "A statement that runs under the mock has not met these:",
            "",
            *STAND_INS,
            "",
            "## By package",
            "",
            "| package | first on a GPU | run by the mock |",
            "|---|---:|---:|",
            *(f"| {name} | {n} | {n - missed[name]} |" for name, n in sorted(total.items())),
            "",
            "## Not run",
            "",
            "| where | what | why no mocked test runs it |",
            "|---|---|---|",
            *map(row, left),
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", type=Path, help="the page")
    parser.add_argument("--only", default="", help="the mocked file of this name alone")
    chosen = parser.parse_args()
    ran, failed = measure(chosen.only)
    print(text := page(ran))
    print(*failed, sep="\n", file=sys.stderr)
    if chosen.write:
        chosen.write.write_text(text, "utf-8")
    return bool(failed)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from mock_cuda.coverage import main as run  # the module that children import too

    sys.exit(run())
