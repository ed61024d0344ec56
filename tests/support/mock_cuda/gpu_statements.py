"""Which statements of the product run on a GPU first: those that no run without one can reach.

Two facts decide: G, a GPU is there and meant, and I, Triton's interpreter runs the kernels (on a
CPU). The state of a place in the program is the set of their four combinations under which it can
be reached, and a place counts if none of them is without G: each statement, and within statements
each value of a conditional expression and each later operand of `and` or `or` that calls
something. Conditions narrow a state: about G they are `x.is_cuda`, `x.is_cpu`, `device.type ==
"cuda"` (or "cpu"), `torch.cuda.is_available()`, a parameter called `on_gpu`, `gpu` or `cuda`, a
chosen engine that is "cudnn"; about I, `INTERPRET`. So does a call of `torch.cuda` that raises
without a GPU. They go on through `not`, `and`, `or`, `is None`, branches that leave, variables,
attributes and what functions return. A function is reached where its name is used, a method where
its name and its class are, and what frameworks or users call always: helpers of GPU code alone
count whole, such as the class of CUDA graphs, the tuner, the meter of energy. Names are resolved no
further, so that a name shared with code for a CPU hides a place; no list leaves a file out.

Kernels' own bodies don't count, nor do launchers: both run in the interpreter in ordinary tests.
Statements behind `x.is_cuda or INTERPRET` don't for the same reason. Benchmarks count as the rest
does: what they run first on a GPU costs GPU minutes when it fails.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mock_cuda.gpu_values import ALL, ANYTHING, GPU, Facts, Value, Values, last_name, of_torch_cuda

ROOT = Path(__file__).resolve().parents[3]
PRODUCT = ("fastgan", "kernels", "bench")

PLAIN_DECORATORS = {
    *("constant", "cache", "cached_property", "classmethod", "contextmanager"),
    *("dataclass", "disable", "final", "lru_cache", "no_grad", "once_differentiable", "overload"),
    *("override", "property", "setter", "staticmethod", "total_ordering", "inference_mode"),
}
PLAIN_BASES = {"ABC", "Enum", "Generic", "NamedTuple", "Protocol", "StrEnum"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Program:
    """Every module's tree, and the names that the modules use and define."""

    def __init__(self, trees: dict[str, ast.Module]) -> None:
        self.trees, self.facts = trees, Facts()
        self.functions: set[str] = set()
        self.classes: set[str] = set()
        self.used: set[str] = set()
        self.stored: set[str] = set()
        self.fields: set[str] = set()
        for tree in trees.values():
            for node in ast.walk(tree):
                self._collect(node)
        self.public = {
            name
            for node in ast.walk(trees.get("fastgan/__init__.py", ast.Module([], [])))
            if isinstance(node, ast.Constant) and isinstance(name := node.value, str)
        }

    def _collect(self, node: ast.AST) -> None:
        if isinstance(node, Function):
            self.functions.add(node.name)
        elif isinstance(node, ast.ClassDef):
            self.classes.add(node.name)
            for statement in node.body:
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    self.fields.add(statement.target.id)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            self.used.add(node.id)
        elif isinstance(node, ast.Attribute):
            (self.used if isinstance(node.ctx, ast.Load) else self.stored).add(node.attr)
        elif isinstance(node, ast.Call) and last_name(node) in ("setattr", "__setattr__"):
            self.fields |= {a.value for a in node.args if isinstance(a, ast.Constant)}

    def places(self) -> dict[str, set[int]]:
        """Path to what runs on a GPU first, by its number in ast.walk's order."""
        while True:
            self.facts.changed, found = False, {}
            for path, tree in self.trees.items():
                walk = Walk(self, path)
                walk.block(tree.body, ALL)
                found[path] = walk.seen
            if not self.facts.changed:
                break
        numbers = {
            path: {id(node): i for i, node in enumerate(ast.walk(tree))}
            for path, tree in self.trees.items()
        }
        return {
            path: {numbers[path][at] for at, state in seen.items() if state and not state & ~GPU}
            for path, seen in found.items()
        }


