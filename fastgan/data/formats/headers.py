"""Headers of array files (idx, npy), read and checked before anything believes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import IO

import numpy as np

MOST_AXES = 5
"""Of one array: samples, frames, and the three of an image."""

INFLATED = 1032
"""Bytes that one byte of deflate can become at most (zlib's technical details)."""

_LONGEST_HEADER = 10_000  # numpy's own limit, named before numpy advises to lift it
_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_NUMBERS_AND_TEXTS = "biufUS"


@dataclass(frozen=True)
class Layout:
    """Where the values of an array lie in a file. offset: bytes before the first value. fortran:
    the first axis changes fastest."""

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    fortran: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of all values, however many that would be."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_idx(file: IO[bytes]) -> Layout:
    """The layout of an idx file (format: LeCun, MNIST), read from its start. Raises ValueError."""
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or not head[3]:
        raise ValueError(f"not an idx file: its first bytes are {head.hex() or 'missing'}")
    sizes = file.read(4 * head[3])
    if len(sizes) != 4 * head[3]:
        raise ValueError("it ends within its header")
    shape = tuple(int(n) for n in np.frombuffer(sizes, dtype=">u4"))
    return _sound(Layout(shape, np.dtype(_IDX_TYPES[head[2]]), 4 + len(sizes)))


def read_npy(file: IO[bytes]) -> Layout:
    """The layout of a .npy file, read from its start; `file` then stands at the first value. Raises
    ValueError."""
    head = file.read(12)
    if head[:6] != b"\x93NUMPY" or len(head) < 12 or head[6] not in (1, 2, 3):
        raise ValueError(
            f"not an array of numpy: its first bytes are {head[:8].hex() or 'missing'}"
        )
    length = int.from_bytes(head[8 : 10 if head[6] == 1 else 12], "little")
    if length > _LONGEST_HEADER:
        raise ValueError(
            f"its header is said to have {length:,} bytes, where arrays need about 100"
        )
    file.seek(0)
    version = np.lib.format.read_magic(file)
    read = np.lib.format
    try:
        shape, fortran, dtype = (
            read.read_array_header_1_0(file)
            if version == (1, 0)
            else read.read_array_header_2_0(file)
        )
    except Exception as error:  # the header is Python source: its parser raises what it likes
        raise ValueError(f"its header can't be read ({type(error).__name__})") from error
    return _sound(Layout(tuple(shape), dtype, file.tell(), bool(fortran)))


def _sound(layout: Layout) -> Layout:
    """The layout itself. Raises ValueError where no array of numbers or texts looks like that."""
    shape, dtype = layout.shape, layout.dtype
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded")
    if dtype.kind not in _NUMBERS_AND_TEXTS or not dtype.itemsize:
        raise ValueError(f"it holds {dtype} values: give numbers")
    if len(shape) > MOST_AXES:
        raise ValueError(f"it has {len(shape)} axes: give at most {MOST_AXES}")
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"its header gives the shape {shape}, which no array has")
    if 0 in shape[1:]:
        raise ValueError(f"its header gives the shape {shape}: one sample holds nothing")
    return layout


def check_length(layout: Layout, size: int) -> None:
    """Raises ValueError where a file of `size` bytes is not exactly that header and its values."""
    if (more := size - layout.offset - layout.nbytes) < 0:
        raise ValueError(
            f"it is truncated: its header promises {layout.nbytes:,} bytes of values, and "
            f"{size - layout.offset:,} follow"
        )
    if more:
        raise ValueError(f"{more:,} bytes follow its last value")


def check_deflated(layout: Layout, size: int) -> None:
    """Raises ValueError where `size` compressed bytes can't become what the header promises."""
    if layout.offset + layout.nbytes > (size + 64) * INFLATED:
        raise ValueError(
            f"its header promises {layout.nbytes:,} bytes of values, more than {size:,} compressed "
            "bytes can hold"
        )
