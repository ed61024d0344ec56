"""SMILES that are drawn by rule: chains, branches, rings, aromatic rings, hetero atoms, halogens,
none with more bonds than it may have, so that each string is valid by construction."""

from __future__ import annotations

from collections.abc import Sequence

from fastgan.data.rendered.numbers import uniform
from fastgan.data.strings.smiles import symbols

NAME = "molecules"
COUNT = 5000
SHORTEST, LONGEST = 5, 24
"""Symbols of a string."""

NUMBERS = 80
"""Random numbers of one string."""

BONDS = {"C": 4, "N": 3, "O": 2, "S": 2, "F": 1, "Cl": 1, "Br": 1}
SIGN = ("", "", "=", "#")
SINGLE = (("C", 0.62), ("O", 0.13), ("N", 0.12), ("S", 0.03), ("F", 0.05), ("Cl", 0.04), ("Br", 1))
OF_ORDER = {1: SINGLE, 2: (("C", 0.45), ("O", 0.45), ("N", 1)), 3: (("C", 0.4), ("N", 1))}
"""Elements behind a bond of each order, with their chances; the last has what is left."""


class Writer:
    """Writes one string from random numbers in [0, 1); when they are used up, it ends soon."""

    def __init__(self, numbers: Sequence[float]) -> None:
        self.numbers = iter(numbers)

    def roll(self) -> float:
        return next(self.numbers, 0.999)

    def element(self, order: int) -> str:
        at = self.roll()
        for name, chance in OF_ORDER[order]:
            if at < chance:
                return name
            at -= chance
        return name

    def chain(self, order: int, depth: int, ring: int, carbon: bool = False) -> str:
        """Atoms behind a bond of that order (0: the first). depth: of branches; ring: the next
        number of a ring; carbon: whether a hetero atom stands before."""
        text = ""
        while True:
            if order < 2 and ring < 3 and self.roll() < (0.3 if depth == 0 else 0.08):
                part, room = self.ring(depth, ring, order)
                text += part
                carbon = False
            else:
                name = "C" if carbon else self.element(max(order, 1))
                text += SIGN[order] + name
                room, carbon = BONDS[name] - order, name != "C"
            if room >= 2 and depth < 2 and self.roll() < 0.25:
                text += f"({self.branch(room, depth, ring, carbon)})"
                room -= 2 if text.endswith("(=O)") else 1
            elif room < 1 or self.roll() > (0.86 if depth == 0 else 0.45):
                return text
            order = self.order(room, carbon)

    def branch(self, room: int, depth: int, ring: int, carbon: bool) -> str:
        if room >= 3 and not carbon and self.roll() < 0.4:
            return "=O"
        return self.chain(1, depth + 1, ring, carbon)

    def order(self, room: int, carbon: bool) -> int:
        """Of the next bond. carbon: single ones alone, behind a hetero atom."""
        at = self.roll()
        if carbon or room < 2 or at < 0.8:
            return 1
        return 3 if room > 2 and at > 0.97 else 2

    def ring(self, depth: int, number: int, order: int) -> tuple[str, int]:
        """(a ring that is entered at its first atom, bonds that its last one has left)."""
        kind = self.roll()
        if kind < 0.45:
            members = ["c", *("n" if self.roll() < 0.12 else "c" for _ in range(5))]
        elif kind < 0.65:
            members = ["c", *("n" if self.roll() < 0.2 else "c" for _ in range(4))]
            members[1 + int(self.roll() * 4)] = ("o", "s", "[nH]")[int(self.roll() * 3)]
        else:
            return self.saturated(depth, number, 3 + int(self.roll() * 4), order)
        text = f"c{number}"
        for member in members[1:-1]:
            text += member
            if member == "c" and self.roll() < 0.16:
                text += f"({self.chain(1, depth + 1, number + 1)})"
        return f"{text}{members[-1]}{number}", int(members[-1] == "c")

    def saturated(self, depth: int, number: int, size: int, order: int) -> tuple[str, int]:
        """The same of `size` atoms, with a double bond at times."""
        text, before, double = f"C{number}", "C", 0.0
        for at in range(1, size - 1):
            if before == "C" and at < size - 2 and self.roll() < 0.25:
                before = ("N", "O", "S")[int(self.roll() ** 1.5 * 3)]
                text += before
                continue
            sign = "=" if before == "C" and at > 1 and not double and self.roll() < 0.2 else ""
            text, before, double = f"{text}{sign}C", "C", 1.0 if sign else double
            if not sign and at < size - 2 and self.roll() < 0.15:
                text += "(=O)" if self.roll() < 0.5 else f"({self.chain(1, depth + 1, number + 1)})"
                before = "X"  # has no bond left for a double one
        return f"{text}C{number}", 2


def draw(count: int = COUNT, seed: int = 0) -> list[str]:
    """So many different strings of SHORTEST to LONGEST symbols. A function of the seed."""
    found: dict[str, None] = {}
    part = 0
    while len(found) < count:
        for row in uniform(f"molecules/{part}", seed, 1024, NUMBERS):
            text = Writer(row.tolist()).chain(0, 0, 1)
            if SHORTEST <= len(symbols(text)) <= LONGEST:
                found[text] = None
        part += 1
    return list(found)[:count]
