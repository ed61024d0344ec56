"""Files of strings, the check of SMILES, and SMILES that are drawn."""

import gzip
import random

import numpy as np
import pytest

from fastgan.data.strings import drawn, opening, reading
from fastgan.data.strings.elements import valences
from fastgan.data.strings.opening import decode, encode, open_strings, symbols_of
from fastgan.data.strings.smiles import fault, symbols
from fastgan.errors import FastganError

VALID = [
    "C",
    "CCO",
    "CC(=O)O",
    "C#N",
    "O=C=O",
    "CC(C)(C)C",
    "C1CC1",
    "C1CCCCC1",
    "C%12CC%12",
    "C1CC2CC1C2",
    "C=1CC=1",
    "C1CC=1",
    "CS(=O)(=O)C",
    "CP(=O)(O)O",
    "ClC(Cl)Cl",
    "BrCCBr",
    "FC(F)(F)F",
    "c1ccccc1",
    "c1ccncc1",
    "c1ccoc1",
    "c1cc[nH]c1",
    "Cn1cccc1",
    "c1cnc[nH]1",
    "c1ccc2ccccc2c1",
    "c1ccc2[nH]ccc2c1",
    "c1ccccc1c1ccccc1",
    "c1ccc(-c2ccccc2)cc1",
    "O=c1cc[nH]cc1",
    "[Na+].[Cl-]",
    "C[N+](C)(C)C",
    "[O-][N+](=O)c1ccccc1",
    "[NH4+]",
    "[13CH4]",
    "C[C@@H](N)C(=O)O",
    "F/C=C/F",
    "C/C=C\\C",
    "c1cc[cH-]c1",
    "[nH+]1ccccc1",
    "c1cc[o+]cc1",
    "C[Si](C)(C)C",
    "[H][H]",
    "[2H]O[2H]",
    "CI",
    "[Fe+2]",
    "c1ccsc1",
    "c1cnnn1C",
    "CN=[N+]=[N-]",
    "C[n+]1ccccc1",
    "[se]1cccc1",
    "C1(CC1)C",
    "C(C)(C)C",
]

FAULTS = {
    "": "no atom",
    "C" * 501: "more than 500 characters",
    "CX": "'X' is no atom",
    "C[Q]": "is no atom",
    "C[C": "is no atom",
    "C(C": "branch that is not closed",
    "CC)C": "closed too often",
    "C()C": "empty branch",
    "(C)C": "branch from nothing",
    "C=(C)C": "branch from nothing",
    "C((C))C": "branch from nothing",
    "C(1CC1)": "ring from nothing",
    "1CC1": "ring from nothing",
    "C1CC": "ring that is not closed",
    "C11": "fewer than three",
    "C1C1": "fewer than three",
    "C12CC12": "fewer than three",
    "C=1CC-1": "different bonds",
    "CC=": "ends too early",
    "C.": "ends too early",
    "C..C": "part of nothing",
    "=C": "bond from nothing",
    "C==C": "bond from nothing",
    "C(=)C": "empty branch",
    "CC)": "closed too often",
    "C(C=)C": "bond to nothing",
    "C(=1CC1)": "ring from nothing",
    "C(C)(C)(C)(C)C": "C with 5 bonds",
    "C#C#C": "C with 6 bonds",
    "C(=O)(=O)C": "C with 5 bonds",
    "FCl(C)C": "Cl with 3 bonds",
    "FOF.CFC": "F with 2 bonds",
    "CN(C)(C)C": "N with 4 bonds",
    "CN(=O)=O": "N with 5 bonds",
    "CO(C)C": "O with 3 bonds",
    "[CH5]": "C with 5 bonds",
    "[NH5+]": "N with 5 bonds",
    "cC": "outside of a ring",
    "c1ccccc1cC": "outside of a ring",
    "C1CcC1.c": "Kekule|outside",
    "c1cccc1": "Kekule",
    "n1cccc1": "Kekule",
    "c1cc[nH]cc1": "Kekule",
    "c1ccccc1(=O)": "Kekule",
    "Cn1ccccc1": "Kekule",
    "c1cco(C)c1": "O with ",
}


@pytest.mark.parametrize("text", VALID)
def test_a_molecule_that_can_be_has_no_fault(text):
    assert fault(text) is None


