"""Cases beside those of the families, each there because a planted bug (tests/mutations.py) got past them.

Addresses beyond 2^31 on a CPU: a store of images whose pages exist only where they are written. A kernel that forms an
element's offset in 32 bits wraps around 2^32 to the store's first, black images. Kernels whose every element must exist
(norms, convolutions, the optimiser) can show this on a GPU alone: their cases are tagged ``huge``.
"""

from __future__ import annotations

import numpy as np
import torch

from fastgan.ops.registry import Case, Kwargs, extend

SIDES = (5, 7, 3)


def _far(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
    samples = 2**32 // (SIDES[0] * SIDES[1] * SIDES[2]) + 8
    # NumPy's zeros are calloc's: virtual memory, but for the pages touched; torch.zeros would write them all
    images = torch.from_numpy(np.zeros((samples, *SIDES), np.uint8)).to(device)
    # the far ones wrap to small offsets: a negative one would be a crash, which is no verdict
    index = torch.tensor([1, samples - 1, samples - 5, samples - 3])
    images[index.to(device)] = torch.randint(1, 256, (4, *SIDES), generator=generator, dtype=torch.uint8).to(device)
    return {"images": images, "index": index.to(device), "dtype": dtype}


_CASE = Case("addresses beyond 2^32", _far, {"quick", "full"}, dtypes=("fp32",), engines=("triton",), shared=("images",))
extend("images_gather", _CASE)


def _unequal(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
    real, fake = (torch.randn(n, generator=generator).to(device, dtype) for n in (7, 13))
    return {"kind": "non-saturating", "side": "d", "real": real, "fake": fake}


extend("adversarial", Case("fewer real than fake logits", _unequal, {"quick", "full"}))
