"""A CUDA made of the CPU: what needs a GPU runs, and what a GPU refuses is refused.

Tensors asked for on `cuda` lie in host memory and say `cuda:0`: a dispatch mode follows them by their storage (memory.py).
Streams and events order work, and an order that CUDA would not keep raises; a graph records what was launched and repeats it,
and what may not be captured raises as CUDA's does (streams.py). Triton's kernels run in its interpreter, though the product
sees none (kernels.py). Times and memory sizes are made up: nothing here is a measurement.

`install()` once, in a process of its own, before fastgan is imported. What is not modelled: more than one device, the
allocator's pools, asynchronous errors, and the numbers of bf16 matrix products, which the interpreter gets wrong.
"""

from __future__ import annotations

import os


def install() -> None:
    """Turns this process into one with a GPU."""
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton's own library is decorated
    from mock_cuda import functions, kernels, memory

    memory.install()
    functions.install()
    kernels.install()
