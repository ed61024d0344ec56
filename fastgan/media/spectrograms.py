"""Log-mel spectrograms: how a sound is drawn, and what its distance to another is measured on."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

FLOOR = 1e-5
"""Magnitude below which a band is silent: -100 dB of a full sine."""


@cache
def bands(rate: int, window: int, count: int) -> Tensor:
    """(count, window / 2 + 1) triangles that are even on the mel scale, 2595 log10(1 + f / 700)
    (O'Shaughnessy 1987), from 40 Hz to half the rate, each of sum 1 where it has a bin."""
    mel = lambda f: 2595 * math.log10(1 + f / 700)
    at = torch.linspace(mel(40), mel(rate / 2), count + 2, dtype=torch.float64)
    edges = 700 * (10 ** (at / 2595) - 1)
    f = torch.linspace(0, rate / 2, window // 2 + 1, dtype=torch.float64)
    low, middle, high = (edges[i : i + count, None] for i in range(3))
    made = torch.minimum((f - low) / (middle - low), (high - f) / (high - middle)).clamp_min(0)
    empty = made.sum(1) == 0  # narrower than the distance of two bins
    nearest = (f - middle).abs().argmin(1)
    made[empty, nearest[empty]] = 1
    return (made / made.sum(1, keepdim=True)).float()


def log_mel(
    sounds: Tensor, rate: int, *, window: int = 256, hop: int = 64, count: int = 64
) -> Tensor:
    """float32 (n, count, length / hop + 1) in [0, 1] of sounds (n, length) in [-1, 1]: 0 is FLOOR,
    1 a full sine; Hann windows, each a hop further, low bands first."""
    hann = torch.hann_window(window, device=sounds.device)
    spectrum = torch.stft(
        sounds.float(), window, hop, window=hann, return_complex=True, pad_mode="constant"
    )
    size = spectrum.abs() * (2 / hann.sum())
    mel = bands(rate, window, count).to(sounds.device) @ size
    return (mel.clamp_min(FLOOR).log10() / -math.log10(FLOOR) + 1).clamp(0, 1)
