"""Walks, directions, inversion, time lapse: the mathematics, then the commands on a tiny run."""

import math
import os
import stat

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from run_support import discriminator, generator, images, in_a_hurry, tiny
from torch import nn

import fastgan
from fastgan.cli import main as cli
from fastgan.data import Dataset
from fastgan.latent.directions import differentiable, directions
from fastgan.latent.inversion import invert
from fastgan.latent.walk import closed_walk, slerp
from fastgan.models.dcgan import ConditionalDiscriminator, ConditionalGenerator
from fastgan.monitor.pictures import animation
from fastgan.objectives import Adversarial, Noise
from fastgan.trainer.reuse.restoring import open_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A plain run, and one of two classes."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        in_a_hurry(patch)
        nets = {"G": generator(), "D": discriminator()}
        with tiny(folder / "plain", nets=nets, sample_every=2) as trainer:
            trainer.fit(5)
        kinds = {"image": "image", "label": "label"}
        arrays = {"image": images(), "label": np.arange(21) % 2}
        data = Dataset("animals", arrays, kinds, classes=["cat", "dog"])
        nets = {"G": ConditionalGenerator(8, 1, 4, 2, 2), "D": ConditionalDiscriminator(8, 1, 2, 2)}
        objective = Adversarial(latent_shape=(4, 1, 1), conditional=True)
        with tiny(folder / "classes", nets=nets, data=data, objective=objective) as trainer:
            trainer.fit(1)
    return folder


def test_slerp_stays_on_the_circle():
    a, b = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    half = 3 * math.sqrt(0.5)
    torch.testing.assert_close(slerp(a, b, 0.5), torch.tensor([[half, half]]))
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    assert torch.isfinite(slerp(a, -a, 0.5)).all()
    assert torch.isfinite(slerp(a, 0 * a, 0.5)).all()


def test_a_walk_is_closed_and_visits_its_keys():
    noise = {
        "z": Noise((6,)),
        "u": Noise((2,), "uniform"),
        "c": Noise((), "categorical", classes=3),
    }
    keys = {"z": torch.randn(3, 6), "u": torch.rand(3, 2), "c": torch.tensor([0, 1, 2])}
    path = closed_walk(noise, keys, 5)
    for name, values in keys.items():
        torch.testing.assert_close(path[name][::5], values)
    leap = (path["z"] - path["z"].roll(1, 0)).norm(dim=1)
    assert leap.max() < 0.6 * (keys["z"] - keys["z"].roll(1, 0)).norm(dim=1).max()
    for bad in ((1, 5), (3, 0), (100, 100)):
        few = {"z": torch.randn(bad[0], 6)}
        with pytest.raises(fastgan.FastganError):
            closed_walk(noise, few, bad[1])


@pytest.mark.parametrize("name", ["plain", "classes"])
def test_directions_are_those_of_the_first_layer(runs, name):
    """Against the formula written out; a label beside the latent leaves them as they are."""
    run = open_run(runs / name)
    net = run.nets["G"]
    layer = net[0] if name == "plain" else net.body[0]
    a = layer.weight.detach()[:4].flatten(1)  # (latent, outputs * h * w)
    a = a / a.norm(dim=0, keepdim=True)
    expected, vectors = torch.linalg.eigh(a @ a.T)
    found = directions(run, 9)
    assert found.vectors.shape == (4, 4, 1, 1)
    torch.testing.assert_close(found.strengths, expected.flip(0) / expected.sum())
    overlap = (found.vectors.flatten(1) @ vectors.flip(1)).abs()
    torch.testing.assert_close(overlap, torch.eye(4), atol=1e-3, rtol=0)


def test_directions_that_are_not_there(runs):
    run = open_run(runs / "plain")
    run.objective.noise = {"c": Noise((), "categorical", classes=3)}
    with pytest.raises(fastgan.FastganError, match="no latent"):
        directions(run)
    run = open_run(runs / "plain")
    run.nets["G"] = nn.Tanh()
    with pytest.raises(fastgan.FastganError, match="as one vector"):
        directions(run)


def test_inversion_finds_an_image_of_the_run(runs):
    run = open_run(runs / "plain")
    photo = ((differentiable(run, run.noise(1, 77))[0] + 1) / 2).clamp(0, 1)
    steps = []
    start = invert(run, photo, steps=1)
    found = invert(run, photo, steps=60, tell=steps.append)
    assert found.features
    assert found.label is None
    assert found.l1 < min(0.02, start.l1)
    assert steps == [*range(1, 61)]


def test_inversion_finds_the_class_too(runs):
    run = open_run(runs / "classes")
    photo = torch.rand(1, 8, 8)
    assert invert(run, photo, steps=1).label in (0, 1)
    assert invert(run, photo, steps=1, label=1).label == 1
    with pytest.raises(fastgan.FastganError, match="the photo is"):
        invert(run, torch.rand(1, 4, 4), steps=1)


def test_inversion_without_d_takes_the_pyramid(runs):
    run = open_run(runs / "plain")
    del run.nets["D"]
    assert not invert(run, torch.rand(1, 8, 8), steps=1).features


