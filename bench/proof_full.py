"""``verify --full`` as a stage: layer shapes, every configuration of the tables, addresses beyond 2^31."""

from __future__ import annotations

from collections.abc import Iterable

from bench import proof
from bench.gpu import Row
from bench.store import Store


def rows(toy: bool) -> Iterable[Row]:
    """One row an op, type and case, or kernel whose configurations are tried."""
    return proof.rows(toy, "quick" if toy else "full")


def summary(store: Store) -> None:
    """Which rows failed."""
    proof.summary(store, "full")
