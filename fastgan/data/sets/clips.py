"""Films as frames of one clip after the other, and windows of frames in them."""

from __future__ import annotations

import numpy as np

from fastgan.data.dataset import Dataset
from fastgan.errors import FastganError


def windows(frames: Dataset, past: int, ahead: int = 1) -> Dataset:
    """All runs of past + ahead frames within one clip: "source" (H, W, past * C), the oldest frame
    first, and "image" (H, W, ahead * C), what follows.

    frames: "image", and "label", the number of the clip, where there are several; frames of a clip
    follow each other. Copies. Raises FastganError where no clip is long enough.
    """
    starts = [
        start for first, last in clips(frames) for start in range(first, last - past - ahead + 1)
    ]
    if not starts:
        raise FastganError(
            f"{frames.name}: no clip of {past + ahead} frames: put the frames of each clip, in "
            "order of their names, into a sub-folder"
        )
    index = np.array(starts)[:, None] + np.arange(past + ahead)
    pixels = np.moveaxis(frames.array("image")[index], 1, 3)
    flat = pixels.reshape(*pixels.shape[:3], -1)
    channels = pixels.shape[4]
    names = frames.names
    return Dataset(
        frames.name,
        {"image": flat[..., past * channels :], "source": flat[..., : past * channels]},
        {"image": "image", "source": "image"},
        skipped=frames.skipped,
        names=[names[start + past - 1] for start in starts] if names is not None else None,
    )


def clips(frames: Dataset) -> list[tuple[int, int]]:
    """(first, last + 1) of the frames of each clip."""
    if "label" not in frames.fields:
        return [(0, len(frames))]
    label = frames.array("label")
    ends = [*(np.flatnonzero(np.diff(label)) + 1).tolist(), len(label)]
    return list(zip([0, *ends[:-1]], ends))


def split_clips(frames: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """(training, held out): every k-th clip is held out, k = 1 / share; of a single clip its last
    part."""
    found = clips(frames)
    if share <= 0:
        return frames, frames
    if len(found) < 2:
        cut = round(len(frames) * (1 - share))
        return frames.take(np.arange(cut)), frames.take(np.arange(cut, len(frames)))
    every = max(2, round(1 / share))
    held = np.zeros(len(frames), bool)
    for first, last in found[min(every, len(found)) - 1 :: every]:
        held[first:last] = True
    index = np.arange(len(frames))
    return frames.take(index[~held]), frames.take(index[held])
