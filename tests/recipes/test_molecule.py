"""Recipe molecule by command, and what strings are spared."""

import json

import pytest
import torch
from exact_resume import goes_on_exactly
from run_support import commands, in_a_hurry
from tiny_recipes import flags, tiny

from fastgan import recipes, sample
from fastgan.data.strings import drawn
from fastgan.data.strings.opening import encode
from fastgan.errors import FastganError
from fastgan.media.strings import BAD, GOOD, Lines
from fastgan.recipes import ImageSpec

FEW = ["--batch-size=8", "--device=cpu", *flags("molecule")]


@pytest.fixture
def fastgan(tmp_path, monkeypatch, capsys):
    """fastgan(args...) -> (code, what it printed, its errors), in a folder with m.smi and t.txt."""
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.smi").write_text("\n".join(drawn.draw(200)))
    (tmp_path / "t.txt").write_text("\n".join(f"Ann é {i}" for i in range(150)), "utf-8")
    return commands(capsys)


def made(fastgan, *more):
    code, out, err = fastgan(
        "train", "--recipe=molecule", "--data=m.smi", "--steps=3", "--out=run", *FEW, *more
    )
    assert code == 0, err
    return out


def test_strings_are_learned_sampled_measured_and_gone_on_with(fastgan, tmp_path):
    assert "160 strings of up to 24 symbols, " in made(fastgan)
    for picture in ("samples/00000003.png", "reals.png"):
        assert (tmp_path / "run" / picture).stat().st_size > 0
    assert "augment" not in (tmp_path / "run/config.toml").read_text()
    assert fastgan("sample", "run", "--n", 40)[1] == "40 strings in strings.txt\n"
    assert len((tmp_path / "strings.txt").read_text().split("\n")) == 41
    assert fastgan("sample", "run", "--n=9", "--out=new.smi")[1] == "9 strings in new.smi\n"
    first = (tmp_path / "strings.txt").read_text().split("\n")[:9]
    assert (tmp_path / "new.smi").read_text().split("\n")[:9] == first
    assert fastgan("sample", "run", "--n=9", "--out=sheet.png")[0] == 0
    assert fastgan("sample", "run", "--seeds=1,5", "--out=b.txt")[1] == "2 strings in b.txt\n"
    code, out, err = fastgan("evaluate", "run", "--n", 100)
    assert code == 0, err
    assert "4-gram" in out
    found = json.loads((tmp_path / "run/evaluation.json").read_text())["rows"]
    assert 0 <= found["generator"]["good %"] <= found["generator"]["valid %"] <= 100
    assert found["held-out strings (floor)"]["valid %"] == 100
    assert "going on at step 3" in fastgan("train", "--resume=run", "--steps=4")[1]
    assert fastgan("report", "run")[0] == 0
    assert fastgan("export", "run", "--out=folder")[0] == 0
    assert fastgan("export", "run", "--format=torch", "--out=m.pt2")[0] == 0


