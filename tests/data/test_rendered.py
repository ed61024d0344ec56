"""Drawn sets: small sides, and landscapes."""

from __future__ import annotations

import numpy as np
import pytest

import fastgan.data
from fastgan.data.rendered import RENDERED
from fastgan.data.rendered.landscapes import landscapes
from fastgan.errors import FastganError


@pytest.mark.parametrize("name", RENDERED)
def test_sides_below_8_are_means_of_larger_pixels(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As recipe progressive asks for them."""
    draw, _ = RENDERED[name]
    monkeypatch.setitem(RENDERED, name, (draw, 6))
    small, large = (fastgan.data.open(name, size=size).array("image") for size in (4, 8))
    n, _, _, channels = large.shape
    means = large.reshape(n, 4, 2, 4, 2, channels).mean((2, 4))
    assert np.abs(small - means).max() <= 0.5


def test_drawn_sets_are_squares() -> None:
    with pytest.raises(FastganError, match="drawn as squares, not 8x16"):
        fastgan.data.open("landscapes", size=(8, 16))


def test_a_landscape_depends_on_its_number_alone() -> None:
    few, more = (landscapes(count, 16)["image"] for count in (2, 5))
    assert np.array_equal(few, more[:2])
    assert not np.array_equal(more[0], more[1])
    assert more.shape == (5, 16, 16, 3)
    assert more.std() > 20
