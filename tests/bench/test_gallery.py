"""The gallery: numbers, verdicts, going on where it stopped."""

import json
import shlex

import numpy as np
import pytest

from fastgan.bench.gallery import measure, page, rows, trainings
from fastgan.bench.gallery.page import Numbers, verdict
from fastgan.cli.main import main as cli
from fastgan.errors import FastganError
from fastgan.recipes import RECIPES


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(measure, "PICTURES", tmp_path / "pictures")
    monkeypatch.setattr(page, "PICTURES", tmp_path / "pictures")
    return tmp_path / "results"


def put(name, *values, key="FD-small", seconds=10.0):
    for seed, value in enumerate(values):
        found = {"cpu": "a CPU", "cpu_seconds": seconds, "evaluation": {key: value}}
        measure.keep(name, seed, found)


def test_every_kind_has_one_row_and_trainings_that_exist():
    kinds = [row.kind for row in rows.ROWS]
    assert len(kinds) == len(set(kinds))
    assert set(RECIPES) <= set(kinds)
    names = {name for name in measure.needed(kinds) if name != "gaussian"}
    assert names | {f"longer-{kind}" for kind in trainings.LONGER} == set(trainings.TRAININGS)


def test_numbers_have_three_digits_that_count_and_their_spread():
    assert str(Numbers((13.0, 14.0, 15.0))) == "14.0 ± 1.0"
    assert str(Numbers((0.0512,))) == "0.0512"
    assert str(Numbers((512.4, 512.6))) == "512 ± 0"
    assert Numbers((1.0, 2.0, 3.0)).spread == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("mine", "other", "said"),
    [
        ((1, 2, 3), (4, 5, 6), "yes"),
        ((1, 2, 5), (4, 5, 6), "in the mean"),
        ((4, 5, 6), (1, 2, 5), "**no**, in the mean"),
        ((4, 5, 6), (1, 2, 3), "**no**"),
    ],
)
def test_a_verdict_says_whether_seeds_overlap(mine, other, said):
    assert verdict(Numbers(mine), Numbers(other), higher=False) == said
    mirrored = [Numbers(tuple(-value for value in one)) for one in (mine, other)]
    assert verdict(*mirrored, higher=True) == said


@pytest.mark.parametrize(
    ("mine", "other", "said"),
    [
        ((1, 2, 5), (2, 3, 6), "yes, seed by seed"),
        ((2, 3, 6), (1, 2, 5), "**no**, seed by seed"),
        ((1, 2, 5), (2, 3, 5), "in the mean"),
        ((1, 2), (2, 3, 5), "in the mean"),
        ((1, 2, 3), (4, 5, 6), "yes"),
    ],
)
def test_the_same_training_without_a_term_is_compared_seed_by_seed(mine, other, said):
    assert verdict(Numbers(mine), Numbers(other), False, paired=True) == said


def test_seeds_are_compared_with_themselves_where_one_is_missing():
    mine, other = Numbers((1, 5), (0, 2)), Numbers((2, 3, 6), (0, 1, 2))
    assert verdict(mine, other, False, paired=True) == "in the mean"
    assert verdict(mine, Numbers((2, 6), (0, 2)), False, paired=True) == "yes, seed by seed"
    assert verdict(mine, Numbers((2, 6), (0, 1)), False, paired=True) == "in the mean"


def test_a_result_of_another_training_has_its_own_price(results):
    row = rows.Row("latent", "latent", (rows.Measure("faces", "FD-small", run="latent-faces"),))
    put("latent", 1.0, seconds=79.0)
    put("latent-faces", 5.0, 5.0, 5.0, seconds=99.0)
    assert page.cells(row)[1:3] == ["79", "faces (99 s) 5.00 ± 0.00"]


