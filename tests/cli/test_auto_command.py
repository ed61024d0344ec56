"""`fastgan train --data FOLDER`: the choice as a user meets it."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
from run_support import commands, images

WIDTHS = ["--width", "1", "--batch-size", "4", "--latent", "8", "--device", "cpu"]


@pytest.fixture
def fastgan(tmp_path, monkeypatch, capfd):
    """fastgan(args...) -> (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", images(30, size=32, channels=3))
    return commands(capfd)


def test_the_command_by_hand_says_what_auto_chose(fastgan):
    _, auto, _ = fastgan("train", "--data", "images.npy", "--dry-run", "--for", "30m", "--flip")
    lines = auto.splitlines()
    assert lines[0].startswith("auto: 30 colour images of about 32 pixels, no labels")
    by_hand = shlex.split(re.sub("^  by hand: fastgan ", "", lines[5]))
    assert by_hand[:5] == ["train", "--recipe", "fastgan", "--data", "images.npy"]
    assert by_hand[-2:] == ["--for", "1800s"]
    _, hand, _ = fastgan(*by_hand, "--dry-run")
    assert hand == "\n".join(lines[6:]) + "\n"


def test_a_chosen_run_is_one_of_its_recipe_and_goes_on_by_itself(fastgan):
    steps = ["--log-every", "1", "--sample-every", "9", "--no-progress"]
    code, out, err = fastgan(
        "train", "--data", "images.npy", *WIDTHS, *steps, "--for", "0.1s", "--width", "1"
    )
    assert (code, err) == (0, "")
    assert "fastgan: the one that has the options given" in out
    start = out[out.index("images.npy -> runs/fastgan\n") :]
    rows = ["run", "pictures", "time", "healthy", "Ctrl-C"]
    assert re.findall(rf"^  ({'|'.join(rows)}) ", start, re.MULTILINE) == rows
    assert "steps in the time; fastgan train --resume runs/fastgan --for 0.1s goes on" in out
    config = tomllib.loads(Path("runs/fastgan/config.toml").read_text())
    assert (config["recipe"], config["augment"]) == ("fastgan", "color,translation,cutout")
    run = json.loads(Path("runs/fastgan/run.json").read_text())
    assert run["identity"]["stages"][0]["objective"]["args"]["augment"] == config["augment"]
    done = len(Path("runs/fastgan/metrics.jsonl").read_text().splitlines())
    code, out, _ = fastgan("train", "--resume", "runs/fastgan", "--for", "0.1s")
    assert code == 0
    assert f"going on at step {done}: fastgan" in out


def test_options_of_a_candidate_are_taken_and_time_is_read(fastgan):
    _, out, _ = fastgan("train", "--data", "images.npy", "--base-width", "4", "--dry-run")
    assert 'recipe = "dcgan"' in out
    for time, said in (("90s", "1.5 minutes"), ("1h30m", "90 minutes"), ("3h", "3 hours")):
        _, out, _ = fastgan("train", "--data", "images.npy", "--dry-run", "--for", time)
        assert said in out.splitlines()[0]
    _, out, _ = fastgan("train", "--recipe", "auto", "--help")
    assert "--augment" in out
    assert "--base-width" not in out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--for", "soon"], "'soon' is no time: write 90s, 30m, 2h or 1h30m"),
        (["--for", "0s"], "trains nothing"),
        (["--width", "4", "--base-width", "4"], "no recipe that auto chooses from has --width and"),
        (["--size", "9", "--base-width", "4"], "can't make 9x9 images"),
        (["--out", "images.npy"], "images.npy"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--data", ""], "--data is empty"),
        (["--data", "nowhere"], "no data at nowhere"),
    ],
)
def test_what_can_not_be_is_said_in_one_line(fastgan, args, said):
    code, _, err = fastgan("train", "--data", "images.npy", *args)
    assert code == 2
    assert said in err
    assert err.strip().splitlines()[-1].count("Traceback") == 0
