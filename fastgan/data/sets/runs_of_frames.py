"""Runs of frames as an array whose rows are put together when they are asked for."""

from __future__ import annotations

from typing import Any, cast

import numpy as np


class RunsOfFrames:
    """Row i is `frames[first[i] : first[i] + count]` with the channels of one frame after those of
    the other: (n, H, W, count * C) of frames (N, H, W, C), which are not copied.

    Of an array it has what `Dataset` and its readers use: shape, dtype, nbytes, len, indices along
    the first axis, `numpy.take` and `numpy.asarray`, which copy the rows in question.
    """

    ndim = 4

    def __init__(self, frames: np.ndarray, first: np.ndarray, count: int) -> None:
        self.frames, self.first, self.count = frames, first, count
        height, width, channels = frames.shape[1:]
        self.shape = (len(first), height, width, count * channels)
        self.dtype = frames.dtype
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple):
            return np.asarray(self)[key]
        first = self.first[key]
        rows = self._rows(np.atleast_1d(first))
        return rows if np.ndim(first) else rows[0]

    def take(
        self, indices: Any, axis: int | None = None, out: np.ndarray | None = None, **_: Any
    ) -> np.ndarray:
        """As numpy.take, which calls this, along the first axis."""
        rows = self._rows(self.first[np.asarray(indices)])
        if out is None:
            return rows
        out[...] = rows
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._rows(self.first), dtype)

    def _rows(self, first: np.ndarray) -> np.ndarray:
        runs = self.frames[first[:, None] + np.arange(self.count)]
        return np.moveaxis(runs, 1, 3).reshape(len(first), *self.shape[1:])


def runs_of_frames(frames: np.ndarray, first: np.ndarray, count: int) -> np.ndarray:
    """`RunsOfFrames`, to whoever takes an array."""
    return cast(np.ndarray, RunsOfFrames(frames, first, count))