class Walk(Values):
    """One module under what is known so far."""

    def __init__(self, program: Program, path: str) -> None:
        super().__init__(program, path)
        self.function: Any = None
        self.cls: tuple[str, int, bool] | None = None
        self.seen: dict[int, int] = {}
        self.globals: list[set[str]] = [set()]

    def at(self, node: ast.AST, state: int) -> None:
        self.seen[id(node)] = self.seen.get(id(node), 0) | state

    def block(self, body: list[ast.stmt], state: int) -> int:
        for statement in body:
            state = self.statement(statement, state)
        return state

    def statement(self, node: ast.stmt, state: int) -> int:
        if isinstance(node, Function):
            return self.define(node, state)
        if isinstance(node, ast.ClassDef):
            return self.define_class(node, state)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self.at(node, state)
            names = [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
            self.forget(names)
            if (getattr(node, "module", "") or "").partition(".")[0] == "fastgan":
                self.ours.update(names)
            return state
        if isinstance(node, ast.Global):
            self.globals[-1].update(node.names)
        quiet = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if quiet or isinstance(node, (ast.Pass, ast.Global, ast.Nonlocal)):
            return state
        for value in self.own(node):
            state &= self.expression(value, state)
        self.at(node, state)
        if isinstance(node, ast.If):
            true, false = self.test(node.test)
            return self.block(node.body, state & true) | self.block(node.orelse, state & false)
        if isinstance(node, ast.While):
            self.block(node.body, state & self.test(node.test)[0])
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            self.targets(node.target)
            self.block(node.body, state)
            self.block(node.orelse, state)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                self.targets(item.optional_vars)
            out = self.block(node.body, state)
            swallows = any("suppress" in ast.unparse(item.context_expr) for item in node.items)
            return state if swallows else out
        elif isinstance(node, ast.Try):
            return self.trial(node, state)
        elif isinstance(node, ast.Match):
            out = state
            for case in node.cases:
                self.targets(case.pattern)
                out |= self.block(case.body, state)
            return out
        elif isinstance(node, ast.Assert):
            return state & self.test(node.test)[0]
        elif isinstance(node, (ast.Return, ast.Raise, ast.Continue, ast.Break)):
            if isinstance(node, ast.Return):
                found = self.value(node.value) if node.value else Value(0, 0, ALL)
                self.returns(found.within(state))
            return 0
        else:
            self.assigned(node, state)
        return state

    def trial(self, node: ast.Try, state: int) -> int:
        out = self.block(node.orelse, self.block(node.body, state))
        for handler in node.handlers:
            self.forget([handler.name] if handler.name else [])
            out |= self.block(handler.body, state)
        if node.finalbody:
            self.block(node.finalbody, state)
        return out

    def own(self, node: ast.stmt) -> Iterator[ast.expr]:
        """The expressions of a statement that are not in its blocks."""
        for name, child in ast.iter_fields(node):
            if name in ("annotation", "body", "orelse", "handlers", "finalbody", "cases"):
                continue
            for one in child if isinstance(child, list) else [child]:
                if isinstance(one, ast.withitem):
                    yield one.context_expr
                elif isinstance(one, ast.expr):
                    yield one

    def assigned(self, node: ast.stmt, state: int) -> None:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, self.value(node.value)
        elif isinstance(node, ast.AnnAssign):
            if node.value is None:
                return
            targets, value = [node.target], self.value(node.value)
        elif isinstance(node, ast.AugAssign):
            targets, value = [node.target], ANYTHING
        else:
            return
        for target in targets:
            self.targets(target, value.within(state))

    def targets(self, node: Any, value: Value = ANYTHING) -> None:
        """Stores into names and attributes; into several at once nothing is known of."""
        if isinstance(node, ast.Name):
            self.facts.assign((self.scope(node.id), node.id), value)
        elif isinstance(node, ast.Attribute):
            self.facts.assign(("attribute", node.attr), value)
        elif isinstance(node, ast.AST):
            for part in ast.walk(node):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    self.facts.assign((self.scope(part.id), part.id), ANYTHING)
                elif isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
                    self.facts.assign(("attribute", part.attr), ANYTHING)
                elif isinstance(part, (ast.MatchAs, ast.MatchStar)) and part.name:
                    self.facts.assign((self.scopes[-1], part.name), ANYTHING)

    def scope(self, name: str) -> Any:
        return self.path if name in self.globals[-1] else self.scopes[-1]

    def forget(self, names: Iterable[str]) -> None:
        for name in names:
            self.facts.assign((self.scopes[-1], name), ANYTHING)

    def returns(self, value: Value) -> None:
        if self.function is not None:
            self.facts.assign(("returns", self.function), value)

    def expression(self, node: ast.expr, state: int) -> int:
        """Notes the names used; the states that are left where all of it has run."""
        if isinstance(node, ast.IfExp):
            left = self.expression(node.test, state) & state
            true, false = self.test(node.test)
            for branch, mask in ((node.body, true), (node.orelse, false)):
                self.at(branch, left & mask)
                self.expression(branch, left & mask)
            return left
        if isinstance(node, ast.BoolOp):
            here = left = self.expression(node.values[0], state) & state
            for before, value in zip(node.values, node.values[1:], strict=False):
                here &= self.test(before)[0 if isinstance(node.op, ast.And) else 1]
                if any(isinstance(part, ast.Call) for part in ast.walk(value)):
                    self.at(value, here)
                self.expression(value, here)
            return left
        if isinstance(node, ast.Lambda):
            self.scopes.append((self.path, node.lineno, node.col_offset))
            self.unknown.append(set(arguments(node)))
            self.expression(node.body, state)
            self.scopes.pop(), self.unknown.pop()
            return state
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            return self.comprehension(node, state)
        if isinstance(node, ast.Call) and last_name(node) in ("isinstance", "issubclass"):
            return self.expression(node.args[0], state)
        if isinstance(node, ast.NamedExpr):
            self.targets(node.target, self.value(node.value).within(state))
        if of_torch_cuda(node):
            state &= GPU
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            self.facts.reach(("name", node.id), state)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            self.facts.reach(("attribute", node.attr), state)
        for child in children(node):
            if isinstance(child, ast.keyword):
                child = child.value
            if isinstance(child, ast.expr):
                state &= self.expression(child, state)
        return state

    def comprehension(self, node: Any, state: int) -> int:
        inner = first = state & self.expression(node.generators[0].iter, state)
        for generator in node.generators:
            self.targets(generator.target)
            if generator is not node.generators[0]:
                self.expression(generator.iter, inner)
            for condition in generator.ifs:
                self.expression(condition, inner)
                inner &= self.test(condition)[0]
        for part in ("elt", "key", "value"):
            if (value := getattr(node, part, None)) is not None:
                self.expression(value, inner)
        return first

    def entry(self, node: Function, state: int) -> int:
        """The states in which a function may be called."""
        name, program = node.name, self.program
        names = [last_name(d) for d in node.decorator_list]
        hidden = any(n not in PLAIN_DECORATORS for n in names)
        if self.cls is not None:
            _, entry, foreign = self.cls
            called = self.facts.states.get(("attribute", name), 0)
            free = foreign or hidden or name.startswith("__") or name not in program.used
            return entry if free else entry & called
        if len(self.scopes) > 1:
            return state
        free = hidden or name not in program.used or name in program.public
        called = self.facts.states.get(("name", name), 0)
        return ALL if free else called | self.facts.states.get(("attribute", name), 0)

    def define(self, node: Function, state: int) -> int:
        for outer in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults):
            if outer is not None:
                self.expression(outer, state)
        self.facts.assign((self.scopes[-1], node.name), Value(ALL, 0, 0))
        if is_kernel(node):
            for name in named(node):  # runs on the device: what it calls does too
                self.facts.reach(("name", name), ALL)
                self.facts.reach(("attribute", name), ALL)
            return state
        entry = self.entry(node, state)
        kept = self.function, self.cls
        self.function, self.cls = node.name, None
        self.scopes.append((self.path, node.lineno, node.name))
        self.unknown.append(set(arguments(node)))
        self.globals.append(set())
        out = self.block(node.body, entry)
        self.returns(ANYTHING if yields(node) or kept[1] else Value(0, 0, out))
        if yields(node) or isinstance(node, ast.AsyncFunctionDef) or node.decorator_list:
            self.returns(ANYTHING)
        self.scopes.pop(), self.unknown.pop(), self.globals.pop()
        self.function, self.cls = kept
        return state

    def define_class(self, node: ast.ClassDef, state: int) -> int:
        program, facts = self.program, self.facts
        bases = [
            last_name(base.value if isinstance(base, ast.Subscript) else base)
            for base in node.bases
        ]
        for base in node.bases:
            self.expression(base, 0)
        free = node.name not in program.used or node.name in program.public
        used = facts.states.get(("name", node.name), 0) | facts.states.get(
            ("attribute", node.name), 0
        )
        entry = (
            ALL
            if free
            or (
                node.decorator_list
                and any(last_name(d) not in PLAIN_DECORATORS for d in node.decorator_list)
            )
            else used
        )
        for base in bases:  # a subclass runs what its bases define
            facts.reach(("name", base), entry)
        foreign = any(b not in program.classes and b not in PLAIN_BASES for b in bases)
        kept, self.cls = self.cls, (node.name, entry, foreign)
        self.block(node.body, state)
        self.cls = kept
        for statement in node.body:
            if isinstance(statement, ast.Assign):
                for target in statement.targets:
                    if isinstance(target, ast.Name):
                        facts.assign(("attribute", target.id), self.value(statement.value))
        return state


