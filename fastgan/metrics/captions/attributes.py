"""What captions say by words that exclude one another: a colour, a size, a form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = 50
"""Captions that must have a value for it to count."""


def _same(*words: str) -> dict[str, str]:
    return {word: words[0] for word in words}


def _each(words: str) -> dict[str, str]:
    return {word: word for word in words.split()}


GROUPS: Mapping[str, Mapping[str, str]] = {
    "colour": _each("black white red green yellow blue brown orange pink purple")
    | _same("grey", "gray"),
    "size": _same("small", "little", "tiny") | _same("large", "big", "huge"),
    "form": _each("circle square triangle cross rectangle oval star heart diamond"),
}
"""Group -> {word: value}. Colours: the eleven basic terms of English (Berlin and Kay, Basic Color
Terms, 1969)."""


@dataclass(frozen=True)
class Attribute:
    """A group whose values enough captions have.

    values: the word of each that captions use most. tokens: int64 (k,) those words' tokens. table:
    int64 (words + 1,) the number of the value of each token, k and more for rare ones, -1 for other
    words.
    """

    name: str
    values: tuple[str, ...]
    tokens: Tensor
    table: Tensor

    def of(self, tokens: Tensor) -> Tensor:
        """int64 (n,): the number of the value that tokens (n, length) name; -1 where they name
        none, several, or a rare one."""
        return _only(self.table, tokens, len(self.values))

    def swapped(self, tokens: Tensor, seed: int = 0) -> Tensor:
        """The tokens (n, length) with another value, drawn evenly, instead of theirs; as they are
        where they have none."""
        own, count = self.of(tokens), len(self.values)
        dice = torch.Generator().manual_seed(seed)
        steps = torch.randint(1, count, (len(tokens),), generator=dice)
        other = self.tokens[(own + steps) % count]
        there = (own >= 0)[:, None] & (self.table[tokens] == own[:, None])
        return torch.where(there, other[:, None], tokens)


def _only(table: Tensor, tokens: Tensor, count: int) -> Tensor:
    named = table[tokens]
    most = named.max(1).values
    several = ((named >= 0) & (named != most[:, None])).any(1)
    return most.where((most < count) & ~several, torch.tensor(-1))


def find(tokens: Tensor, words: Sequence[str]) -> list[Attribute]:
    """The groups of which at least two values are named, each by `LEAST` of the captions.

    tokens: int64 (n, length), 0 is no word, k + 1 the k-th of `words`, the commonest first.
    """
    found = []
    for name, group in GROUPS.items():
        at: dict[str, list[int]] = {}
        for token, word in enumerate(words, 1):
            if word in group:
                at.setdefault(group[word], []).append(token)
        ranked = list(at.values())
        counts = _counts(_table(ranked, len(words)), tokens, len(ranked))
        often = [row for row, count in zip(ranked, counts, strict=True) if count >= LEAST]
        if len(often) < 2:
            continue
        rare = [row for row in ranked if row not in often]
        first = torch.tensor([row[0] for row in often])
        values = tuple(words[token - 1] for token in first.tolist())
        found.append(Attribute(name, values, first, _table(often + rare, len(words))))
    return found


def _table(rows: Sequence[Sequence[int]], words: int) -> Tensor:
    table = torch.full((words + 1,), -1)
    for value, tokens in enumerate(rows):
        table[list(tokens)] = value
    return table


def _counts(table: Tensor, tokens: Tensor, count: int) -> list[int]:
    named = _only(table, tokens, count)
    return torch.bincount(named[named >= 0], minlength=count).tolist()
