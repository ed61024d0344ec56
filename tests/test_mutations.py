"""Every planted bug must be caught by ``verify --quick``; a mutation whose text is gone fails, so that the list follows the
kernels.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

pytest.importorskip("triton")
from mutants import Mutation, mutate  # noqa: E402
from mutations import MUTATIONS  # noqa: E402

# The bugs that must be caught, as prefixes of mutation names: none may lose its mutation.
REQUIRED = (
    "boundary block",
    "odd-channel mask",
    "group straddle",
    "padding before the activation",
    "unmasked g",
    "biased variance",
    "eps inside against outside the root",
    "dropped last split",
    "statistics before rounding",
    "wrong leaky slope",
    "int32 offset",
    "step off by one in Adam",
    "swapped real and fake",
)


def test_mutate_changes_one_place():
    m = Mutation("x", "op", "f", "a", "b", after="c")
    assert mutate("a c a a", m) == "a c b a"
    assert mutate("a c", m) is None
    assert mutate("a a", m) is None


@pytest.mark.parametrize("bug", REQUIRED)
def test_every_required_bug_has_a_mutation(bug):
    assert any(m.name.startswith(bug) for m in MUTATIONS)


@pytest.fixture(scope="module")
def verdicts():
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(HERE / "mutants.py")], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return {r["name"]: r for r in map(json.loads, done.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize("op", dict.fromkeys(m.op for m in MUTATIONS))
def test_unchanged_op_passes(verdicts, op):
    assert verdicts[f"unchanged {op}"]["verdict"] == "survived", verdicts[f"unchanged {op}"]["note"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [m.name for m in MUTATIONS])
def test_bug_is_caught(verdicts, name):
    assert verdicts[name]["verdict"] == "caught", verdicts[name]
