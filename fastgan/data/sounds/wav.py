"""WAV files as numbers in [-1, 1] and back, and another sampling rate for them."""

from __future__ import annotations

import io
import math
import struct
import wave

import numpy as np

TAPS = 16
"""Zero crossings of the low-pass filter to each side."""

CHUNK = 2**15
"""Samples that are filtered at once."""

EXTENSIBLE = 0xFFFE


LOWEST_RATE = 1000
"""Hz. Files of less say so by mistake, and would become very long."""

LARGEST_FILTERS = 2**21
"""Numbers in one half of the filters between two rates; 44,100 to 16,000 Hz has 13,000."""


class Unreadable(Exception):
    """Why a file is left out."""


def decode(data: bytes) -> tuple[np.ndarray, int]:
    """(samples float32 (n,) in [-1, 1], the mean of all channels; rate in Hz) of a WAV file of 8,
    16, 24 or 32 bits PCM. Raises Unreadable with the reason."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise Unreadable("no WAV file")
    try:
        with wave.open(io.BytesIO(plain(data)), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError, struct.error, RuntimeError) as error:
        why = str(error) or "its chunks don't fit it"  # of a RuntimeError, which says nothing
        raise Unreadable(f"no PCM ({why}): write it as 16-bit PCM") from None
    if not channels or rate < LOWEST_RATE or width not in (1, 2, 3, 4):
        raise Unreadable(f"{channels} channels of {8 * width} bits at {rate} Hz")
    raw = raw[: len(raw) // (width * channels) * width * channels]
    if width == 1:  # the only one without a sign
        values = np.frombuffer(raw, np.uint8).astype(np.float32) - 128
    elif width == 3:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        values = (wide.view("<i4")[:, 0] >> 8).astype(np.float32)
    else:
        values = np.frombuffer(raw, f"<i{width}").astype(np.float32)
    return values.reshape(-1, channels).mean(1) / 2.0 ** (8 * width - 1), rate


def plain(data: bytes) -> bytes:
    """The file with the format that an extensible header wraps, which `wave` does not know before
    Python 3.12."""
    at = data.find(b"fmt ", 12, 4096)
    if at < 0 or len(data) < at + 34 or struct.unpack_from("<H", data, at + 8)[0] != EXTENSIBLE:
        return data
    return data[: at + 8] + data[at + 32 : at + 34] + data[at + 10 :]


def encode(samples: np.ndarray, rate: int) -> bytes:
    """A mono WAV file of 16 bits of samples (n,) in [-1, 1]; what lies beyond is clipped."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(as_int16(samples).astype("<i2").tobytes())
    return target.getvalue()


def as_int16(samples: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16)


def resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """float32 samples (n,) of one rate at another, (n * wanted / rate,) rounded up: a windowed sinc
    below both rates' halves, one filter for each phase (Smith & Gossett 1984). Raises Unreadable
    for rates that would need too many."""
    if rate == wanted or not len(samples):
        return np.asarray(samples, np.float32)
    common = math.gcd(rate, wanted)
    up, down = wanted // common, rate // common
    cut = min(1.0, 0.94 * up / down)  # of the input's half rate, with room for the filter's slope
    half = math.ceil(TAPS / cut)
    if up * half > LARGEST_FILTERS:
        raise Unreadable(f"{rate:,} Hz have too little in common with {wanted:,}: use a usual rate")
    at = np.arange(-half + 1, half + 1)
    phases = np.arange(up)[:, None] / up
    away = phases - at
    window = np.where(np.abs(away) <= half, 0.5 + 0.5 * np.cos(np.pi * away / half), 0)
    filters = cut * np.sinc(cut * away) * window
    filters /= filters.sum(1, keepdims=True)
    padded = np.pad(np.asarray(samples, np.float64), (half - 1, half))
    count = -(-len(samples) * up // down)
    made = np.empty(count, np.float32)
    for first in range(0, count, CHUNK):
        place = np.arange(first, min(first + CHUNK, count)) * down
        rows = padded[(place // up)[:, None] + np.arange(2 * half)]
        made[first : first + len(place)] = (rows * filters[place % up]).sum(1)
    return made
