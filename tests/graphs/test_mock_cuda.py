"""The branches that need a GPU, run without one: each file of tests/mock_cuda that begins with `mocked_`, in a process of its own
whose CUDA is the CPU."""

from pathlib import Path

import pytest

pytest.importorskip("triton")

import mock_cuda

FILES = sorted(Path(mock_cuda.__file__).parent.glob("mocked_*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_on_the_mock(path):
    done = mock_cuda.process("-m", "pytest", "-q", "--no-header", "-p", "no:randomly", str(path))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
