"""The video recipe learns from animations and goes on with them, as frames and as a film."""

import json
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan.cli.main import main
from fastgan.data.pixels import Unreadable, decode
from fastgan.metrics.recursion import onwards
from fastgan.monitor.pictures.films import GIVEN, MADE, TRUE

SIDE = 16


def run(*arguments, code=0):
    with pytest.raises(SystemExit) as done:
        main([str(a) for a in arguments])
    assert (done.value.code or 0) == code


def save(path, count, seed):
    """A dot that moves to the right, one pixel a frame."""
    row, colour = 2 + seed % 10, (250, 60 + 15 * seed, 20)
    frames = [Image.new("RGB", (SIDE, SIDE), (0, 0, 60)) for _ in range(count)]
    for t, frame in enumerate(frames):
        frame.paste(colour, (t % 12, row, t % 12 + 4, row + 4))
    path.parent.mkdir(exist_ok=True)
    frames[0].save(path, save_all=True, append_images=frames[1:])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(a folder with my_gifs and run, a run on them; what training said)."""
    place = tmp_path_factory.mktemp("video")
    for i in range(10):
        save(place / "my_gifs" / f"{i}.gif", 12 if i == 9 else 8, i)
    save(place / "my_gifs/short.gif", 4, 1)
    (place / "my_gifs/cut.gif").write_bytes((place / "my_gifs/3.gif").read_bytes()[:-60])
    Image.new("RGB", (SIDE, SIDE)).save(place / "my_gifs/cover.png")
    tiny = ["--size", SIDE, "--width", 4, "--batch-size", 4, "--steps", 2]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as said:
        patch.setenv("FASTGAN_CACHE", str(place / "cache"))
        patch.chdir(place)
        run("train", "--recipe", "video", "--data", "my_gifs", "--out", "run", *tiny)
    return place, said.getvalue()


@pytest.fixture
def made(trained, monkeypatch):
    monkeypatch.setenv("FASTGAN_CACHE", str(trained[0] / "cache"))
    monkeypatch.chdir(trained[0])
    return trained[0]


def test_it_learns_from_animations_and_says_from_how_many(made, trained, capsys):
    said = trained[1]
    assert "my_gifs: 36 images 16x16x3, source 16x16x12; left out 3: " in said
    for left in ("cut.gif (damaged", "cover.png (a still", "short.gif (4 frames, and a clip needs"):
        assert left in said
    assert "note: 9 clips of 8 frames, 72 in all\n" in said
    assert "kept from training, for sample and evaluate: 1 clip of 12 frames" in said
    run("evaluate", "run", "--json")  # its only held-out clip is shorter than 14 frames
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {"PSNR t+1", "PSNR t+5"} < set(rows["generator"])
    assert "PSNR t+10" not in rows["generator"]
    run("sample", "run", "--input", "my_gifs/0.gif", "--out", "next/")
    assert sorted(p.name for p in (made / "next").iterdir()) == [
        f"0.gif-{i:04}.png" for i in range(4, 9)
    ]


def frames_of(path):
    with Image.open(path) as film:
        found = []
        for number in range(film.n_frames):
            film.seek(number)
            found.append(np.asarray(film.convert("RGB")).astype(int))
    return found


def test_each_frame_is_made_from_those_before_it():
    class Counting:
        """Makes the last given frame plus the first."""

        def __init__(self):
            self.batch = {"source": torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1)}

        def sample(self):
            return self.batch["source"][:, -1:] + self.batch["source"][:, :1]

    step = Counting()
    made = [int(frame) for frame in onwards(step, step.sample(), 5)]
    assert made == [5, 7, 11, 16, 23]


def test_a_film_shows_given_frames_then_made_ones_beside_the_truth(made, capsys):
    run("sample", "run", "--out", "held.gif", "--size", SIDE)
    assert "1 clip, 12 frames made after 4 given: held.gif" in capsys.readouterr().out
    frames = frames_of("held.gif")
    assert len(frames) == 16
    for number, frame in enumerate(frames):
        colours = frame[18 + 4 + 1, [8, 22 + 8]]
        wanted = (GIVEN, GIVEN) if number < 4 else (MADE, TRUE)
        assert abs(colours - wanted).max() <= 12, number
    cell = slice(18 + 4 + 3, 18 + 4 + 3 + SIDE)
    left, right = slice(7, 7 + SIDE), slice(29, 29 + SIDE)
    assert (frames[0][cell, left] == frames[0][cell, right]).all()
    assert abs(frames[0][cell, left] - (0, 0, 60)).min() <= 12
    with Image.open("my_gifs/9.gif") as clip:
        clip.seek(11)
        last = np.asarray(clip.convert("RGB")).astype(int)
    assert abs(frames[11][cell, right] - last).mean() < 12
    assert abs(frames[11][cell, left] - last).mean() > 12
    assert frames[12][cell, right].min() > 240, "the clip has ended: blank"
    with pytest.raises(Unreadable, match="that fastgan made"):
        decode((made / "held.gif").read_bytes())


def test_a_clip_of_ones_own_goes_on_from_its_last_frames(made, capsys):
    for i, frame in enumerate(frames_of("my_gifs/4.gif")):
        (made / "own").mkdir(exist_ok=True)
        Image.fromarray(frame.astype(np.uint8)).save(f"own/{i:02}.png")
    run("sample", "run", "--input", "own", "--out", "own.gif", "--size", SIDE)
    run("sample", "run", "--input", "my_gifs/4.gif", "--out", "gif.gif", "--size", SIDE)
    frames = frames_of("own.gif")
    assert len(frames) == 16
    assert frames[0].shape[1] < 40, "there is no truth beside it"
    assert all((a == b).all() for a, b in zip(frames, frames_of("gif.gif"), strict=True))
    shown = frames[3][25 : 25 + SIDE, 7 : 7 + SIDE]
    assert abs(shown - frames_of("my_gifs/4.gif")[7]).mean() < 6, "the last given is its last"
    capsys.readouterr()
    run("sample", "run", "--input", "my_gifs", "--n", 5, "--out", "all.gif")
    said = capsys.readouterr().out
    assert "5 of 11 clips" in said
    assert "cover.png (a still" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--input", "my_gifs/cover.png"], "no clip of 4 frames, the longest has 1"),
        (["--input", "my_gifs/cut.gif"], "cut.gif (damaged"),
        (["--label", "3"], "a film takes --n, --input, --data, --seed and --size alone"),
        (["--n", 0], "from 1 to 256 cells"),
    ],
)
def test_mistakes_with_films_get_one_line(options, words, made, capsys):
    run("sample", "run", "--out", "not.gif", *options, code=2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line
    assert not (made / "not.gif").exists()
