"""Accelerated networks on the Triton kernels: the interpreter is chosen when Triton is imported, so
the checks run in a process of their own.
"""

from __future__ import annotations

import pathlib

import pytest
from interpreter_child import parent, run_child

HERE = pathlib.Path(__file__).parent
HOME_MADE = "test_by_the_operator_values_gradients_and_vectors_are_the_same[nhwc]"


@parent
@pytest.mark.slow
def test_accelerated_networks_on_the_kernels():
    swap = HERE.parent / "support" / "interpreted_swap.py"
    run_child(swap, f"{HERE / 'test_home_made_spectral.py'}::{HOME_MADE}")