@functools.cache
def children(node: ast.AST) -> tuple[ast.AST, ...]:
    return (*ast.iter_child_nodes(node),)


@functools.cache
def is_kernel(node: Function) -> bool:
    return any(ast.unparse(d).startswith(("triton", "jit", "gluon")) for d in node.decorator_list)


@functools.cache
def named(node: Function) -> frozenset[str]:
    """What a function refers to."""
    inner = (n for n in ast.walk(node) if isinstance(n, (ast.Name, ast.Attribute)))
    return frozenset(map(last_name, inner))


@functools.cache
def arguments(node: Function | ast.Lambda) -> frozenset[str]:
    return frozenset(a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg))


@functools.cache
def yields(node: Function) -> bool:
    return any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in ast.walk(node))


def product() -> Iterator[tuple[str, str]]:
    """Path and source of every module."""
    for top in PRODUCT:
        for path in sorted((ROOT / top).rglob("*.py")):
            if path.resolve() == ROOT / path.relative_to(ROOT):
                yield path.relative_to(ROOT).as_posix(), path.read_text("utf-8")


def places() -> dict[str, set[int]]:
    """Path to what runs on a GPU first, by its number in ast.walk's order."""
    trees = {path: ast.parse(source) for path, source in product()}
    return {path: found for path, found in Program(trees).places().items() if found}
