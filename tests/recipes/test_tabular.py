"""Recipe tabular by command, and what samples that are no images are spared."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from exact_resume import goes_on_exactly
from run_support import commands, in_a_hurry
from tiny_recipes import flags, tiny

from fastgan import recipes, sample
from fastgan.data.tables import drawn
from fastgan.data.tables.reading import write_sheet
from fastgan.errors import FastganError

FEW = ["--batch-size=8", "--device=cpu", *flags("tabular")]


@pytest.fixture
def fastgan(tmp_path, monkeypatch, capsys):
    """fastgan(args...) -> (code, what it printed, its errors), in a folder with t.csv."""
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_bytes(write_sheet(drawn.draw(300)))
    return commands(capsys)


def made(fastgan, *more):
    code, out, err = fastgan(
        "train", "--recipe=tabular", "--data=t.csv", "--steps=3", "--out=run", *FEW, *more
    )
    assert code == 0, err
    return out


def test_a_table_is_learned_sampled_measured_and_gone_on_with(fastgan, tmp_path):
    assert "240 rows of 9 columns" in made(fastgan)
    assert (tmp_path / "run/samples/00000003.png").stat().st_size > 0
    assert (tmp_path / "run/reals.png").stat().st_size > 0
    config = (tmp_path / "run/config.toml").read_text()
    assert "augment" not in config
    assert "size = " not in config.replace("batch_size", "")
    assert fastgan("sample", "run", "--n", 40)[1] == "40 rows in rows.csv\n"
    rows = list(csv.reader(io.StringIO((tmp_path / "rows.csv").read_text())))
    assert rows[0] == drawn.HEADER
    assert len(rows) == 41
    assert {row[1] for row in rows[1:]} <= set(drawn.SCHOOLING)
    assert all(len(row[4].partition(".")[2]) == 2 for row in rows[1:])
    assert fastgan("sample", "run", "--n", 9, "--out", "shown.png")[0] == 0
    code, out, err = fastgan("evaluate", "run", "--n", 100)
    assert code == 0, err
    assert "Gaussian copula" in out
    found = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert 0 <= found["from generator"]["accuracy"] <= 1
    assert "going on at step 3" in fastgan("train", "--resume=run", "--steps=4")[1]
    assert fastgan("report", "run")[0] == 0
    assert fastgan("export", "run", "--out=folder")[0] == 0
    assert (tmp_path / "folder/samples.png").stat().st_size > 0


def test_samples_can_be_asked_of_a_class_and_of_seeds(fastgan):
    made(fastgan)
    assert fastgan("sample", "run", "--n=6", "--label=yes", "--out=a.csv")[0] == 0
    assert fastgan("sample", "run", "--seeds=1,5", "--out=b.csv")[1] == "2 rows in b.csv\n"
    code, _, err = fastgan("sample", "run", "--label=perhaps")
    assert (code, "no label 'perhaps'" in err) == (2, True)
    first, second = (sample("run", 4, seed=3, device="cpu") for _ in "ab")
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--flip"], "--flip is for recipes that make images, and tabular makes rows"),
        (["--augment", "color"], "--augment is for recipes that make images"),
        (["--size=16"], "--size is for recipes that make images"),
        (["--evaluate-every=5"], "--evaluate-every is for recipes that make images"),
        (["--data=none.csv"], "none.csv is not there"),
        (["--target=repayd"], "did you mean 'repaid'"),
        (["--categorical=x"], "--categorical x: no such column"),
    ],
)
def test_what_a_table_has_no_use_for_is_one_line(fastgan, tmp_path, typed, message):
    code, _, err = fastgan(
        "train", "--recipe=tabular", "--data=t.csv", "--steps=3", "--out=run", *FEW, *typed
    )
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_options_of_files_and_of_python_are_refused_alike(tmp_path, fastgan):
    (tmp_path / "o.toml").write_text('recipe = "tabular"\nflip = true\n')
    code, _, err = fastgan("train", "--config=o.toml", "--out=run")
    assert (code, "--flip is for recipes that make images" in err) == (2, True)
    with pytest.raises(FastganError, match="--augment is for recipes that make images"):
        recipes.find("tabular")(augment="color")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["sample", "run", "--size=64"], "--size is for images, and this run makes rows"),
        (["sample", "run", "--text=x"], "--text is for images"),
        (["sample", "run", "--traverse=z.0"], "--traverse is for images"),
        (["sample", "run", "--input=t.csv"], "--input is for images"),
        (["sample", "run", "--out=rows.txt"], "name it .csv, or .png"),
        (["sample", "run", "--out=folder/"], "rows go into one file, such as rows.csv"),
        (["export", "run", "--format=web", "--out=p.html"], "--format web is for images"),
        (["interpolate", "run"], "fastgan interpolate is for images"),
        (["directions", "run"], "fastgan directions is for images"),
        (["invert", "run", "t.csv"], "fastgan invert is for images"),
        (["supplement", "run"], "fastgan supplement is for images"),
        (["evaluate", "run", "--data=run/config.toml"], "config.toml"),
    ],
)
def test_what_is_for_images_alone_is_one_line(fastgan, typed, message):
    made(fastgan)
    code, _, err = fastgan(*typed)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_stopped_run_goes_on_exactly(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_bytes(write_sheet(drawn.draw(300)))
    options = {"data": "t.csv", "batch_size": 8, "steps": 4, "device": "cpu", "progress": False}
    config = recipes.find("tabular")(**options, **tiny("tabular"))
    straight, second = goes_on_exactly(config, 2, 4)
    assert torch.equal(straight.sample(8), second.sample(8))


def test_a_table_of_numbers_alone_has_no_conditions(tmp_path, fastgan):
    dice = np.random.default_rng(0)
    lines = [
        "a;b",
        *(f"{x:.2f};{x + y:.1f}".replace(".", ",") for x, y in dice.normal(size=(80, 2))),
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    made(fastgan)
    assert fastgan("sample", "run", "--n=3")[0] == 0
    head, first, *_ = (tmp_path / "rows.csv").read_text().splitlines()
    assert head == "a;b"
    assert first.count(",") == 2
    code, _, err = fastgan("sample", "run", "--label=0")
    assert (code, "trained without labels" in err) == (2, True)


def test_a_table_of_kinds_alone_has_no_numbers(tmp_path, fastgan):
    lines = ["a,b", *(f"{'xyz'[i % 3]},{i % 2}" for i in range(60))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    made(fastgan)
    assert fastgan("sample", "run", "--n=3")[0] == 0


def test_a_run_that_is_older_than_the_classifier_goes_on_without(fastgan, tmp_path):
    made(fastgan, "--classifier=0")
    config = tmp_path / "run" / "config.toml"
    text = config.read_text()
    assert "classifier = 0.0\n" in text
    config.write_text(text.replace("classifier = 0.0\n", ""))
    facts = (tmp_path / "run" / "run.json").read_text()
    assert "classifier" not in facts.replace('"classifier": 0.0', "")
    code, out, err = fastgan("train", "--resume=run", "--steps=4")
    assert code == 0, err
    assert "going on at step 3" in out


def test_a_target_that_is_a_number_has_no_classifier(fastgan, tmp_path):
    made(fastgan, "--target=age")
    nets = json.loads((tmp_path / "run" / "run.json").read_text())["stages"][0]["nets"]
    assert sorted(nets) == ["D", "G"]