@pytest.mark.parametrize(("text", "why"), FAULTS.items())
def test_a_molecule_that_cannot_be_has_a_fault_that_is_named(text, why):
    found = fault(text)
    assert found is not None
    assert any(part in found for part in why.split("|")), found


def test_valences_of_ions_are_those_of_the_element_with_as_many_electrons():
    assert valences("N", 1) == valences("C", 0) == (4,)
    assert valences("O", -1) == valences("F", 0) == (1,)
    assert valences("S", 0) == (2, 4, 6)
    assert valences("Fe", 2) is None
    assert valences("H", 0) == (1,)


def test_noise_and_large_rings_of_rings_are_looked_at_in_no_time():
    chance = random.Random(0)
    letters = "CNOPSFIBclnos[]()=#123%+-H@.\\/é\0"
    for _ in range(2000):
        fault("".join(chance.choice(letters) for _ in range(chance.randrange(40))))
    fault("c1cc" * 100 + "1")
    fault("(" * 400)
    fault("c12" + "c3cc4" * 90)


def test_symbols_put_together_are_the_string():
    assert symbols("ClC[nH]c%12Br") == ["Cl", "C", "[nH]", "c", "%12", "Br"]
    for text in ("", "[[C]", "%1", "Clé\n"):
        assert "".join(symbols(text)) == text
    assert symbols_of("Cl", "text") == ["C", "l"]


def test_drawn_molecules_are_valid_different_and_a_function_of_the_seed():
    found = drawn.draw(800)
    assert found == drawn.draw(800)
    assert found[:300] == drawn.draw(300)
    assert found != drawn.draw(800, seed=1)
    assert len(set(found)) == 800
    assert [text for text in found if fault(text)] == []
    long = [len(symbols(text)) for text in found]
    assert min(long) >= drawn.SHORTEST
    assert max(long) <= drawn.LONGEST
    for part in ("c1", "C1", "=", "#", "(", "Cl", "Br", "F", "N", "O", "S", "[nH]", "n", "2"):
        assert sum(part in text for text in found) > 4, part


def lines(count=150):
    return drawn.draw(count)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_of_lines_is_read_in_each_of_its_forms(here):
    wanted = lines()
    (here / "a.txt").write_text("\n".join(wanted))
    (here / "b.smi").write_text(
        "smiles\n" + "".join(f"{s}\tname {i}\r\n" for i, s in enumerate(wanted))
    )
    (here / "c.csv").write_text(
        "id,SMILES,SPLIT\n" + "".join(f"{i},{s},x\n" for i, s in enumerate(wanted))
    )
    (here / "d.csv.gz").write_bytes(gzip.compress((here / "c.csv").read_bytes()))
    (here / "e.tsv").write_text("n\tmolecule\n" + "".join(f"1\t{s}\n" for s in wanted))
    (here / "f.txt").write_bytes("\n\n".join(wanted).encode("utf-16"))
    for name in ("a.txt", "b.smi", "c.csv", "d.csv.gz", "f.txt"):
        assert open_strings(name).strings == wanted, name
    assert open_strings("e.tsv", column="molecule").strings == wanted
    assert "150 strings of up to 24 symbols" in open_strings("a.txt").describe()


def test_text_keeps_its_blanks_and_each_character_is_a_symbol(here):
    (here / "t.txt").write_text("\n".join(f"Ann é {i}" for i in range(120)), "utf-8")
    found = open_strings("t.txt", form="text")
    assert found.strings[7] == "Ann é 7"
    assert "é" in found.alphabet
    codes = encode(["é", "Ann é 119"], found.alphabet, 9, "text")
    assert codes[0, 1:].tolist() == [0] * 8
    assert decode(codes, found.alphabet) == ["é", "Ann é 119"]
    assert decode(np.zeros((2, 3), np.uint8), found.alphabet) == ["", ""]


def test_what_is_left_out_is_said(here):
    odd = ["C" * 30, "C" * 5000, "C\x1b[2JC", *lines(3)]
    (here / "a.txt").write_text("\n".join([*lines(), *odd]))
    found = open_strings("a.txt", length=24)
    assert found.strings == lines()
    said = " ".join(found.notes)
    assert "3 strings that come again" in said
    assert "2 strings with characters that can't be printed, or too long" in said
    assert "1 strings of more than 24 symbols: see --length" in said
    assert found.fields["image"].shape == (24,)


