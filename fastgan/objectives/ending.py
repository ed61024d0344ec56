"""The activation that a network ends in, from the autograd graph of its output: what was computed
last, not what was declared."""

from __future__ import annotations

import re

from torch import Tensor

PASSED = {
    *(
        "View",
        "UnsafeView",
        "ReshapeAlias",
        "Squeeze",
        "Unsqueeze",
        "Permute",
        "Transpose",
        "T",
        "Alias",
        "Select",
        "Slice",
    ),
    *("Expand", "Clone", "ToCopy", "Mean"),
}
"""Nodes that keep every value between the smallest and the largest of their input."""


def ending(output: Tensor) -> str | None:
    """ "Sigmoid", "Softmax", "Relu", "Tanh", ...: the last node behind views, casts and means; None
    for a leaf."""
    node = output.grad_fn
    while node is not None:
        name = re.sub(r"Backward\d*$", "", type(node).__name__)
        if name not in PASSED:
            return name
        node = node.next_functions[0][0]
    return None