def test_strings_of_text_have_no_validity(fastgan, tmp_path):
    made(fastgan, "--data=t.txt", "--form=text", "--length=12")
    assert fastgan("sample", "run", "--n=5")[0] == 0
    code, out, err = fastgan("evaluate", "run", "--n", 50)
    assert code == 0, err
    assert "valid %" not in out
    assert "unique %" in out
    (tmp_path / "o.txt").write_text("\n".join(f"ß {i}" for i in range(30)), "utf-8")
    assert fastgan("evaluate", "run", "--n=50", "--data=o.txt")[0] == 0


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--flip"], "--flip is for recipes that make images, and molecule makes strings"),
        (["--augment=color"], "--augment is for recipes that make images"),
        (["--size=16"], "--size is for recipes that make images"),
        (["--evaluate-every=5"], "--evaluate-every is for recipes that make images"),
        (["--data=none.smi"], "none.smi is not there"),
        (["--data=t.txt"], "learn other strings with --form text"),
        (["--form=poem"], "poem"),
        (["--length=2"], "strings of more than 2 symbols: see --length"),
        (["--column=x"], "--column x is for a .csv or .tsv file"),
        (["--adversarial=0", "--likelihood=0"], "give one of them a weight"),
    ],
)
def test_what_strings_have_no_use_for_is_one_line(fastgan, tmp_path, typed, message):
    code, _, err = fastgan(
        "train", "--recipe=molecule", "--data=m.smi", "--steps=3", "--out=run", *FEW, *typed
    )
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["sample", "run", "--size=64"], "--size is for images, and this run makes strings"),
        (["sample", "run", "--text=x"], "--text is for images"),
        (["sample", "run", "--traverse=z.0"], "--traverse is for images"),
        (["sample", "run", "--label=0"], "trained without labels"),
        (["sample", "run", "--out=rows.csv"], "name it .txt"),
        (["sample", "run", "--out=folder/"], "strings go into one file, such as strings.txt"),
        (["export", "run", "--format=web", "--out=p.html"], "--format web is for images"),
        (["interpolate", "run"], "fastgan interpolate is for images"),
        (["invert", "run", "m.smi"], "fastgan invert is for images"),
        (["supplement", "run"], "fastgan supplement is for images"),
        (["evaluate", "run", "--data=few.smi"], "1 held-out strings, too few"),
    ],
)
def test_what_is_for_images_alone_is_one_line(fastgan, tmp_path, typed, message):
    made(fastgan)
    (tmp_path / "few.smi").write_text("CCO\n")
    code, _, err = fastgan(*typed)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_without_held_out_strings_others_must_be_named(fastgan, tmp_path):
    made(fastgan, "--held-out=0")
    code, _, err = fastgan("evaluate", "run", "--n=50")
    assert (code, "0 held-out strings" in err) == (2, True)
    (tmp_path / "o.smi").write_text("\n".join(drawn.draw(260)[200:]))
    assert fastgan("evaluate", "run", "--n=50", "--data=o.smi")[0] == 0


@pytest.mark.parametrize("weights", [{}, {"adversarial": 0.0}, {"likelihood": 0.0, "n_critic": 2}])
def test_a_stopped_run_goes_on_exactly(tmp_path, monkeypatch, weights):
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.smi").write_text("\n".join(drawn.draw(200)))
    options = {"data": "m.smi", "batch_size": 8, "steps": 4, "device": "cpu", "progress": False}
    config = recipes.find("molecule")(**options, **tiny("molecule"), **weights)
    straight, second = goes_on_exactly(config, 2, 4)
    assert torch.equal(straight.sample(8), second.sample(8))


def test_samples_are_a_function_of_their_seed(fastgan):
    made(fastgan)
    first, second, other = (sample("run", 4, seed=s, device="cpu") for s in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(first.sum(2), torch.ones(4, 24))


def test_a_sheet_is_dark_where_strings_are_valid_and_grey_where_not():
    alphabet = ("1", "C", "Cl")

    def inks(form, text):
        medium = Lines(alphabet, form)
        codes = torch.from_numpy(encode([text], alphabet, 6, "smiles"))
        samples = medium.finished(codes)
        assert medium.strings(samples) == [text]
        assert medium.encode(samples, ".smi") == f"{text}\n".encode()
        sheet = (medium.picture(samples)[0] * 255).round().byte().permute(1, 2, 0).numpy()
        return {tuple(c) for c in sheet.reshape(-1, 3).tolist()}

    assert GOOD in inks("smiles", "CCCl")
    valid, invalid = inks("smiles", "CC1CC1"), inks("smiles", "CC1CCC")
    assert GOOD in valid
    assert GOOD not in invalid
    assert min(map(min, invalid)) >= min(BAD)
    assert GOOD in inks("text", "CC1CCC")


def test_a_data_set_of_another_kind_is_one_line():
    with pytest.raises(FastganError, match="molecule needs strings"):
        recipes.find("molecule")().build(ImageSpec(8, 1))
