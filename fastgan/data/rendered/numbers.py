"""The numbers that drawn images are made of, and their pixels."""

from __future__ import annotations

import numpy as np


def uniform(name: str, seed: int, count: int, numbers: int) -> np.ndarray:
    """(count, numbers) float64 in [0, 1); row i depends on (name, seed, i) alone."""
    import torch

    from fastgan.ops.random import stream_id, uniform_reference

    drawn = uniform_reference(
        seed, torch.zeros((), dtype=torch.int64), count, (numbers,), stream_id(f"rendered/{name}")
    )
    return drawn.double().numpy()


def in_bytes(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1], others clipped, as uint8."""
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
