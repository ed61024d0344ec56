"""Whether a text is a SMILES string of a molecule that can be (Weininger 1988; grammar of
OpenSMILES): branches and rings closed, atoms known, valences kept, aromatic rings with a Kekule
structure. Stereochemistry is read over, not checked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from fastgan.data.strings.elements import AROMATIC, ELEMENTS, PLAIN, valences

SYMBOL = re.compile(r"\[[^\[\]]*\]|Br|Cl|%\d\d|.", re.DOTALL)
"""One symbol: an atom in brackets, an element of two letters, a ring's number, else a character."""

ATOM = re.compile(
    r"\[\d{0,3}(?P<element>[A-Z][a-z]?|se|as|[bcnops])(?:@{0,2}|@[A-Z]{2}\d\d?)"
    r"(?P<hydrogens>H\d?)?(?P<charge>\+\d?|-\d?|\++|-+)?(?::\d+)?\]"
)

BONDS = {"-": 1, "=": 2, "#": 3, "$": 4, ":": 1, "/": 1, "\\": 1}

LONGEST = 500
"""Characters of a string that is looked at."""

TRIES = 5000
"""Steps of the search for a Kekule structure."""


class Fault(Exception):
    """Why a text is no SMILES string."""


@dataclass
class Atom:
    """element; aromatic: written small; hydrogens: as written in brackets, None without these;
    links: (the other atom, the sign of the bond or ""); parent: the atom that it was written
    after, -1: none."""

    element: str
    aromatic: bool
    charge: int
    hydrogens: int | None
    parent: int
    links: list[tuple[int, str]] = field(default_factory=list)


def symbols(text: str) -> list[str]:
    """The symbols of a string."""
    return SYMBOL.findall(text)


def fault(text: str) -> str | None:
    """Why a text is no SMILES string of a molecule, in a few words; None: it is one."""
    try:
        atoms, closures = read(text)
        check(atoms, in_rings(atoms, closures))
    except Fault as error:
        return str(error)
    return None


def read(text: str) -> tuple[list[Atom], list[tuple[int, int]]]:
    """The atoms in order, and the pairs of them that numbers of rings join. Raises Fault."""
    if not 0 < len(text) <= LONGEST:
        raise Fault("no atom" if not text else f"more than {LONGEST} characters")
    atoms: list[Atom] = []
    closures: list[tuple[int, int]] = []
    stack: list[int] = []
    rings: dict[int, tuple[int, str]] = {}
    last, bond, opened = -1, "", False
    for symbol in symbols(text):
        if symbol in BONDS:
            if bond or last < 0:
                raise Fault("a bond from nothing")
            bond = symbol
        elif symbol == "(":
            if bond or opened or last < 0:
                raise Fault("a branch from nothing")
            stack.append(last)
            opened = True
        elif symbol == ")":
            if bond or opened or not stack:
                early = "an empty branch" if opened else "a bond to nothing"
                raise Fault(early if stack else "a branch that is closed too often")
            last = stack.pop()
        elif symbol == ".":
            if bond or opened or stack or last < 0:
                raise Fault("a part of nothing")
            last = -1
        elif symbol[0] in "%0123456789" and (len(symbol) == 3 or symbol != "%"):
            if opened or last < 0:
                raise Fault("a ring from nothing")
            closure = _ring(atoms, rings, int(symbol.lstrip("%")), last, bond)
            closures += [closure] if closure else []
            bond = ""
        else:
            atoms.append(_atom(symbol, last))
            if last >= 0:
                _link(atoms, last, len(atoms) - 1, bond)
            last, bond, opened = len(atoms) - 1, "", False
    if bond or opened or stack or last < 0:
        raise Fault("a branch that is not closed" if stack else "it ends too early")
    if rings:
        raise Fault("a ring that is not closed")
    return atoms, closures


def _ring(
    atoms: list[Atom], rings: dict[int, tuple[int, str]], number: int, at: int, bond: str
) -> tuple[int, int] | None:
    """Open the ring of a number, or close it: the pair of atoms that this joins."""
    if number not in rings:
        rings[number] = at, bond
        return None
    other, before = rings.pop(number)
    if other == at or any(n == other for n, _ in atoms[at].links):
        raise Fault("a ring of fewer than three atoms")
    if bond and before and BONDS[bond] != BONDS[before]:
        raise Fault("a ring whose ends have different bonds")
    _link(atoms, other, at, bond or before)
    return other, at


def _link(atoms: list[Atom], a: int, b: int, bond: str) -> None:
    atoms[a].links.append((b, bond))
    atoms[b].links.append((a, bond))


def _atom(symbol: str, parent: int) -> Atom:
    if symbol in PLAIN:
        return Atom(symbol, False, 0, None, parent)
    if symbol in AROMATIC and len(symbol) == 1:
        return Atom(AROMATIC[symbol], True, 0, None, parent)
    found = ATOM.fullmatch(symbol)
    if found is None:
        raise Fault(f"{symbol!r} is no atom")
    element, hydrogens, charge = found["element"], found["hydrogens"], found["charge"] or ""
    if element not in AROMATIC and element not in ELEMENTS:
        raise Fault(f"{symbol!r} is no atom")
    size = int(charge[1:]) if charge[1:].isdigit() else len(charge)
    return Atom(
        AROMATIC.get(element, element),
        element in AROMATIC,
        -size if charge.startswith("-") else size,
        int(hydrogens[1:] or 1) if hydrogens else 0,
        parent,
    )


def in_rings(atoms: list[Atom], closures: list[tuple[int, int]]) -> set[frozenset[int]]:
    """Bonds that are part of a ring: those that close one, and what lies between their ends in the
    order of writing, which is a spanning tree."""
    found = {frozenset(pair) for pair in closures}
    for a, b in closures:
        while a != b:
            a, b = min(a, b), max(a, b)  # an atom stands behind the one it hangs on
            found.add(frozenset((b, atoms[b].parent)))
            b = atoms[b].parent
    return found


def check(atoms: list[Atom], rings: set[frozenset[int]]) -> None:
    """Raises Fault for an atom with too many bonds, one that is aromatic outside of a ring, and
    aromatic rings whose double bonds can't be placed."""
    wanting: dict[int, list[int]] = {}
    for number, atom in enumerate(atoms):
        allowed = valences(atom.element, atom.charge)
        bonds = sum(BONDS.get(sign, 1) for _, sign in atom.links) + (atom.hydrogens or 0)
        if atom.aromatic:
            if not any(frozenset((number, other)) in rings for other, _ in atom.links):
                raise Fault("an aromatic atom outside of a ring")
            if allowed is not None and bonds not in allowed:
                bonds += 1
                wanting[number] = []
        if allowed is not None and bonds > allowed[-1]:
            raise Fault(f"{atom.element} with {bonds} bonds")
    for number in wanting:
        for other, sign in atoms[number].links:
            if other in wanting and sign in ("", ":") and frozenset((number, other)) in rings:
                wanting[number].append(other)
    if not _paired(wanting, set(wanting), [TRIES]):
        raise Fault("aromatic rings without a Kekule structure")


def _paired(near: dict[int, list[int]], left: set[int], tries: list[int]) -> bool:
    """Whether all atoms left can be put into pairs of neighbours: each a double bond."""
    if not left:
        return True
    tries[0] -= 1
    free = lambda one: [other for other in near[one] if other in left]
    first = min(left, key=lambda one: (len(free(one)), one))
    return tries[0] > 0 and any(
        _paired(near, left - {first, other}, tries) for other in free(first)
    )
