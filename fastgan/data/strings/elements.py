"""Elements and how many bonds their atoms have."""

from __future__ import annotations

_SYMBOLS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As "
    "Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd "
    "Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am "
    "Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og "
)
ELEMENTS = frozenset(_SYMBOLS.split())

PLAIN = frozenset(("B", "C", "N", "O", "P", "S", "F", "Cl", "Br", "I"))
"""The organic subset: written without brackets (OpenSMILES, section 3.1.1)."""

AROMATIC = {"b": "B", "c": "C", "n": "N", "o": "O", "p": "P", "s": "S", "se": "Se", "as": "As"}
"""Atoms of aromatic rings; those of one letter are written without brackets."""

_ROWS = (
    ["B", "C", "N", "O", "F", "Ne"],
    ["Al", "Si", "P", "S", "Cl", "Ar"],
    ["Ga", "Ge", "As", "Se", "Br", "Kr"],
)
_LIGHT = ((3,), (4,), (3,), (2,), (1,), (0,))
_HEAVY = ((3,), (4,), (3, 5), (2, 4, 6), (1,), (0,))


def valences(element: str, charge: int) -> tuple[int, ...] | None:
    """Bonds, hydrogens among them, that an atom may have, in order; None where that is not checked,
    as for metals. An ion has those of the element with as many electrons."""
    if element == "H":
        return (1,) if charge == 0 else (0,)
    if element == "I" and charge == 0:
        return (1, 3, 5)
    for row, counts in zip(_ROWS, (_LIGHT, _HEAVY, _HEAVY)):
        if element in row:
            like = row.index(element) - charge
            return counts[like] if 0 <= like < len(counts) else None
    return None
