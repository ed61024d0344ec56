"""What an expression may be, by whether a GPU is meant and whether Triton's interpreter runs: the
states that gpu_statements.py follows through the program."""

from __future__ import annotations

import ast
from typing import Any, NamedTuple

ALL, GPU, INTERPRETED = 0b1111, 0b1010, 0b1100  # bits: neither, G, I, both
PARAMETERS = {"on_gpu", "gpu", "cuda"}
NEEDS_GPU = {
    *("CUDAGraph", "Stream", "current_device", "current_stream", "default_generators"),
    *("get_device_capability", "get_device_name", "get_device_properties", "graph"),
    *("graph_pool_handle", "max_memory_allocated", "mem_get_info", "memory_allocated"),
    *("memory_reserved", "reset_peak_memory_stats", "set_device", "synchronize"),
}
"""Of torch.cuda: they raise on a machine without a GPU."""


class Value(NamedTuple):
    """The states in which an expression may be true, false but not None, or None."""

    true: int
    false: int
    none: int

    def __or__(self, other: Any) -> Value:
        return Value(*(a | b for a, b in zip(self, other, strict=True)))

    def within(self, state: int) -> Value:
        return Value(*(mask & state for mask in self))


NOTHING, ANYTHING = Value(0, 0, 0), Value(ALL, ALL, ALL)
IS_GPU = Value(GPU, ALL & ~GPU, 0)
NOT_GPU = Value(ALL & ~GPU, GPU, 0)


def last_name(node: ast.AST) -> str:
    """`c` of `a.b.c`, of `a.b.c(...)` and of `c`."""
    if isinstance(node, ast.Call):
        return last_name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def of_torch_cuda(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr in NEEDS_GPU
        and ast.unparse(node.value) == "torch.cuda"
    )


def _device(node: ast.expr) -> bool:
    """Whether what is compared with "cuda" is a device: not an engine, nor an entry of a file."""
    name = last_name(node).lower()
    return not isinstance(node, ast.Subscript) and (name == "type" or "device" in name)


class Facts:
    """What the whole program says of a name; grows until nothing new is found."""

    def __init__(self) -> None:
        self.states: dict[Any, int] = {}
        self.values: dict[Any, Value] = {}
        self.changed = False

    def reach(self, key: Any, state: int) -> None:
        old = self.states.get(key, 0)
        if old | state != old:
            self.states[key], self.changed = old | state, True

    def assign(self, key: Any, value: Value) -> None:
        old = self.values.get(key, NOTHING)
        if old | value != old:
            self.values[key], self.changed = old | value, True


class Values:
    """Reads the expressions of one module, of a program (its names and facts) that is known so
    far."""

    def __init__(self, program: Any, path: str) -> None:
        self.program, self.facts, self.path = program, program.facts, path
        self.scopes: list[Any] = [path]
        self.unknown: list[set[str]] = [set()]
        self.ours: set[str] = {"self", "cls"}

    def value(self, node: ast.expr) -> Value:
        if isinstance(node, ast.Constant):
            return (
                Value(0, 0, ALL)
                if node.value is None
                else Value(*((ALL, 0) if node.value else (0, ALL)), 0)
            )
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.value(node.operand)
            return Value(inner.false | inner.none, inner.true, 0)
        if isinstance(node, ast.BoolOp):
            return self._bool(node)
        if isinstance(node, ast.IfExp):
            true, false = self.test(node.test)
            return self.value(node.body).within(true) | self.value(node.orelse).within(false)
        if isinstance(node, ast.Compare):
            return self._compare(node)
        if isinstance(node, ast.NamedExpr):
            return self.value(node.value)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Name):
            return self._name(node.id)
        return ANYTHING

    def _bool(self, node: ast.BoolOp) -> Value:
        values = [self.value(v) for v in node.values]
        if isinstance(node.op, ast.And):
            true, out = ALL, NOTHING
            for value in values:  # a later one is asked where the earlier are true
                out |= Value(0, value.false & true, value.none & true)
                true &= value.true
            return Value(true, out.false, out.none)
        false, true = ALL, 0
        for value in values:
            true |= value.true & false
            false &= value.false | value.none
        return Value(true, false & values[-1].false, false & values[-1].none)

    def _compare(self, node: ast.Compare) -> Value:
        op, right = node.ops[0], node.comparators[0]
        if len(node.ops) == 1 and isinstance(right, ast.Constant):
            equal = isinstance(op, (ast.Eq, ast.Is))
            if isinstance(op, (ast.Is, ast.IsNot)) and right.value is None:
                left = self.value(node.left)
                found = Value(left.none, left.true | left.false, 0)
            elif right.value in ("cuda", "cpu") and _device(node.left):
                found = IS_GPU if right.value == "cuda" else NOT_GPU
            elif right.value == "cudnn" and last_name(node.left) == "engine":
                found = Value(GPU, ALL, 0)
            else:
                return Value(ALL, ALL, 0)
            return found if equal else Value(found.false, found.true, 0)
        return Value(ALL, ALL, 0)

    def _call(self, node: ast.Call) -> Value:
        name, owner = last_name(node), ast.unparse(getattr(node.func, "value", node.func))
        if name == "is_available" and owner == "torch.cuda":
            return IS_GPU
        if name == "is_current_stream_capturing" or (
            name == "is_available" and owner.endswith("cudnn")
        ):
            return Value(GPU, ALL, 0)
        if name in ("bool", "any", "all") and len(node.args) == 1:
            inner = node.args[0]
            if isinstance(inner, (ast.GeneratorExp, ast.ListComp)):
                inner = inner.elt
            found = self.value(inner)
            empty = ALL if name != "bool" else 0
            return Value(
                found.true | (empty if name == "all" else 0),
                found.false | found.none | (empty if name == "any" else 0),
                0,
            )
        mine = isinstance(node.func, ast.Name) or owner in self.ours
        if mine and name in self.program.functions and name not in self.program.classes:
            return self.facts.values.get(("returns", name), NOTHING)
        return ANYTHING

    def _attribute(self, node: ast.Attribute) -> Value:
        if node.attr in ("is_cuda", "is_cpu"):
            return IS_GPU if node.attr == "is_cuda" else NOT_GPU
        if node.attr == "INTERPRET":
            return Value(INTERPRETED, ALL & ~INTERPRETED, 0)
        program = self.program
        known = node.attr in program.stored and node.attr not in program.fields
        if known and node.attr not in program.functions:
            return self.facts.values.get(("attribute", node.attr), NOTHING)
        return ANYTHING

    def _name(self, name: str) -> Value:
        if name == "INTERPRET":
            return Value(INTERPRETED, ALL & ~INTERPRETED, 0)
        for scope, unknown in zip(reversed(self.scopes), reversed(self.unknown), strict=True):
            if name in unknown:
                return IS_GPU if name in PARAMETERS else ANYTHING
            if (scope, name) in self.facts.values:
                return self.facts.values[scope, name]
        return ANYTHING

    def test(self, node: ast.expr) -> tuple[int, int]:
        found = self.value(node)
        return found.true, found.false | found.none