def test_some_strings_that_are_no_smiles_are_said_and_most_are_refused(here):
    (here / "a.txt").write_text("\n".join([*lines(), "C1CC"]))
    assert (
        "1 of 151 strings looked at are no valid SMILES, such as C1CC"
        in open_strings("a.txt").notes[0]
    )
    (here / "b.txt").write_text("\n".join(f"name{i}" for i in range(150)))
    with pytest.raises(FastganError, match="learn other strings with --form text"):
        open_strings("b.txt")
    assert len(open_strings("b.txt", form="text")) == 150


BAD = {
    "none.txt": (None, "none.txt is not there"),
    "empty.txt": (b"", "0 different strings"),
    "one.txt": (b"CCO", "1 different strings"),
    "same.txt": (b"CCO\n" * 500, "1 different strings that can be learned; 499 strings that come"),
    "nul.txt": (b"CC\0O\n" * 500, "is no text"),
    "latin.txt": (b"\xe9\xff" * 300, "is no UTF-8 text"),
    "cut.csv.gz": (gzip.compress(b"SMILES\nCCO\n" * 99)[:-9], "can't be unpacked"),
    "plain.gz": (b"CCO\n" * 99, "can't be unpacked"),
    "head.csv": (b"a,b\n1,2\n", "has no column SMILES; there are a, b: name one with --column"),
    "ragged.csv": (b"a,smiles\n1,CC\n2\n", "line 3: 1 values"),
    "nothing.csv": (b"", "has no column SMILES"),
    "line.txt": (b"C" * 200_000, "left out 1 strings"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_none_is_one_line(here, name):
    data, message = BAD[name]
    if data is not None:
        (here / name).write_bytes(data)
    with pytest.raises(FastganError) as error:
        open_strings(name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_sizes_are_bounded_packed_and_unpacked(here, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST", 50_000)
    (here / "long.txt").write_bytes(b"C" * 60_000)
    (here / "bomb.gz").write_bytes(gzip.compress(b"C" * 2**24))
    for name in ("long.txt", "bomb.gz"):
        with pytest.raises(FastganError, match="larger than 50"):
            open_strings(name)


def test_a_long_length_takes_no_memory_and_many_long_strings_are_refused(here, monkeypatch):
    (here / "a.txt").write_text("\n".join(lines()))
    assert open_strings("a.txt", length=10**12).fields["image"].shape == (24,)
    monkeypatch.setattr(opening, "MOST", 150 * 24 - 1)
    with pytest.raises(FastganError, match="give fewer strings, or a smaller --length"):
        open_strings("a.txt")


def test_more_symbols_than_numbers_and_columns_of_no_table_are_refused(here):
    (here / "a.txt").write_text("\n".join(chr(0x4E00 + i) for i in range(300)), "utf-8")
    with pytest.raises(
        FastganError, match=f"300 different symbols, more than {opening.MOST_SYMBOLS}"
    ):
        open_strings("a.txt", form="text")
    with pytest.raises(FastganError, match=r"--column x is for a \.csv or \.tsv file"):
        open_strings("a.txt", column="x")
    (here / "c.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FastganError, match="no column x; there are a, b"):
        open_strings("c.csv", column="x")


def test_damaged_files_are_used_or_refused_in_one_line(here):
    whole = {"a.txt": "\n".join(lines()).encode()}
    whole["a.csv"] = b"SMILES,n\n" + b",1\n".join(s.encode() for s in lines()) + b",1\n"
    whole["a.csv.gz"] = gzip.compress(whole["a.csv"], mtime=0)
    chance = random.Random(5)
    for _ in range(150):
        name = chance.choice(sorted(whole))
        data = bytearray(whole[name])
        for _ in range(chance.choice([1, 3, 30])):
            at = chance.randrange(len(data))
            data[at : at + chance.choice([0, 1, 50])] = bytes([chance.randrange(256)])
        (here / name).write_bytes(data)
        said = ""
        try:
            open_strings(name)
        except FastganError as error:
            said = str(error)
        assert "\n" not in said