def test_a_row_shows_its_rival_its_price_and_what_is_missing(results):
    row = rows.sets("sngan", rows.Rival("dcgan", "dcgan"))
    assert "not measured" in page.cells(row)
    put("sngan", 9.0, 10.0, 11.0, seconds=90.0)
    put("dcgan", 13.0, 14.0, 15.0, seconds=43.0)
    name, seconds, result, others, said, _ = page.cells(row)
    assert (name, seconds) == ("[sngan](kinds/sngan.md)", "90")
    assert result == "FD-small 10.0 ± 1.0"
    assert others == "dcgan (43 s): 14.0 ± 1.0"
    assert said == "yes"


def test_a_rival_of_the_same_evaluation_is_read_from_it(results):
    rival = rows.Rival("k-means", key="measures/error of k-means")
    row = rows.Row("infogan", "infogan", (rows.Measure("error", "measures/mine", (rival,)),))
    found = {"measures": {"mine": 0.5, "error of k-means": 0.4}}
    measure.keep("infogan", 0, {"cpu": "a CPU", "cpu_seconds": 1.0, "evaluation": found})
    assert page.cells(row)[3:5] == ["k-means: 0.400", "**no**"]
    assert page.cells(row)[1:3] == ["1", "error 0.500 (1 of 3 seeds)"]


def test_the_summary_counts_kinds_by_their_first_result(results):
    row = rows.Row(
        "sngan",
        "sngan",
        (
            rows.Measure(
                "FD-small",
                "FD-small",
                (
                    rows.Rival("dcgan", "dcgan"),
                    rows.Rival("a second", value=12.0),
                    rows.Rival("reals", value=0.0, ceiling=True),
                ),
            ),
            rows.Measure("other", "FD-small", (rows.Rival("zero", value=0.0),)),
        ),
    )
    assert page.won(row) is None
    put("sngan", 9.0, 10.0, 11.0)
    assert page.won(row) is None
    put("dcgan", 13.0, 14.0)
    assert page.won(row) is None
    put("dcgan", 13.0, 14.0, 15.0)
    assert page.won(row) == "yes"
    assert page.cells(row)[4] == "yes;<br>yes;<br>;<br>**no**"
    put("dcgan", 10.5, 14.0, 15.0)
    assert page.won(row) == "in the mean"
    text = page.summary([row, rows.sets("r3gan")])
    assert text.startswith("**0 of 2 kinds beat all")
    assert "1 more in the mean of the seeds (sngan)" in " ".join(text.split())
    assert text.endswith("Not measured: r3gan.")
    put("dcgan", 8.0, 8.0, 8.0)
    assert page.won(row) == "no"
    assert "Not better than it: sngan." in page.summary([row])


def test_it_goes_on_where_it_stopped_and_keeps_each_training(results, monkeypatch):
    made = []

    def one(name, seed, picture):
        if len(made) == 3:
            raise FastganError("the machine went away")
        made.append((name, seed, picture))
        return {"cpu_seconds": 1.0, "evaluation": {"FD-small": 1.0}}

    monkeypatch.setattr(measure, "one", one)
    with pytest.raises(FastganError, match="went away"):
        measure.measure(["sngan"], (0, 1), lambda line: None)
    assert set(measure.kept("sngan")) == {0, 1}
    assert set(measure.kept("dcgan")) == {0}
    made.clear()
    measure.measure(["sngan"], (0, 1), lambda line: None)
    assert made == [("dcgan", 1, None)]


def test_an_evaluation_keeps_its_numbers_alone():
    found = {"KD": 1.5, "name": "x", "same": True, "list": [1], "in": {"n": 2, "text": "y"}}
    assert measure.numbers(found) == {"KD": 1.5, "in": {"n": 2}}


