"""Windows of frames: the same as copies of them, bit for bit, without the copies."""

import numpy as np
import pytest
import torch

from fastgan.data import Dataset, Stream
from fastgan.data.sets.clips import windows

PAST, AHEAD = 4, 2


@pytest.fixture(scope="module")
def frames():
    """Two clips, of 9 and 7 frames of 6x5 in colour."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 6, 5, 3), np.uint8)
    label = np.repeat([0, 1], [9, 7])
    return Dataset("clips", {"image": pixels, "label": label}, {"image": "image", "label": "label"})


@pytest.fixture(scope="module")
def copied(frames):
    """The same windows as arrays."""
    pixels, starts = frames.array("image"), [0, 1, 2, 3, 9, 10]
    runs = [np.concatenate(list(pixels[s : s + PAST + AHEAD]), axis=2) for s in starts]
    whole, at = np.stack(runs), 3 * PAST
    arrays = {"image": whole[..., at:], "source": whole[..., :at]}
    return Dataset("clips", arrays, {"image": "image", "source": "image"})


def test_windows_are_the_copies_however_they_are_read(frames, copied):
    found = windows(frames, PAST, AHEAD)
    assert found.fingerprint == copied.fingerprint
    assert found.nbytes == copied.nbytes
    assert found.fields == copied.fields
    index = np.array([5, 0, 0, 3])
    for field in ("image", "source"):
        mine, other = found.array(field), copied.array(field)
        assert np.array_equal(mine, other)
        for key in (2, -1, slice(1, 5), index, np.arange(6) > 2, (..., slice(0, 3))):
            assert np.array_equal(mine[key], other[key]), key
        assert np.array_equal(found.read(index)[field], other[index])
        assert np.array_equal(found.take(index).array(field), other[index])


@pytest.mark.parametrize("resident", [0, 2**31])
def test_batches_of_windows_are_those_of_the_copies(frames, copied, resident):
    options = {"name": "image", "seed": 3, "batch_size": 4, "device": "cpu", "flip": True}
    streams = [
        Stream(data, resident_bytes=resident, **options)
        for data in (windows(frames, PAST, AHEAD), copied)
    ]
    for position in (0, 4, 8):
        mine, other = (stream.batch(position) for stream in streams)
        assert all(torch.equal(mine[name], other[name]) for name in other)


def test_a_streamed_set_of_windows_copies_no_frames(frames):
    found = windows(frames, PAST)
    assert np.shares_memory(found.array("source").frames, frames.array("image"))
    assert found.array("source").nbytes > frames.array("image").nbytes
