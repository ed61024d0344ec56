"""What is said of generated strings, where the truth is known."""

import sys
from types import ModuleType

import pytest

from fastgan.data.strings import drawn
from fastgan.data.strings.smiles import symbols
from fastgan.metrics.strings import Ngrams, grams, measure, told, total_variation

TRAIN, APART = drawn.draw(300), drawn.draw(900)[300:]


@pytest.fixture(autouse=True)
def no_rdkit(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)


def test_n_grams_draw_what_followed_as_often():
    model = Ngrams(["ab", "ab", "ab", "ac"], 2, list, 9)
    made = model.draw(4000, 0)
    assert set(made) == {"ab", "ac"}
    assert made.count("ab") / 4000 == pytest.approx(0.75, abs=0.03)
    assert made == model.draw(4000, 0)
    assert made != model.draw(4000, 1)
    crossed = Ngrams(["xay", "zaw"], 2, list, 9).draw(400, 0)
    assert set(crossed) == {"xay", "xaw", "zay", "zaw"}
    assert set(Ngrams(["xay", "zaw"], 3, list, 9).draw(400, 0)) == {"xay", "zaw"}
    assert {len(text) for text in Ngrams(["aaaa"] * 9, 1, list, 3).draw(99, 0)} == {0, 1, 2, 3}


def test_single_symbols_keep_their_shares():
    made = "".join(Ngrams(["aab", "b"], 1, list, 99).draw(4000, 0))
    assert made.count("a") / len(made) == pytest.approx(0.5, abs=0.03)


def test_runs_of_symbols_count_begin_and_end_and_differ_by_their_shares():
    assert grams(["ab"], 1, list) == {("a",): 1, ("b",): 1}
    assert grams(["ab"], 2, list) == {("", "a"): 1, ("a", "b"): 1, ("b", ""): 1}
    one, two = grams(["aab"], 1, list), grams(["bbb"], 1, list)
    assert total_variation(one, two) == pytest.approx(2 / 3)
    assert total_variation(one, one) == 0
    assert total_variation(one, grams(["c"], 1, list)) == 1
    assert total_variation(one, grams([], 1, list)) == pytest.approx(0.5)


def test_valid_unique_and_new_are_counted_in_turn():
    made = ["CCO", "CCO", "CCN", "C1C", "c1cccc1", "CCl", "CC", "", "N", "O"]
    row = told(made, {"CCN", "CC"}, ["CCO", "Cl"], symbols, "smiles")
    assert row["valid %"] == pytest.approx(70)
    assert row["unique %"] == pytest.approx(100 * 6 / 7)
    assert row["new %"] == pytest.approx(100 * 4 / 6)
    assert row["good %"] == pytest.approx(40)
    assert "RDKit %" not in row
    text = told(["a", "a", "b", "b"], {"b"}, ["é"], list, "text")
    assert text == {"good %": 25, "unique %": 50, "new %": 50, "symbols": 1, "pairs": 1}
    none = told(["C1C", ")"], set(), ["C"], symbols, "smiles")
    assert (none["valid %"], none["unique %"], none["new %"], none["good %"]) == (0, 0, 0, 0)


def test_the_table_has_the_rivals_the_floor_and_copies_are_seen():
    copies = {"generator": lambda n, seed: (TRAIN * 3)[:n]}
    found = measure("run", copies, TRAIN, APART, symbols, "smiles", 200, 24)
    rows = found.rows
    assert list(rows) == [
        "generator", "symbols one by one", "3-gram", "4-gram", "5-gram", "held-out strings (floor)",
    ]  # fmt: skip
    assert (rows["generator"]["valid %"], rows["generator"]["new %"]) == (100, 0)
    assert rows["held-out strings (floor)"]["good %"] == 100
    assert rows["3-gram"]["valid %"] < rows["5-gram"]["valid %"] < 80
    assert rows["symbols one by one"]["pairs"] > 3 * rows["3-gram"]["pairs"]
    assert "own check" in str(found)
    again = measure("run", copies, TRAIN, APART, symbols, "smiles", 200, 24)
    assert found == again


def test_rdkit_is_a_second_column_where_it_is_installed(monkeypatch):
    rdkit = ModuleType("rdkit")
    rdkit.Chem, rdkit.RDLogger = ModuleType("Chem"), ModuleType("RDLogger")
    rdkit.Chem.MolFromSmiles = lambda text: None if ")" in text else object()
    rdkit.RDLogger.DisableLog = lambda name: None
    monkeypatch.setitem(sys.modules, "rdkit", rdkit)
    row = told(["CC", "C)", "", "C1C"], set(), ["C"], symbols, "smiles")
    assert (row["RDKit %"], row["valid %"]) == (50, 25)
    assert "RDKit %" not in told(["CC"], set(), ["C"], list, "text")
