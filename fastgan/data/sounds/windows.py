"""A folder of WAV files, or drawn vowels, as windows of one length."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastgan import files
from fastgan.data.dataset import Dataset, left_out
from fastgan.data.sounds import vowels, wav
from fastgan.errors import FastganError, printable

DRAWN, COUNT = "vowels", 2000

LARGEST = 2**30
"""Bytes of the largest file."""

MOST = 2**31
"""Bytes of all windows together."""

QUIET = 1e-3
"""Of the loudest sample of a file: windows whose root mean square is below are left out."""


class Sounds(Dataset):
    """Windows of sound. Fields: "image", int16 (n, 1, length); "label" where files lie in
    sub-folders. source: int64 (n,), the number of the file that each comes from."""

    def __init__(
        self,
        name: str,
        windows: np.ndarray,
        rate: int,
        source: np.ndarray,
        labels: np.ndarray | None = None,
        **more,
    ) -> None:
        arrays = {"image": windows} | ({"label": labels} if labels is not None else {})
        kinds = {"image": "tensor", "label": "label"}
        super().__init__(name, arrays, {key: kinds[key] for key in arrays}, **more)
        self.rate, self.source = rate, source

    def take(self, index: np.ndarray) -> Sounds:
        rows = self.read(index)
        classes = self.classes if "label" in rows else None
        return Sounds(
            self.name, rows["image"], self.rate, self.source[index], rows.get("label"),
            classes=classes, skipped=self.skipped, notes=self.guessed,
        )  # fmt: skip

    def describe(self) -> str:
        length = self.fields["image"].shape[-1]
        line = f"{self.name}: {len(self):,} windows of {length:,} samples at {self.rate:,} Hz"
        line += f" ({length / self.rate:.2f} s)"
        if "label" in self.fields:
            line += f", {self.labels_found()}"
        return printable(f"{line}; {left_out(self.skipped)}" if self.skipped else line)


def open_sounds(source: str, length: int, rate: int, *, strict: bool = False) -> Sounds:
    """The WAV files of a folder, sub-folders included, or one file, as windows that overlap by
    half; or "vowels", COUNT drawn ones.

    Each file is mixed to mono, brought to `rate` and scaled to a peak of 0.95; the last window is
    filled with silence, those that are silence are left out. A file that can't be read is left out
    and listed; strict: it is an error. Raises FastganError.
    """
    if source == DRAWN:
        made, which = vowels.draw(COUNT, length, rate)
        return Sounds(
            source, wav.as_int16(made)[:, None], rate, np.arange(COUNT), which, classes=vowels.NAMES
        )
    path = files.path_of(source, "--data")
    found = listed(path)
    if not found:
        there = files.kind(path)
        why = "is not there" if there is None else "has no .wav file"
        raise FastganError(f"{source} {why}: name a folder of WAV files, or one")
    folder = path if files.kind(path) == "folder" else path.parent
    windows: list[np.ndarray] = []
    owners: list[int] = []
    skipped: list[tuple[str, str]] = []
    total, rates = 0, set()
    for number, file in enumerate(found):
        name = str(file.relative_to(folder))
        try:
            samples, own = read(file)
            cut = windows_of(samples, own, length, rate)
        except wav.Unreadable as error:
            if strict:
                raise FastganError(f"{printable(name)}: {error}") from None
            skipped.append((name, str(error)))
            continue
        rates.add(own)
        total += cut.nbytes
        if total > MOST:
            raise FastganError(f"{source} has more than {MOST >> 30} GiB of windows: give fewer")
        windows.append(cut)
        owners += [number] * len(cut)
    if not windows:
        raise FastganError(f"{source} has no sound to learn from; {left_out(skipped)}")
    kinds = [file.relative_to(folder).parts[:-1][:1] for file in found]
    names = sorted({kind[0] for kind in kinds if kind})
    owner = np.array(owners)
    labels = None
    if len(names) > 1 and all(kinds):
        labels = np.array([names.index(kinds[i][0]) for i in owners])
    notes = [f"brought from {', '.join(f'{r:,}' for r in sorted(rates))} Hz to {rate:,} Hz"]
    return Sounds(
        path.name, np.concatenate(windows)[:, None], rate, owner, labels, skipped=skipped,
        classes=names if labels is not None else None, notes=notes if rates != {rate} else (),
    )  # fmt: skip


def listed(path: Path) -> list[Path]:
    """The WAV files below a folder in order of their names, or one file."""
    if files.kind(path) == "folder":
        found = (p for p in path.rglob("*") if p.suffix.lower() == ".wav")
        return sorted(p for p in found if files.kind(p) == "file")
    return [path] if files.kind(path) == "file" else []


def read(file: Path) -> tuple[np.ndarray, int]:
    """(samples, rate) of a file. Raises Unreadable."""
    try:
        return wav.decode(files.read(file, LARGEST, follow=True))
    except OSError as error:
        raise wav.Unreadable(error.strerror or str(error)) from None


def windows_of(samples: np.ndarray, own: int, length: int, rate: int) -> np.ndarray:
    """int16 (n, length) of a file's samples at its own rate. Raises Unreadable where nothing is to
    be heard."""
    sound = wav.resampled(samples, own, rate)
    peak = float(np.abs(sound).max(initial=0))
    if not peak > 1e-4:
        raise wav.Unreadable("silence")
    sound = sound * (0.95 / peak)
    hop = length // 2
    count = max(1, -(-(len(sound) - length) // hop) + 1)
    sound = np.pad(sound, (0, (count - 1) * hop + length - len(sound)))
    cut = np.lib.stride_tricks.sliding_window_view(sound, length)[::hop]
    heard = np.sqrt((cut**2).mean(1)) > QUIET
    return wav.as_int16(cut[heard])


def split(sounds: Sounds, share: float) -> tuple[Sounds, Sounds]:
    """(training, held out): every k-th file is held out, k = 1 / share; of fewer files the last
    part, without the window that overlaps both."""
    index, n = np.arange(len(sounds)), len(sounds)
    if share <= 0 or n < 4:
        return sounds, sounds
    every = max(2, round(1 / share))
    numbers = np.unique(sounds.source)
    if len(numbers) >= every:
        held = np.isin(sounds.source, numbers[every - 1 :: every])
        return sounds.take(index[~held]), sounds.take(index[held])
    cut = min(n - 1, max(2, round(n * (1 - share))))
    return sounds.take(index[: cut - 1]), sounds.take(index[cut:])
