"""A CUDA made of the CPU: what needs a GPU runs, and what a GPU refuses is refused.

Tensors asked for on `cuda` lie in host memory and say `cuda:0`: a dispatch mode follows them by
their storage (memory.py). Streams and events order work, and an order that CUDA would not keep
raises; a graph records what was launched and repeats it, and what may not be captured raises as
CUDA's does (streams.py). Triton's kernels run in its interpreter, though the product sees none
(kernels.py). Times and memory sizes are made up: nothing here is a measurement.

`install()` once, in a process of its own, before fastgan is imported: `process()` starts one that
does, and so do its children (site/sitecustomize.py). What is not modelled: more than one device,
the allocator's pools, asynchronous errors, and that autograd runs backward on the stream of
forward.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess:
    """Runs Python with these arguments on a machine with a GPU that is not there; output is
    captured."""
    paths = [HERE / "site", ROOT, HERE.parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "OMP_NUM_THREADS": "1",
        **options.pop("env", {}),
    }
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, **options
    )


def install() -> None:
    """Turns this process into one with a GPU."""
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton's own library is decorated
    from mock_cuda import coverage

    coverage.install()  # before anything of fastgan is imported
    from mock_cuda import functions, kernels, memory, tensor_methods

    tensor_methods.install()
    memory.install()
    functions.install()
    kernels.install()
