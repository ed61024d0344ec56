"""Strings as rows of numbers that stand for symbols."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastgan.data.dataset import Dataset
from fastgan.data.strings import drawn, smiles
from fastgan.data.strings.reading import LONGEST, read_strings
from fastgan.errors import FastganError, printable

FORMS = ("smiles", "text")

FEWEST = 100
"""Different strings, at least."""

MOST_SYMBOLS = 200
"""Different symbols, at most."""

USUAL = 64
"""Symbols of the longest string where no length is asked for."""

MOST = 2**31
"""Bytes of all strings together."""

LOOKED_AT = 2000
"""Strings that are checked before training, evenly taken from all."""


class Strings(Dataset):
    """Strings of symbols. Field: "image", uint8 (n, length): numbers of symbols from 1 on, then 0.

    alphabet: the symbols; 0, the end, is not among them. form: "smiles" or "text".
    """

    def __init__(
        self, name: str, strings: Sequence[str], codes: np.ndarray, alphabet: Sequence[str],
        form: str, notes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.strings, self.alphabet, self.form = list(strings), tuple(alphabet), form
        self.length = codes.shape[1]
        super().__init__(name, {"image": codes}, {"image": "tensor"}, notes=notes)

    def describe(self) -> str:
        return printable(
            f"{self.name}: {len(self):,} strings of up to {self.length} symbols, "
            f"{len(self.alphabet)} different ones"
        )

    def part(self, index: np.ndarray) -> Strings:
        """Those at index, int64 (b,), with the same alphabet."""
        some = [self.strings[i] for i in index]
        codes = self.array("image")[index]
        return Strings(self.name, some, codes, self.alphabet, self.form, self.guessed)


def symbols_of(text: str, form: str) -> list[str]:
    """The symbols of a string: of SMILES an atom in brackets, Cl and Br are one each, of text each
    character."""
    return smiles.symbols(text) if form == "smiles" else list(text)


def encode(strings: Sequence[str], alphabet: Sequence[str], length: int, form: str) -> np.ndarray:
    """uint8 (n, length) of strings whose symbols are all in the alphabet."""
    number = {symbol: i for i, symbol in enumerate(alphabet, 1)}
    rows = np.zeros((len(strings), length), np.uint8)
    for row, text in zip(rows, strings):
        found = [number[symbol] for symbol in symbols_of(text, form)]
        row[: len(found)] = found
    return rows


def decode(codes: np.ndarray, alphabet: Sequence[str]) -> list[str]:
    """Strings of rows (n, length) of numbers, up to the first 0."""
    known = ["", *alphabet]
    ends = np.where((codes == 0).any(1), (codes == 0).argmax(1), codes.shape[1])
    return ["".join(known[i] for i in row[:end]) for row, end in zip(codes.tolist(), ends)]


def open_strings(
    source: str, *, form: str = "smiles", column: str | None = None, length: int | None = None
) -> Strings:
    """The different strings of a file, or "molecules", SMILES that are drawn here.

    length: symbols of the longest string that is kept; without it USUAL, or fewer where all are
    shorter. Strings that are longer, or hold what can't be printed, are left out, which the notes
    say. Raises FastganError.
    """
    if source == drawn.NAME:
        found = drawn.draw()
    else:
        found = read_strings(source, column, form == "smiles")
    strings, notes = kept(found, form, length or USUAL)
    odd = look_at(source, strings) if form == "smiles" and source != drawn.NAME else []
    if len(strings) < FEWEST:
        why = f"; {'; '.join(notes)}" if notes else ""
        raise FastganError(
            f"{source} has {len(strings)} different strings that can be learned{why}: give at "
            f"least {FEWEST}"
        )
    used: set[str] = set()
    longest = 1
    for text in strings:
        symbols = symbols_of(text, form)
        used.update(symbols)
        longest = max(longest, len(symbols))
    alphabet = sorted(used)
    if len(alphabet) > MOST_SYMBOLS:
        raise FastganError(
            f"{source} has {len(alphabet):,} different symbols, more than {MOST_SYMBOLS}: leave "
            "strings with rare ones out"
        )
    if len(strings) * longest > MOST:
        raise FastganError(
            f"{source} needs more than {MOST >> 30} GiB: give fewer strings, or a smaller --length"
        )
    codes = encode(strings, alphabet, longest, form)
    return Strings(source, strings, codes, alphabet, form, notes + odd)


def kept(found: Sequence[str], form: str, length: int) -> tuple[list[str], list[str]]:
    """(the different strings of up to so many symbols, notes about the others)."""
    different = list(dict.fromkeys(found))
    plain = [text for text in different if len(text) <= LONGEST and text.isprintable()]
    fits = lambda text: len(text) <= length or len(symbols_of(text, form)) <= length
    strings = [text for text in plain if fits(text)]
    notes = []
    if again := len(found) - len(different):
        notes.append(f"{again:,} strings that come again are learned once")
    if odd := len(different) - len(plain):
        notes.append(f"left out {odd:,} strings with characters that can't be printed, or too long")
    if long := len(plain) - len(strings):
        notes.append(f"left out {long:,} strings of more than {length} symbols: see --length")
    return strings, notes


def look_at(source: str, strings: Sequence[str]) -> list[str]:
    """A note where some strings are no SMILES; they are learned as they are. Raises FastganError
    where most are none."""
    every = max(1, len(strings) // LOOKED_AT)
    some = strings[::every]
    faults = [(text, why) for text in some if (why := smiles.fault(text))]
    if not faults:
        return []
    text, why = faults[0]
    share = f"{len(faults):,} of {len(some):,} strings looked at are no valid SMILES"
    if len(faults) > len(some) / 2:
        raise FastganError(
            printable(f"{source}: {share} ({text}: {why}): learn other strings with --form text")
        )
    return [f"{share}, such as {text} ({why}): they are learned as they are"]
