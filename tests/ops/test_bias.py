"""A bias for each channel: refused where it doesn't fit, PyTorch's on a CPU; fastgan.verify proves
the numbers."""

import pytest
import torch

from fastgan.errors import FastganError
from fastgan.ops import add_bias


def test_on_a_cpu_it_is_pytorchs_sum_rounded_once():
    x, b = torch.randn(2, 3, 4, 5, dtype=torch.bfloat16), torch.randn(3)
    want = (x.double() + b.double()[:, None, None]).bfloat16()
    assert torch.equal(add_bias(x, b), want)


@pytest.mark.parametrize(
    ("x", "b"),
    [(torch.ones(2, 3), torch.ones(3)), (torch.ones(1, 3, 2, 2), torch.ones(4))]
    + [(torch.ones(1, 3, 2, 2, dtype=torch.int64), torch.ones(3))],
)
def test_what_does_not_fit_is_named(x, b):
    with pytest.raises(FastganError, match="add_bias takes floating"):
        add_bias(x, b)
