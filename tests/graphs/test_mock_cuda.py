"""The branches that need a GPU, run without one: each file of tests/support/mock_cuda that begins
with `mocked_`, in a process of its own whose CUDA is the CPU."""

from pathlib import Path

import pytest

pytest.importorskip("triton")

import mock_cuda

FILES = sorted(Path(mock_cuda.__file__).parent.glob("mocked_*.py"))
MINUTES = ("mocked_bench", "mocked_measuring", "mocked_recipes", "mocked_stages", "mocked_tuning")
"""Run by test_gpu_statements.py, which notes what every file's tests run."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [f for f in FILES if f.stem not in MINUTES], ids=lambda path: path.stem
)
def test_on_the_mock(path):
    run(path, "not slow")


@pytest.mark.long
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_long_ones_on_the_mock(path):
    run(path, "slow")


def run(path: Path, marks: str) -> None:
    done = mock_cuda.process(
        "-m", "pytest", "-q", "--no-header", "-p", "no:randomly", "-m", marks, str(path)
    )
    assert done.returncode in (0, 5), (
        done.stdout[-6000:] + done.stderr[-3000:]
    )  # 5: a file without such tests
