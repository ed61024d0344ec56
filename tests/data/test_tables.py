"""CSV files as rows of numbers, and back."""

import numpy as np
import pytest
import torch

from fastgan.data.tables import columns as tables
from fastgan.data.tables import drawn, mixture
from fastgan.data.tables.columns import Column, Layout, decode, encode, fitted
from fastgan.data.tables.conditions import Rows, chosen
from fastgan.data.tables.opening import FEWEST, from_sheet, open_table, split, values_like
from fastgan.data.tables.reading import Sheet, parse, read_sheet, write_sheet
from fastgan.errors import FastganError

DICE = np.random.default_rng(0)


def written(path, header, rows, separator=","):
    path.write_text("\n".join(separator.join(row) for row in [header, *rows]) + "\n")
    return str(path)


def few(count=60):
    return [[f"{i % 3}", f"{i * 0.25:.2f}", "ab"[i % 2]] for i in range(count)]


def test_quotes_marks_separators_and_encodings_are_read(tmp_path):
    plain = parse('name,n\n"a, ""b""\nc",1\n\n"d",2\n')
    assert plain.rows == [['a, "b"\nc', "1"], ["d", "2"]]
    assert parse("a;b\n1,5;x\n2;y\n").separator == ";"
    assert parse("a\tb\n1\tx, y\n2\tz\n").rows[0] == ["1", "x, y"]
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        (tmp_path / "t.csv").write_bytes("größe,b\nklein,1\n".encode(encoding))
        assert read_sheet(str(tmp_path / "t.csv")).header == ["größe", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", "line 3: 1 values for 2 columns"),
        ("a,b\n", "no rows below its header"),
        ("1,2\n3,4\n", "numbers .* where names of columns belong"),
        ("a,a\n1,2\n", "two columns are called a"),
        ("a,,c\n1,2,3\n", "column 2 has no name"),
    ],
)
def test_what_is_no_table_is_one_line(text, message):
    with pytest.raises(FastganError, match=message):
        parse(text, "t.csv")


def test_files_that_are_no_text_or_not_there(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"PK\0\0")
    for source, message in (
        ("t.csv", "is no text"),
        ("none", "is not there"),
        (".", "is a folder"),
    ):
        with pytest.raises(FastganError, match=message):
            read_sheet(str(tmp_path / source))


def test_kinds_and_numbers_are_guessed_said_and_corrected(tmp_path):
    source = written(tmp_path / "t.csv", ["n", "x", "k"], few())
    table = open_table(source)
    assert [c.discrete for c in table.columns] == [True, False, True]
    assert table.columns[0].values == ("0", "1", "2")
    assert table.columns[1].decimals == 2
    assert "kinds, with the number of their values: n (3), k (2)" in table.notes[0]
    told = open_table(source, continuous="n", categorical="x", leave_out="k")
    assert [c.name for c in told.columns] == ["n", "x"]
    assert [c.discrete for c in told.columns] == [False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"categorical": "xx"}, "no such column; did you mean 'x'"),
        ({"continuous": "k"}, "column k holds 'a', which is no number"),
        ({"leave_out": "n,x"}, "at least two"),
        ({"categorical": "n", "continuous": "n"}, "can't be both"),
    ],
)
def test_options_that_do_not_fit_are_one_line(options, message, tmp_path):
    source = written(tmp_path / "t.csv", ["n", "x", "k"], few())
    with pytest.raises(FastganError, match=message):
        open_table(source, **options)


def test_columns_that_can_not_be_learned_are_one_line():
    names = [[f"person {i}", "1"] for i in range(300)]
    with pytest.raises(FastganError, match=r"id has 300 different texts.*--leave-out"):
        from_sheet("t", Sheet(["id", "n"], names, ","))
    with pytest.raises(FastganError, match="column n is empty"):
        from_sheet("t", Sheet(["id", "n"], [["1", "NA"]] * FEWEST, ","))
    with pytest.raises(FastganError, match=f"give at least {FEWEST}"):
        from_sheet("t", Sheet(["id", "n"], [["1", "2"]] * 3, ","))


def test_missing_values_codes_and_decimal_commas():
    rows = [["", "0123", "1,5"], ["NA", "0456", "-2,25"], ["x", "0123", "?"]] * 20
    table = from_sheet("t", Sheet(["k", "zip", "n"], rows, ";"))
    kind, code, number = table.columns
    assert kind.values == ("", "x")
    assert code.values == ("0123", "0456")
    assert number.comma
    assert number.decimals == 2
    assert np.isnan(table.values[2, 2])
    assert number.text(-2.25) == "-2,25"
    assert number.text(np.nan) == ""
    assert any("n has no value in 20 of 60" in note for note in table.notes)


def test_digamma_is_torchs():
    x = np.array([1e-3, 0.1, 1.0, 2.5, 40.0, 1e4])
    np.testing.assert_allclose(
        mixture.digamma(x), torch.special.digamma(torch.from_numpy(x)).numpy(), rtol=1e-9
    )


