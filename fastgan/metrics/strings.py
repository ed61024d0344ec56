"""Whether generated strings are valid, different and new, and how far their symbols are from those
of held-out ones, beside what needs no network: symbols drawn one by one, and n-grams (MOSES:
Polykovskiy et al. 2020, arXiv 1811.12823, section 3; n-grams: Shannon 1948)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fastgan.data.strings.smiles import fault
from fastgan.metrics.fidelity import Table

ORDERS = (3, 4, 5)
"""Symbols of the n-grams that are compared with."""

FITTED = 50_000
"""Strings of training that n-grams are fitted to, and held-out ones that are compared with, at
most."""

Draw = Callable[[int, int], list[str]]
"""Strings of (n, seed)."""

Split = Callable[[str], Sequence[str]]
"""The symbols of a string."""

END = ""


DISTANCES = ("symbols", "pairs")


class StringTable(Table):
    """A table whose distances are shown below its shares, so that it fits a terminal."""

    def __str__(self) -> str:
        def some(distances: bool) -> dict[str, dict[str, float]]:
            return {
                name: {key: value for key, value in row.items() if (key in DISTANCES) is distances}
                for name, row in self.rows.items()
            }

        shares, _, far = self.note.partition("\n\n")
        below = "total variation from held-out strings"
        return f"{Table(self.title, some(False), shares)}\n\n{Table(below, some(True), far)}"


class Ngrams:
    """Strings whose next symbol is drawn from those that followed the last order - 1 ones in the
    given strings, as often; begin and end count as symbols. Order 1: symbols drawn one by one."""

    def __init__(self, strings: Sequence[str], order: int, split: Split, longest: int) -> None:
        self.order, self.longest = order, longest
        counts: dict[tuple[str, ...], Counter[str]] = {}
        for text in strings:
            padded = [*[END] * (order - 1), *split(text), END]
            for at in range(order - 1, len(padded)):
                before = tuple(padded[at - order + 1 : at])
                counts.setdefault(before, Counter())[padded[at]] += 1
        self.next = {
            before: (list(found), np.cumsum(list(found.values())))
            for before, found in counts.items()
        }

    def draw(self, n: int, seed: int) -> list[str]:
        """n strings of at most `longest` symbols."""
        dice = np.random.default_rng([seed, self.order])
        made = []
        for _ in range(n):
            written: list[str] = []
            before = (END,) * (self.order - 1)
            for u in dice.random(self.longest):
                symbols, reached = self.next[before]
                symbol = symbols[int(np.searchsorted(reached, u * reached[-1], side="right"))]
                if symbol == END:
                    break
                written.append(symbol)
                before = (*before, symbol)[1:] if before else ()
            made.append("".join(written))
        return made


def grams(strings: Sequence[str], size: int, split: Split) -> Counter[tuple[str, ...]]:
    """How often each run of so many symbols is there; begin and end are symbols of runs of two and
    more."""
    found: Counter[tuple[str, ...]] = Counter()
    for text in strings:
        symbols = [*split(text)]
        symbols = [END, *symbols, END] if size > 1 else symbols
        found.update(tuple(symbols[i : i + size]) for i in range(len(symbols) - size + 1))
    return found


def total_variation(a: Counter, b: Counter) -> float:
    """Half the sum of the absolute differences of shares: 0 alike, 1 without anything in common."""
    all_a, all_b = max(a.total(), 1), max(b.total(), 1)
    apart = (abs(a[key] / all_a - b[key] / all_b) for key in a.keys() | b.keys())
    return math.fsum(apart) / 2  # the same in any order of a set


def rdkit_check() -> Callable[[str], bool] | None:
    """Whether RDKit reads a SMILES string; None where it is not installed."""
    try:
        from rdkit import Chem, RDLogger
    except ImportError:
        return None
    RDLogger.DisableLog("rdApp.*")
    return lambda text: bool(text) and Chem.MolFromSmiles(text) is not None


def told(
    made: Sequence[str], train: set[str], held_out: Sequence[str], split: Split, form: str
) -> dict[str, float]:
    """The numbers of one set of strings, in percent but for the distances."""
    n = len(made)
    good = [text for text in made if not fault(text)] if form == "smiles" else list(made)
    different = set(good)
    new = different - train
    row = {"good %": 100 * len(new) / n}
    if form == "smiles":
        row["valid %"] = 100 * len(good) / n
    row["unique %"] = 100 * len(different) / max(len(good), 1)
    row["new %"] = 100 * len(new) / max(len(different), 1)
    for name, size in zip(DISTANCES, (1, 2)):
        row[name] = total_variation(grams(made, size, split), grams(held_out, size, split))
    if form == "smiles" and (known := rdkit_check()):
        row["RDKit %"] = 100 * sum(map(known, made)) / n
    return row


def measure(
    title: str,
    ways: Mapping[str, Draw],
    train: Sequence[str],
    held_out: Sequence[str],
    split: Split,
    form: str,
    count: int,
    longest: int,
    seed: int = 0,
) -> StringTable:
    """`count` strings of each way, of n-grams fitted to `train`, and the held-out ones themselves.

    Distances are to one half of the held-out strings, which the seed picks; the other half is the
    floor.
    """
    order = np.random.default_rng([seed, 17]).permutation(len(held_out))[: 2 * FITTED]
    reference = [held_out[i] for i in order[::2]]
    rest = [held_out[i] for i in order[1::2]][:count]
    every, some = dict(ways), train[:: -(-len(train) // FITTED)]
    every["symbols one by one"] = Ngrams(some, 1, split, longest).draw
    for size in ORDERS:
        every[f"{size}-gram"] = Ngrams(some, size, split, longest).draw
    every["held-out strings (floor)"] = lambda n, s: rest
    known = set(train)
    rows = {
        name: told(draw(count, seed), known, reference, split, form) for name, draw in every.items()
    }
    what = "valid, different and new" if form == "smiles" else "different and new"
    of = "the valid" if form == "smiles" else "all"
    note = f"good: {what}, of all; unique: of {of}; new: of these, not in training"
    if form == "smiles":
        note += "\n  valid: by fastgan's own check (docs/kinds/molecule.md)"
        note += "; RDKit: by RDKit" if rdkit_check() else ""
    note += "\n\nsymbols: of single ones; pairs: of two, begin and end among them"
    return StringTable(f"{title}: {count:,} strings of each", rows, note)
