"""The convolution kernels in Triton's interpreter: each check in a process of its own, since the interpreter is chosen at
import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastgan.kernels._common import has_triton

pytestmark = pytest.mark.skipif(not has_triton, reason="needs Triton")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["geometry", "configurations", "gradient_pass", "containers", "switch"])
def test_interpreted(name):
    script = Path(__file__).with_name("interpreted_conv.py")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[1])}
    done = subprocess.run([sys.executable, str(script), name], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