@pytest.fixture
def command(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 30), (200, 10, 10)).save("photo.jpg")
    (tmp_path / "text.png").write_text("no picture")

    def run(*argv):
        with pytest.raises(SystemExit) as done:
            cli.main([str(word) for word in argv])
        said = capsys.readouterr()
        return done.value.code or 0, said.out, said.err

    return run


def test_the_commands_leave_their_pictures(runs, command, tmp_path):
    plain, classes = runs / "plain", runs / "classes"
    done = [
        command("interpolate", plain, "--keys", 2, "--frames", 3, "--out", "a.gif"),
        command("interpolate", classes, "--seeds", "1,5", "--frames", 2, "--out", "b.webp"),
        command("interpolate", classes, "--keys", 2, "--frames", 2, "--label", "dog"),
        command("timelapse", plain, "--out", "c.gif"),
        command("directions", classes, "--which", "1,3", "--label", 1, "--out", "d.png"),
        command("invert", plain, "photo.jpg", "--steps", 2, "--save-latent", "z.safetensors"),
    ]
    assert [code for code, _, _ in done] == [0] * 6, done
    frames = {}
    for name in ("a.gif", "b.webp", "c.gif", "walk.gif"):
        with Image.open(tmp_path / name) as picture:
            frames[name] = picture.n_frames
    assert max(frames.values()) <= 6
    assert frames["c.gif"] == 4, "steps 0, 2, 4, 5"
    assert (tmp_path / "d.png").is_file()
    assert (tmp_path / "inverted.png").is_file()
    from safetensors.torch import load_file

    assert load_file(tmp_path / "z.safetensors")["z"].shape == (1, 4, 1, 1)


BAD = {
    "no run": (["interpolate", "nope"], "is not a run"),
    "one key": (["interpolate", "RUN", "--keys", "1"], "two keys"),
    "no keys": (["interpolate", "RUN", "--keys", "-3"], "at least one"),
    "another format": (["interpolate", "RUN", "--out", "a.avi"], ".gif, .webp or .mp4"),
    "no ffmpeg": (["interpolate", "RUN", "--out", "a.mp4"], "no ffmpeg"),
    "into the run": (["interpolate", "RUN", "--out", "RUN/curves.png"], "belongs to the run"),
    "no time": (["timelapse", "RUN", "--fps", "0"], "at least 1"),
    "no such direction": (
        ["directions", "RUN", "--which", "9"],
        "no direction 9: there are 1 to 4",
    ),
    "direction 0": (["directions", "RUN", "--which", "0"], "no direction 0"),
    "reach": (["directions", "RUN", "--reach", "nan"], "between 0 and 100"),
    "label of none": (["directions", "RUN", "--label", "cat"], "without labels"),
    "no photo": (["invert", "RUN", "gone.png"], "can't read gone.png"),
    "text": (["invert", "RUN", "text.png"], "no PNG, JPEG, WebP or BMP"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, runs, command, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    argv, said = BAD[case]
    before = sorted(os.listdir(tmp_path))
    code, _, err = command(*(word.replace("RUN", str(runs / "plain")) for word in argv))
    assert (code, err.count("\n"), said in err) == (2, 1, True), err
    assert sorted(os.listdir(tmp_path)) == before


def test_mp4_goes_through_ffmpeg(runs, command, monkeypatch, tmp_path):
    """A stand-in that keeps what it was given: raw frames of even sides."""
    fake = tmp_path / "bin" / "ffmpeg"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nfor last; do :; done\necho "$@" > args\ncat > "$last"\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    argv = ["interpolate", runs / "plain", "--keys", 2, "--frames", 2, "--out", "w.mp4"]
    assert command(*argv)[0] == 0
    words = (tmp_path / "args").read_text().split()
    wide, high = map(int, words[words.index("-s") + 1].split("x"))
    assert (wide % 2, high % 2) == (0, 0)
    assert (tmp_path / "w.mp4").stat().st_size == 4 * wide * high * 3
    fake.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    code, _, err = command(*argv)
    assert (code, "ffmpeg failed: broken" in err) == (2, True)


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_frames_last_as_long_as_they_should(name, tmp_path):
    frames = [Image.new("RGB", (6, 6), (80 * i, 0, 0)) for i in range(3)]
    animation.save_moving(frames, tmp_path / name, fps=10, hold=1.5)
    times = []
    with Image.open(tmp_path / name) as moving:
        assert (moving.n_frames, moving.info["loop"]) == (3, 0)
        for frame in ImageSequence.Iterator(moving):
            frame.load()
            times.append(moving.info["duration"])
    assert times == [100, 100, 1600]


def test_a_time_lapse_needs_two_grids(runs, command, tmp_path):
    import shutil

    copy = shutil.copytree(runs / "plain", tmp_path / "copy")
    for name in ("00000002.png", "00000004.png"):
        (copy / "samples" / name).unlink()
    (copy / "samples" / "00000005.png").write_text("no picture")
    code, _, err = command("timelapse", copy)
    assert (code, "has 1 sample grid" in err) == (2, True)
