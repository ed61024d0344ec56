"""Every planted bug must be caught by ``verify --quick``; a mutation whose text is gone fails, so
that the list follows the kernels.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1] / "support"
sys.path.insert(0, str(HERE))

pytest.importorskip("triton")
from mutants import Mutation, Share, mutate  # noqa: E402
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
    "activation: three times the gradient",
    "loss: three times the gradient",
)


def test_mutate_changes_one_place():
    m = Mutation("x", "op", "f", "a", "b", after="c")
    assert mutate("a c a a", m) == "a c b a"
    assert mutate("a c", m) is None
    assert mutate("a a", m) is None


def test_work_is_claimed_once_and_a_dead_claimant_is_noticed(tmp_path):
    share, other = Share(tmp_path), Share(tmp_path)
    assert share.claim("a: bug")
    assert not other.claim("a: bug")
    share.put({"name": "a: bug", "verdict": "caught"})
    assert other.get("a: bug")["verdict"] == "caught"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "b.claim").write_text(str(gone.pid))
    assert "died" in other.get("b")["note"]


@pytest.mark.parametrize("bug", REQUIRED)
def test_every_required_bug_has_a_mutation(bug):
    assert any(m.name.startswith(bug) for m in MUTATIONS)


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """Every planted bug is judged once a run: workers of pytest-xdist share the folder above their
    own, and divide the work."""
    base, workers = (
        tmp_path_factory.getbasetemp(),
        int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")),
    )
    share = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "planted-bugs"
    share.mkdir(exist_ok=True)
    at_once = max(1, min(4, len(os.sched_getaffinity(0))) // workers)
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        str(HERE / "mutants.py"),
        "--share",
        str(share),
        "--at-once",
        str(at_once),
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return {r["name"]: r for r in (json.loads(path.read_text()) for path in share.glob("*.json"))}


@pytest.mark.long
@pytest.mark.parametrize("op", dict.fromkeys(m.op for m in MUTATIONS))
def test_unchanged_op_passes(verdicts, op):
    assert verdicts[f"unchanged {op}"]["verdict"] == "survived", verdicts[f"unchanged {op}"]["note"]


@pytest.mark.long
@pytest.mark.parametrize("name", [m.name for m in MUTATIONS])
def test_bug_is_caught(verdicts, name):
    assert verdicts[name]["verdict"] == "caught", verdicts[name]
