"""Upsampling and pooling by 2: PyTorch's values and derivatives; the kernels in Triton's
interpreter."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from fastgan.kernels.common import has_triton
from fastgan.ops.resample import average_pool, upsample

CHECK = """
import torch
import torch.nn.functional as F
from fastgan.ops.resample import average_pool, upsample

torch.manual_seed(0)
for shape in ((2, 3, 4, 6), (1, 16, 2, 2), (3, 1, 6, 4)):
    draw = lambda *size: torch.randn(*size).contiguous(memory_format=torch.channels_last)
    for ours, theirs in (
        (upsample, lambda x: F.interpolate(x, scale_factor=2.0)),
        (average_pool, lambda x: F.avg_pool2d(x, 2)),
    ):
        x = draw(*shape).requires_grad_()
        y, gold = ours(x, impl="triton"), theirs(x)
        assert torch.allclose(y, gold), ours
        dx, wanted = (torch.autograd.grad((v**3).sum(), x, create_graph=True)[0] for v in (y, gold))
        assert torch.allclose(dx, wanted, atol=1e-5)
        twice, wanted = (torch.autograd.grad((v**2).sum(), x)[0] for v in (dx, wanted))
        assert torch.allclose(twice, wanted, rtol=1e-4, atol=1e-4)
        assert ours(x.half(), impl="triton").dtype == torch.float16
print("agree")
"""


@pytest.mark.skipif(not has_triton, reason="needs Triton")
def test_kernels_are_pytorchs_to_second_order():
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "agree", done.stderr[-3000:]


def test_on_a_cpu_it_is_pytorch():
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(upsample(x), F.interpolate(x, scale_factor=2.0))
    assert torch.equal(average_pool(x), F.avg_pool2d(x, 2))
