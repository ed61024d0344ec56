"""What is said of generated rows, where the truth is known."""

import numpy as np
import pytest

from fastgan.data.tables.columns import Column, fitted
from fastgan.metrics import tables

DICE = np.random.default_rng(0)


def made(n):
    """x, y = x + noise, and whether y is above 0."""
    x = DICE.normal(0, 1, n)
    y = x + DICE.normal(0, 0.3, n)
    return np.c_[x, y, y > 0].astype(float)


REAL, OTHERS = made(600), made(200)
COLUMNS = [Column("x", decimals=6), Column("y", decimals=6), Column("label", ("no", "yes"))]
COLUMNS = [fitted(c, REAL[:, i]) for i, c in enumerate(COLUMNS)]


def test_columns_alone_keep_shares_and_lose_what_they_have_in_common():
    drawn = tables.independent(REAL)(600, 0)
    tv, ks = tables.column_distances(COLUMNS, drawn, REAL)
    assert max(tv) < 0.06
    assert max(ks) < 0.1
    assert tables.correlation_difference(COLUMNS, drawn, REAL) > 0.6


def test_a_copula_keeps_correlations_and_draws_no_value_that_was_not_there():
    drawn = tables.gaussian_copula(REAL)(600, 0)
    assert set(drawn[:, 0]) <= set(REAL[:, 0])
    assert set(drawn[:, 2]) == {0.0, 1.0}
    assert tables.correlation_difference(COLUMNS, drawn, REAL) < 0.1


def test_missing_values_stay_missing_in_the_copula():
    gaps = REAL.copy()
    gaps[:60, 0] = np.nan
    drawn = tables.gaussian_copula(gaps)(2000, 0)
    assert np.isnan(drawn[:, 0]).mean() == pytest.approx(0.1, abs=0.03)


def test_distances_of_known_columns():
    a = np.array([[0.0, 0], [1, 0], [2, 1], [3, 1]])
    b = np.array([[0.0, 0], [1, 0], [2, 0], [np.nan, 0]])
    columns = [Column("n", means=(1.0,), missing=1), Column("k", ("a", "b"))]
    tv, ks = tables.column_distances(columns, a, b)
    assert tv == [0.5]
    assert ks == [pytest.approx(0.25)]


def test_copies_are_seen():
    found = tables.distances_of(COLUMNS, REAL, REAL, tables.features(COLUMNS, REAL, REAL))
    assert found["copies %"] == 100
    assert found["nearest"] == 0
    apart = tables.features(COLUMNS, OTHERS, REAL)
    assert np.median(tables.nearest(apart, tables.features(COLUMNS, REAL, REAL))) > 0


def test_two_kinds_that_differ_are_one_apart():
    rows = tables.features(COLUMNS, np.array([[0.0, 0, 0], [0, 0, 1]]), REAL)
    assert np.linalg.norm(rows[0] - rows[1]) == pytest.approx(1)


def test_a_classifier_learns_what_rows_say():
    x, y = tables.features(COLUMNS[:2], REAL, REAL), REAL[:, 2].astype(np.int64)
    test = tables.features(COLUMNS[:2], OTHERS, REAL)
    truth = OTHERS[:, 2].astype(np.int64)
    right, balanced = tables.learned(x, y, test, truth, 0)
    assert min(right, balanced) > 0.95
    assert tables.learned(x, y, test, truth, 0) == (right, balanced)


def test_the_report_puts_real_rows_above_columns_alone(monkeypatch):
    monkeypatch.setattr(tables, "SEEDS", 2)
    ways = {"generator": lambda n, s: REAL[:n], "independent columns": tables.independent(REAL)}
    found = tables.measure("run", COLUMNS, ways, REAL, OTHERS, 2)
    rows = found.as_dict()
    assert rows["from generator"]["accuracy"] > rows["from independent columns"]["accuracy"] + 0.2
    assert rows["of generator"]["nearest"] == 0
    assert rows["of held-out rows"]["nearest"] == 1
    assert "independent columns" in str(found)


def test_a_target_of_numbers_is_above_or_below_its_middle():
    found = tables.classes_of(COLUMNS, 0, np.array([[-1.0, 0, 0], [2.0, 0, 0]]), 0.0)
    assert found.tolist() == [0, 1]
