"""Convolutions by TMA: in Triton's interpreter, each check in a process of its own; and where it is taken at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastgan.kernels import tuning
from fastgan.kernels._common import has_triton
from fastgan.kernels.conv_spec import ConvSpec
from fastgan.ops import conv_tma


@pytest.mark.skipif(not has_triton, reason="needs Triton")
@pytest.mark.parametrize("name", ["matrices", "containers", "fallback", "higher_order", "foreign_operands"])
def test_interpreted(name):
    script = Path(__file__).with_name("interpreted_tma.py")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[1])}
    done = subprocess.run([sys.executable, str(script), name], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_taken_on_sm_90_alone_and_only_where_the_table_says_so():
    x, w = torch.randn(1, 16, 4, 4).half(), torch.randn(16, 16, 4, 4)
    spec, shape = ConvSpec(False, (4, 4), (2, 2), (1, 1)), (("rows", 16),)
    assert conv_tma.lacks(x, w, spec) == "needs sm_90"
    with tuning.override({"conv_way": {"WAY": "tma"}}):
        assert conv_tma.engine_of(x, w, spec, shape) == "triton"