def test_the_mixture_finds_the_modes_that_there_are():
    values = np.r_[DICE.normal(-5, 0.5, 3000), DICE.normal(10, 2, 1000)]
    weights, means, deviations = mixture.fit(values)
    np.testing.assert_allclose(means, [-5, 10], atol=0.2)
    np.testing.assert_allclose(deviations, [0.5, 2], rtol=0.1)
    np.testing.assert_allclose(weights, [0.75, 0.25], atol=0.02)
    again = mixture.fit(values[::-1])
    assert all(np.array_equal(a, b) for a, b in zip(again, (weights, means, deviations)))


def test_a_value_that_is_frequent_is_a_mode_of_its_own():
    values = np.r_[np.zeros(1000), DICE.normal(100, 10, 1000)]
    column = fitted(Column("n", decimals=2), values)
    assert column.means[0] == 0
    assert column.weights[0] == pytest.approx(0.5)
    rows = encode([column, Column("k", ("a",), (2000,))], np.c_[values, np.zeros(2000)])
    back = decode([column, Column("k", ("a",), (2000,))], rows)[:, 0]
    assert (back[:1000] == 0).all()
    np.testing.assert_allclose(back[1000:], values[1000:], atol=0.02)


def test_a_mode_is_chosen_as_often_as_it_is_likely():
    modes = np.array([0.5, 0.5]), np.array([0.0, 1.0]), np.array([1.0, 1.0])
    u = (np.arange(1000) + 0.5) / 1000
    chosen = mixture.choose(np.full(1000, 0.25), modes, u)
    away = np.exp(-0.5 * (np.array([0.25, 0.75]) ** 2))
    assert chosen.mean() == pytest.approx(away[1] / away.sum(), abs=2e-3)


def test_rows_come_back_as_they_were():
    table = drawn.loans(800)
    columns = [fitted(c, table.values[:, i]) for i, c in enumerate(table.columns)]
    rows = encode(columns, table.values, seed=3)
    layout = Layout.of(columns)
    assert rows.shape == (800, layout.width)
    ones = rows[:, : sum(layout.groups)]
    assert set(np.unique(ones)) == {0.0, 1.0}
    assert (ones.sum(1) == len(columns)).all()
    assert np.abs(rows[:, sum(layout.groups) :]).max() < 0.9901
    back = decode(columns, rows)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(table.values))
    for i, column in enumerate(columns):
        if column.discrete:
            assert (back[:, i] == table.values[:, i]).all()
        else:
            off = np.abs(back[:, i] - table.values[:, i])
            assert np.nanquantile(off, 0.95) < 0.01 * np.nanstd(table.values[:, i])
    assert np.array_equal(rows, encode(columns, table.values, seed=3))
    assert not np.array_equal(rows, encode(columns, table.values, seed=4))


def test_conditions_are_even_over_columns_and_logarithmic_over_values():
    values = np.c_[DICE.random(2000) < 0.02, DICE.integers(0, 4, 2000)].astype(float)
    columns = [Column("rare", ("no", "yes")), Column("even", tuple("abcd"))]
    columns = [fitted(c, values[:, i]) for i, c in enumerate(columns)]
    rows, slots = chosen(columns, values, 0)
    first = slots < 2
    assert first.mean() == pytest.approx(0.5, abs=0.01)
    counts = np.log1p(columns[0].counts)
    assert (slots[first] == 1).mean() == pytest.approx(counts[1] / counts.sum(), abs=0.01)
    assert (values[rows[first], 0] == slots[first]).all()
    assert (values[rows[~first], 1] == slots[~first] - 2).all()
    assert set(rows) >= set(np.flatnonzero(values[:, 0]))


def test_the_data_set_says_what_it_is():
    table = drawn.loans(200)
    columns = [fitted(c, table.values[:, i]) for i, c in enumerate(table.columns)]
    rows = Rows(table, columns, table.values, len(columns) - 1, 0)
    assert rows.classes == ["no", "yes"]
    assert rows.describe().startswith("loans: 200 rows of 9 columns (5 of kinds, 4 of numbers)")
    assert rows.present.tolist() == [0, 1]


def test_a_table_is_written_as_it_was_read():
    sheet = drawn.draw(60)
    assert parse(write_sheet(sheet).decode()) == sheet


def test_another_file_is_read_as_the_first_was(tmp_path):
    table = open_table(written(tmp_path / "a.csv", ["n", "x", "k"], few()))
    other = written(tmp_path / "b.csv", ["k", "x", "n"], [["b", "7.5", "2"]])
    assert values_like(other, table.columns).tolist() == [[2.0, 7.5, 1.0]]
    for row, message in ((["c", "1", "2"], "column k holds 'c'"), (["a", "z", "2"], "holds 'z'")):
        with pytest.raises(FastganError, match=message):
            values_like(written(tmp_path / "c.csv", ["k", "x", "n"], [row]), table.columns)
    with pytest.raises(FastganError, match="no column n"):
        values_like(written(tmp_path / "d.csv", ["k", "x"], [["a", "1"]]), table.columns)


def test_held_out_rows_are_others():
    seen, apart = split(100, 0.2, 0)
    assert len(apart) == 20
    assert sorted([*seen, *apart]) == list(range(100))


def test_whole_numbers_have_bins_of_equal_size():
    column = fitted(Column("n"), np.arange(1000) % 60 + 0.0)
    assert (column.span[1] - column.span[0]) % tables.BINS == 0
    assert sum(column.counts) == 1000