def test_the_page_is_written_between_its_marks(results, tmp_path):
    target = tmp_path / "gallery.md"
    marks = f"{page.BEGIN_LONGER}\nold\n{page.END_LONGER}"
    target.write_text(f"above\n{page.BEGIN}\nold\n{page.END}\nbetween\n{marks}\nbelow\n")
    put("dcgan", 13.0)
    put("longer-r3gan", 3.25, seconds=200.0)
    page.write(target)
    text = target.read_text()
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert "old" not in text
    assert "FD-small 13.0" in text
    assert "\nbetween\n" in text
    assert "| dcgan | `--recipe dcgan" in text
    assert "| 200 | 3.25 | not measured |" in text


@pytest.mark.parametrize(
    ("arguments", "said"), [(["nogan"], "no kind 'nogan'"), (["--seeds", "0"], "--seeds 0")]
)
def test_bad_input_is_one_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as done:
        cli(["gallery", *arguments])
    assert done.value.code == 2
    assert said in capsys.readouterr().err


def test_a_training_that_fails_says_its_last_line():
    with pytest.raises(FastganError, match="unknown recipe 'nogan'"):
        measure.fastgan(["train", "--recipe", "nogan"])


def test_the_page_is_that_of_the_results():
    text = page.PAGE.read_text("utf-8")
    assert page.table() in text
    assert page.commands() in text


def test_every_number_of_a_row_is_in_the_results():
    """A measure that was renamed would be left out of the page."""
    for row in rows.ROWS:
        for one in row.measures:
            name = one.run or row.run
            if measure.kept(name):
                assert page.own(row, one) is not None, (row.kind, one.label)
                for rival in (rival for rival in one.rivals if rival.key):
                    assert page.rival_numbers(row, one, rival) is not None, (row.kind, rival.label)


def test_results_are_of_the_options_that_the_page_shows():
    def told(command):
        words = shlex.split(command)
        return sorted(zip(words[::2], words[1::2], strict=True))

    for name, options in trainings.TRAININGS.items():
        for seed, found in measure.kept(name).items():
            command = found["command"].removeprefix("fastgan train ")
            assert told(command) == told(f"{options} --seed {seed} --device cpu"), name


def test_seconds_are_of_the_cpu_that_made_most_seeds(results):
    for seed, (cpu, seconds) in enumerate([("slow", 400.0), ("quick", 190.0), ("slow", 420.0)]):
        found = {"cpu": cpu, "cpu_seconds": seconds, "evaluation": {}}
        measure.keep("infogan", seed, found)
    assert page.spent("infogan") == 410


def test_a_kind_that_is_beaten_says_so_before_its_commands():
    for row in rows.ROWS:
        if page.won(row) == "no":
            head = (page.ROOT / "docs" / "kinds" / f"{row.kind}.md").read_text().split("```")[0]
            assert "](../gallery.md)" in head, row.kind
            assert "**" in head, row.kind


def test_results_name_what_they_were_made_with():
    for path in measure.RESULTS.glob("*.json"):
        for found in json.loads(path.read_text("utf-8")).values():
            assert {"command", "cpu_seconds", "cpu", "evaluation"} <= set(found), path.name
            if path.stem != "gaussian":
                assert {"versions", "options", "data"} <= set(found), path.name


@pytest.mark.slow
def test_a_training_is_made_measured_and_thrown_away(results, monkeypatch, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (200, 16, 16, 1), np.uint8)
    np.savez(tmp_path / "images.npz", image=images)
    options = f"--recipe dcgan --data {tmp_path / 'images.npz'} --base-width 2 --steps 1"
    monkeypatch.setattr(measure, "TRAININGS", {"tiny": options})
    monkeypatch.setattr(measure, "SAMPLES", 100)
    found = measure.one("tiny", 1, "dcgan")
    assert found["evaluation"]["FD-small"] > 0
    assert found["cpu_seconds"] > 0
    assert (found["options"]["base_width"], found["options"]["seed"]) == (2, 1)
    assert "out" not in found["options"]
    assert found["data"]["image"]["images"] == 200
    assert len(found["data"]["image"]["fingerprint"]) == 64
    assert "torch" in found["versions"]
    assert (measure.PICTURES / "dcgan.png").is_file()
