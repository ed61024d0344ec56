"""Which statements run on a GPU first, and that nearly all of them run under the mock."""

import ast

import pytest
from mock_cuda import coverage, gpu_statements
from mock_cuda.reasons import REASONS


def found(**modules):
    """The texts of what is found in modules of these sources, in order."""
    trees = {f"fastgan/{name}.py": ast.parse(source) for name, source in modules.items()}
    places = gpu_statements.Program(trees).places()
    return [
        ast.unparse(node).splitlines()[0]
        for path, tree in trees.items()
        for number, node in enumerate(ast.walk(tree))
        if number in places[path]
    ]


CASES = {
    "the body of a condition, and what follows one that leaves": (
        "def f(x):\n  if not x.is_cuda:\n    return 1\n  y = 2\n  return y",
        ["y = 2", "return y"],
    ),
    "and, or, not": (
        "def f(x, a):\n"
        "  if a or x.device.type == 'cuda':\n    a = 1\n"
        "  if not (a or not x.is_cuda):\n    a = 2\n"
        "  if x.is_cpu and a:\n    a = 3\n  elif a:\n    a = 4\n",
        ["a = 2"],
    ),
    "values of expressions": (
        "def f(x):\n  return g() if x.is_cuda else h(), x.is_cuda and k(), x.is_cuda or m()",
        ["g()", "k()"],
    ),
    "variables, also None": (
        "def f(x):\n"
        "  here, stream = x.is_cuda, None\n"
        "  there = x.is_cuda\n"
        "  copies = None\n"
        "  if there:\n    copies = make()\n"
        "  if here:\n    a = 1\n"
        "  if copies is not None:\n    b = 1\n"
        "  c = 1\n",
        ["copies = make()", "b = 1"],
    ),
    "the interpreter's runs are no GPU's": (
        "def f(x):\n"
        "  if not (x.is_cuda or INTERPRET):\n    return 0\n"
        "  a = 1\n"
        "  return a if INTERPRET else launch(x)\n",
        ["launch(x)"],
    ),
    "calls that raise without a GPU": (
        "def f():\n  try:\n    torch.cuda.synchronize()\n    a = 1\n"
        "  except RuntimeError:\n    b = 1\n  c = 1\n",
        ["torch.cuda.synchronize()", "a = 1"],
    ),
    "a function by its calls, and by what it returns": (
        "def f(x):\n"
        "  helper(x) if x.is_cuda else None\n"
        "  both(x) if x.is_cuda else both(x)\n"
        "  if made(x) is None:\n    return\n"
        "  a = 1\n"
        "def helper(x):\n  b = 1\n"
        "def both(x):\n  c = 1\n"
        "def made(x):\n  if not x.is_cuda:\n    return None\n  return 5\n",
        ["a = 1", "b = 1", "return 5", "helper(x)", "both(x)"],
    ),
    "a method by its class, an attribute by what is stored": (
        "class Graph:\n  def replay(self):\n    a = 1\n"
        "class Recorded:\n  def replay(self):\n    b = 1\n"
        "class Step:\n"
        "  def __init__(self, x):\n"
        "    self.graph = Graph() if x.is_cuda else None\n"
        "  def run(self, recorded):\n"
        "    Recorded().replay()\n"
        "    if self.graph:\n      self.graph.replay()\n",
        ["self.graph.replay()", "Graph()", "a = 1"],
    ),
    "kernels' bodies run in the interpreter": (
        "@triton.jit\ndef kernel(x, gpu):\n  if gpu:\n    y = 1\n",
        [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_found(name):
    source, wanted = CASES[name]
    assert sorted(found(one=source)) == sorted(wanted)


def test_found_across_modules():
    assert found(
        one="from fastgan.two import far\ndef f(gpu):\n  if gpu:\n    far()\n",
        two="def far():\n  a = 1\n",
    ) == ["far()", "a = 1"]


def test_notes_leave_a_module_as_it_is():
    source = "def f(x):\n  if x.is_cuda:\n    return 1\n  return 3 if x.is_cuda else 2\n"
    tree = ast.parse(source)
    (numbers,) = gpu_statements.Program({"fastgan/one.py": tree}).places().values()
    seen = []
    scope = {"__gpu_line__": lambda path, number: seen.append(number)}
    exec(compile(coverage.noted(source, "one", numbers), "one", "exec"), scope)
    device = type("Device", (), {"is_cuda": False})
    assert (scope["f"](device), seen) == (2, [])
    device.is_cuda = True
    assert scope["f"](device) == 1
    assert len(seen) == 1


@pytest.mark.slow
def test_reasons_are_of_what_is_there_and_on_the_page():
    there = {(p.path, f"{p.function}: {p.text}") for p in coverage.wanted()}
    named = {(path, key) for path, keys in REASONS.items() for key in keys}
    assert named <= there
    text = coverage.PAGE.read_text("utf-8")
    shown = [coverage.row(p) for p in coverage.wanted() if coverage.reason(p)]
    assert [line for line in shown if line not in text] == []
    assert "| not yet |" not in text


@pytest.mark.long
def test_nearly_all_that_runs_on_a_gpu_first_runs_under_the_mock():
    pytest.importorskip("triton")
    ran, failed = coverage.measure()
    assert not failed, failed
    places = [p for p in coverage.wanted() if coverage.reason(p) is None]
    left = [p for p in places if (p.path, p.number) not in ran]
    assert len(left) <= 0.05 * len(places), "\n".join(map(coverage.row, left))
