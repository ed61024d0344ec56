"""How far generated sounds are from held-out ones, on log-mel spectrograms, with a
floor and two baselines."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.judges.distances import frechet_distance, kernel_distance
from fastgan.media.spectrograms import log_mel
from fastgan.metrics.fidelity import Table

BANDS = 32


def features(sounds: Tensor, rate: int) -> Tensor:
    """(n, 3 * BANDS) of sounds (n, length) in [-1, 1]: of each mel band the mean over time, its
    deviation, and the mean absolute change from frame to frame; in tens of dB."""
    mel = 10 * log_mel(sounds, rate, count=BANDS)
    change = mel.diff(dim=2).abs().mean(2)
    return torch.cat([mel.mean(2), mel.std(2), change], 1)


def shaped_noise(sounds: Tensor, count: int, seed: int) -> Tensor:
    """(count, length) Gaussian noise with the mean power spectrum and loudness of sounds (n,
    length)."""
    power = torch.fft.rfft(sounds).abs().square().mean(0).sqrt()
    dice = torch.Generator().manual_seed(seed)
    white = torch.randn(count, sounds.shape[1], generator=dice)
    made = torch.fft.irfft(torch.fft.rfft(white) * power, n=sounds.shape[1])
    loud = sounds.square().mean().sqrt() / made.square().mean().sqrt().clamp_min(1e-9)
    return (made * loud).clamp(-1, 1)


def measure(
    title: str,
    made: Tensor,
    untrained: Tensor | None,
    apart: Tensor,
    train: Tensor,
    rate: int,
    seed: int = 0,
) -> Table:
    """Frechet and kernel distance of sets of sounds (n, length) to one half of the held-out reals,
    which a seed picks; the other half is the floor. Raises FastganError."""
    order = torch.randperm(len(apart), generator=torch.Generator().manual_seed(seed))
    count = len(made)
    reference, rest = apart[order[:count]], apart[order[count : 2 * count]]
    ways = {"generator": made, "held-out reals (floor)": rest}
    ways["noise of their spectrum"] = shaped_noise(train, count, seed)
    if untrained is not None:
        ways["untrained generator"] = untrained
    seen = features(reference, rate)
    rows = {}
    for name, sounds in ways.items():
        found = features(sounds, rate)
        rows[name] = {
            "FD-mel": frechet_distance(found, seen),
            "KD-mel": kernel_distance(found, seen),
        }
    return Table(
        f"{title}: {count:,} sounds of {made.shape[1]:,} samples each",
        rows,
        f"on {seen.shape[1]} numbers of log-mel bands in tens of dB, against held-out reals",
    )
