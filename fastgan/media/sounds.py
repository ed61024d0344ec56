"""Sounds: written as WAV, drawn as log-mel spectrograms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fastgan.data.sounds import wav
from fastgan.media.spectrograms import log_mel
from fastgan.objectives.medium import Medium

GAP = 0.25
"""Seconds of silence between two sounds of a file."""


@dataclass(frozen=True)
class Sound(Medium):
    """Samples are float32 (n, 1, length) in [-1, 1].

    Args:
        rate: Numbers of a second.
    """

    noun: ClassVar[str] = "sounds"
    out: ClassVar[str] = "voice.wav"
    endings: ClassVar[tuple[str, ...]] = (".wav",)
    single: ClassVar[str] = ".wav"

    rate: int = 8000

    def finished(self, made: Tensor) -> Tensor:
        """Reals are int16 in the batch."""
        return made.float().div(32767) if made.dtype == torch.int16 else made.float().clamp(-1, 1)

    def watched(self, samples: Tensor) -> Tensor:
        return self.picture(samples) * 2 - 1

    def picture(self, samples: Tensor) -> Tensor:
        """(n, 1, 64, frames), low tones at the bottom, loud ones bright."""
        hop = max(8, samples.shape[2] // 64)
        return log_mel(samples[:, 0], self.rate, hop=hop).flip(1)[:, None]

    def encode(self, samples: Tensor, ending: str) -> bytes:
        """All sounds after each other, GAP apart."""
        gap = torch.zeros(round(GAP * self.rate))
        parts = [part for one in samples[:, 0] for part in (one, gap)][:-1]
        return wav.encode(torch.cat(parts).numpy(), self.rate)
