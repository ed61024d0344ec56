"""Vowels that are drawn by rule: glottal pulses through the resonances of a mouth (Klatt 1980), so
that what a sound is, is known exactly."""

from __future__ import annotations

import numpy as np

NAMES = ("a", "e", "i", "o", "u")

FORMANTS = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
"""Resonances in Hz of men's vowels (Peterson & Barney 1952, table II)."""

WIDTHS = (70, 100, 150)
"""Their bandwidths in Hz."""


def draw(count: int, length: int, rate: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(float32 (count, length) in [-0.95, 0.95], int64 (count,) which of NAMES).

    Pitch (90 to 240 Hz), its glide and tremor, the length of the mouth (15 % to both sides), breath
    and loudness over time vary.
    """
    dice = np.random.default_rng([seed, 5])
    which = dice.integers(0, len(NAMES), count)
    time = np.arange(length) / rate
    pitch, glide = dice.uniform(90, 240, (count, 1)), dice.uniform(-0.15, 0.15, (count, 1))
    tremor = 0.01 * np.sin(
        2 * np.pi * (dice.uniform(4, 7, (count, 1)) * time + dice.random((count, 1)))
    )
    hertz = pitch * (1 + glide * (time / time[-1] - 0.5) + tremor)
    turns = np.cumsum(hertz, 1) / rate + dice.random((count, 1))
    opened = np.mod(turns, 1)
    # a pulse of flow that rises over 40 % of a period and falls over 16 % (Rosenberg 1971), derived
    flow = np.where(opened < 0.4, np.sin(np.pi * opened / 0.4), 0)
    flow = np.where(
        (opened >= 0.4) & (opened < 0.56), -2.5 * np.sin(np.pi * (opened - 0.4) / 0.16), flow
    )
    sound = flow + dice.uniform(0.01, 0.05, (count, 1)) * dice.standard_normal((count, length))
    mouth = dice.uniform(0.87, 1.15, count)
    table = np.array([FORMANTS[name] for name in NAMES], float)
    for number, wide in enumerate(WIDTHS):
        centre = np.minimum(table[which, number] * mouth, 0.47 * rate)
        sound = resonance(sound, centre, wide, rate)
    rise = np.clip(time / dice.uniform(0.01, 0.06, (count, 1)), 0, 1)
    fall = np.clip((time[-1] - time) / dice.uniform(0.03, 0.15, (count, 1)), 0, 1)
    sound *= rise * fall
    loud = dice.uniform(0.5, 0.95, (count, 1))
    return (sound / np.abs(sound).max(1, keepdims=True) * loud).astype(np.float32), which


def resonance(sound: np.ndarray, centre: np.ndarray, wide: float, rate: int) -> np.ndarray:
    """(count, length) through a resonator of two poles at `centre` (count,) Hz, gain 1 at 0 Hz
    (Klatt 1980, eq. 1 and 2)."""
    c = -np.exp(-2 * np.pi * wide / rate)
    b = 2 * np.exp(-np.pi * wide / rate) * np.cos(2 * np.pi * centre / rate)
    a = 1 - b - c
    columns = np.ascontiguousarray(sound.T)
    made = np.empty_like(columns)
    one, two = np.zeros(len(centre)), np.zeros(len(centre))
    for i, now in enumerate(columns):
        one, two = a * now + b * one + c * two, one
        made[i] = one
    return made.T
