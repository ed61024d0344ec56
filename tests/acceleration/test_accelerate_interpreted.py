"""Accelerated networks on the Triton kernels: the interpreter is chosen when Triton is imported, so
the checks run in a process of their own.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="needs Triton")

HOME_MADE = "test_by_the_operator_values_gradients_and_vectors_are_the_same[nhwc]"


@pytest.mark.slow
def test_accelerated_networks_on_the_kernels():
    here = pathlib.Path(__file__).parents[1] / "support"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("FASTGAN_IMPL", None)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--no-header",
        "-x",
        str(here / "interpreted_swap.py"),
        f"{pathlib.Path(__file__).parent / 'test_home_made_spectral.py'}::{HOME_MADE}",
    ]
    done = subprocess.run(
        command, env=environment, cwd=here.parents[1], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
