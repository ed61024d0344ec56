"""A table that is drawn by rule: loans, whose columns depend on each other in known ways."""

from __future__ import annotations

import numpy as np

from fastgan.data.tables.opening import Table, from_sheet
from fastgan.data.tables.reading import Sheet

NAME = "loans"
ROWS = 6000

SCHOOLING = ("school", "trade", "bachelor", "master")
REGIONS = ("north", "south", "east", "west", "islands")
HEADER = ["age", "schooling", "region", "employed", "income", "savings", "loan", "children"]
HEADER += ["repaid"]


def draw(count: int = ROWS, seed: int = 0) -> Sheet:
    """Texts of `count` loans; "repaid" is the label.

    Age has two modes. Schooling depends on age, income (log-normal) on both and on work; savings
    are nothing for a third of people and missing for one in twenty; the loan follows income;
    one region is rare (2 %). The chance of "repaid" is a logistic function of loan against income,
    savings, work and region.
    """
    dice = np.random.default_rng([seed, 7])
    young = dice.random(count) < 0.45
    age = np.where(young, dice.normal(27, 4, count), dice.normal(52, 9, count)).clip(18, 85).round()
    rank = np.clip((age - 18) / 30, 0, 1) * 0.8 + dice.normal(1.1, 0.9, count)
    schooling = np.clip(rank.round(), 0, 3).astype(int)
    region = dice.choice(5, count, p=[0.34, 0.28, 0.21, 0.15, 0.02])
    employed = dice.random(count) < np.where(age > 65, 0.15, 0.78 + 0.05 * schooling)
    level = 7.2 + 0.28 * schooling + 0.012 * np.minimum(age, 58) + np.where(employed, 0.4, -0.5)
    income = np.exp(level + dice.normal(0, 0.3, count))
    nothing = dice.random(count) < 0.33
    savings = np.where(nothing, 0.0, income * np.exp(dice.normal(0.9, 0.9, count)))
    loan = np.maximum(500, income * np.exp(dice.normal(0.8, 0.5, count))).round(-2)
    children = dice.poisson(np.where(age < 25, 0.2, 1.3)).clip(0, 6)
    burden = np.log(loan / income)
    wish = 1.6 - 1.9 * (burden - 0.8) + 0.9 * ~nothing + 1.3 * employed - 1.2 * (region == 3) - 2.0
    repaid = dice.random(count) < 1 / (1 + np.exp(-1.8 * wish))
    gone = dice.random(count) < 0.05
    rows = [
        [
            f"{age[i]:.0f}",
            SCHOOLING[schooling[i]],
            REGIONS[region[i]],
            "yes" if employed[i] else "no",
            f"{income[i]:.2f}",
            "" if gone[i] else f"{savings[i]:.2f}",
            f"{loan[i]:.0f}",
            f"{children[i]}",
            "yes" if repaid[i] else "no",
        ]
        for i in range(count)
    ]
    return Sheet(list(HEADER), rows, ",")


def loans(count: int = ROWS, seed: int = 0) -> Table:
    """The drawn table as one that was opened."""
    return from_sheet(NAME, draw(count, seed))
