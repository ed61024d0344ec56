"""Recipes whose generator is given an image: each trains, goes on, samples and measures itself; the
mistakes of newcomers get one line."""

import importlib
import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image

import fastgan
from fastgan import recipes
from fastgan.cli.main import main
from fastgan.data import rendered
from fastgan.metrics.fidelity import psnr
from fastgan.models.srresnet import enlarged
from fastgan.objectives import base
from fastgan.objectives.translation.degradations import Downscale
from fastgan.recipes.config import ImageSpec
from fastgan.recipes.translation.base import FromImage

FROM_IMAGE = [name for name in recipes.RECIPES if issubclass(recipes.find(name), FromImage)]


def run(*arguments):
    with pytest.raises(SystemExit) as done:
        main([str(a) for a in arguments])
    assert not done.value.code


@pytest.fixture
def few(monkeypatch):
    """Rendered sets of a few images."""
    for name, (draw, _) in rendered.RENDERED.items():
        monkeypatch.setitem(rendered.RENDERED, name, (draw, 12 if name == "sprites" else 40))


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


def own_data(name, pictures):
    return ["--data", pictures] if recipes.find(name).data == "fashion-mnist" else []


@pytest.mark.parametrize(
    ("name", "more"),
    [*((name, []) for name in FROM_IMAGE), ("super-resolution", ["--degradation", "camera"])],
    ids=lambda value: value if isinstance(value, str) else "-".join(value)[2:],
)
def test_each_kind_trains_goes_on_samples_and_measures(name, more, tmp_path, few, pictures, capsys):
    out = tmp_path / "run"
    tiny = ["--size", 16, "--width", 4, "--batch-size", 4, "--log-every", 1, *more]
    tiny += ["--augment", "color,translation,cutout"]
    run("train", "--recipe", name, "--steps", 2, "--out", out, *tiny, *own_data(name, pictures))
    run("train", "--resume", out, "--steps", 3)
    straight = tmp_path / "straight"
    run(
        *("train", "--recipe", name, "--steps", 3, "--out", straight),
        *(*tiny, *own_data(name, pictures)),
    )
    rows = [
        [
            {k: v for k, v in json.loads(line).items() if k not in ("time", "images_per_s")}
            for line in (folder / "metrics.jsonl").read_text().splitlines()
        ]
        for folder in (out, straight)
    ]
    assert rows[0] == rows[1]
    run("sample", out, "--n", 4, "--out", tmp_path / "grid.png")
    assert Image.open(tmp_path / "grid.png").width > 32
    capsys.readouterr()
    run("evaluate", out, "--n", 4, "--json")
    assert len(json.loads(capsys.readouterr().out)["rows"]) >= 2


@pytest.mark.parametrize("name", ["aging", "segmentation", "video"])
def test_each_kind_shows_what_it_would_train(name, few, pictures, capsys):
    tiny = ["--size", 16, "--width", 4, "--batch-size", 4, *own_data(name, pictures)]
    run("train", "--recipe", name, "--dry-run", *tiny)
    assert "network G: " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_IMAGE)
def test_each_kind_runs_without_options(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("train", "--recipe", name, "--steps", 1)
    run("sample", f"runs/{name}", "--n", 2)


def refused(capsys, *arguments):
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as done:
        main([str(a) for a in arguments])
    assert done.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


TINY = ["--width", 4, "--batch-size", 4, "--steps", 1, "--size", 16]


def test_pix2pix_knows_the_pairs_that_cyclegan_is_not_told():
    pairs = recipes.find("pix2pix")(data="two-colours", size=16).streams()["image"]
    blue = pairs.array("source")[..., 2:].astype(int)  # printed on black
    assert not pairs.array("source")[..., :2].max(where=blue == 0, initial=0)
    red = pairs.array("image")[..., :1].astype(int)
    assert np.corrcoef(blue.ravel(), red.ravel())[0, 1] > 0.999
    back = recipes.find("pix2pix")(data="two-colours", size=16, reverse=True).streams()["image"]
    assert np.array_equal(back.array("source"), pairs.array("image"))
    for wish, said in (({"pairs": "edges"}, "leave --pairs out"), ({"channels": 1}, "3 channels")):
        with pytest.raises(fastgan.FastganError, match=said):
            recipes.find("pix2pix")(data="two-colours", size=16, **wish).streams()
    apart = recipes.find("cyclegan")(size=16).streams()
    assert np.array_equal(pairs.array("source"), apart["source"].array("image"))


def test_pix2pix_reads_pairs_in_two_folders_and_side_by_side(tmp_path):
    for i in range(20):
        a, b = noise(i, 16, 16), noise(100 + i, 16, 16, 3)
        save(tmp_path / "pairs/a" / f"{i:02d}.png", a)
        save(tmp_path / "pairs/b" / f"{i:02d}.png", b)
        wide = np.concatenate([np.repeat(a[..., None], 3, 2), b], 1)
        save(tmp_path / "wide" / f"{i:02d}.png", wide)
    pix2pix = recipes.find("pix2pix")
    streams = {
        name: pix2pix(data=str(tmp_path / name), size=16).streams()["image"]
        for name in ("pairs", "wide")
    }
    assert streams["pairs"].fields["source"].shape == (16, 16, 1)
    assert streams["wide"].fields["source"].shape == (16, 16, 3)
    assert len(streams["pairs"]) == len(streams["wide"]) == 18
    for dataset in streams.values():
        assert (dataset.array("image")[3] == noise(103, 16, 16, 3)).all()
        assert (dataset.array("source")[3][..., :1] == noise(3, 16, 16, 1).reshape(16, 16, 1)).all()
    backwards = pix2pix(data=str(tmp_path / "pairs"), size=16, reverse=True).streams()["image"]
    assert backwards.fields["image"].shape == (16, 16, 1)
    run(
        "train", "--recipe", "pix2pix", "--data", tmp_path / "pairs", "--out", tmp_path / "r", *TINY
    )
    run("sample", tmp_path / "r", "--n", 1, "--out", tmp_path / "kept.png")  # grey in, colour out
    run("train", "--resume", tmp_path / "r", "--steps", 2)
    given = tmp_path / "pairs/a"
    run("sample", tmp_path / "r", "--input", given, "--size", 40, "--out", f"{tmp_path}/made/")
    assert Image.open(tmp_path / "made" / "00.png").size == (40, 40)
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == [
        f"{i:02d}.png" for i in range(20)
    ]


def test_known_pixels_stay_bit_for_bit(tmp_path, pictures):
    out, mask = tmp_path / "run", np.zeros((16, 16), np.uint8)
    run("train", "--recipe", "inpainting", "--data", pictures, "--out", out, *TINY)
    mask[3:9, 4:12] = 255
    save(tmp_path / "mask.png", mask)
    command = ["sample", out, "--input", pictures / "03.png", "--mask", tmp_path / "mask.png"]
    run(*command, "--out", f"{tmp_path}/made/")
    made, given = (
        np.asarray(Image.open(p)) for p in (tmp_path / "made/03.png", pictures / "03.png")
    )
    assert (made[mask == 0] == given[mask == 0]).all()
    assert (made[mask > 0] != given[mask > 0]).any()
    run(*command, "--size", 40, "--out", tmp_path / "large.png")
    large = Image.open(tmp_path / "large.png")
    panels, gap = divmod(large.width - 4, 40)
    assert (panels >= 2, gap, large.height) == (True, 0, 44), "each panel is scaled"
    expected = (
        Image.open(tmp_path / "made" / "03.png")
        .convert("RGB")
        .resize((40, 40), Image.Resampling.LANCZOS)
    )
    cells = [np.asarray(large)[2:42, 2 + 40 * i : 42 + 40 * i] for i in range(panels)]
    assert any((cell == np.asarray(expected)).all() for cell in cells), "no seam in what was made"


def test_bicubic_reduction_stays_what_it_was_and_evaluate_compares_as_the_run_was_trained(
    tmp_path, pictures
):
    kind, spec = recipes.find("super-resolution"), ImageSpec(size=16, channels=3)
    assert kind().build(spec).objective.degradation == Downscale(4)
    pictures_of = kind(data=str(pictures), size=16).streams(held_out=True)["image"].array("image")
    images = torch.from_numpy(pictures_of).permute(0, 3, 1, 2).float() / 127.5 - 1
    found = []
    for name in ("bicubic", "camera"):
        out = tmp_path / name
        command = ("train", "--recipe", "super-resolution", "--data", pictures, "--out", out)
        run(*command, "--degradation", name, *TINY)
        degradation = kind(degradation=name).build(spec).objective.degradation
        noise = base.draw(degradation.noise, 5, torch.tensor(0), len(images))
        large = enlarged(degradation({"image": images}, noise), 4).clamp(-1, 1)
        run("evaluate", out, "--seed", 5)
        rows = json.loads((out / "evaluation.json").read_text())["rows"]
        assert rows["bicubic"]["PSNR dB"] == pytest.approx(psnr(large, images).mean().item())
        found.append(rows["bicubic"]["PSNR dB"])
    assert found[0] > found[1]


def test_a_mask_without_a_hole_or_without_inpainting(tmp_path, pictures, capsys):
    out = tmp_path / "run"
    run("train", "--recipe", "inpainting", "--data", pictures, "--out", out, *TINY)
    save(tmp_path / "mask.png", np.zeros((16, 16), np.uint8))
    capsys.readouterr()
    command = ["sample", out, "--input", pictures]
    assert "mask without a hole" in refused(capsys, *command, "--mask", tmp_path / "mask.png")
    assert "needs --mask" in refused(capsys, *command)
    run("train", "--recipe", "pix2pix", "--data", pictures, "--out", tmp_path / "other", *TINY)
    capsys.readouterr()
    line = refused(capsys, "sample", tmp_path / "other", "--input", pictures, "--mask", pictures)
    assert "--mask is for inpainting" in line


def test_folders_that_are_no_pairs_name_cyclegan(tmp_path, capsys):
    for i in range(8):
        save(tmp_path / "two/a" / f"horse{i}.png", noise(i, 16, 16, 3))
        save(tmp_path / "two/b" / f"zebra{i}.png", noise(i, 16, 16, 3))
    command = ["train", "--data", tmp_path / "two", "--out", tmp_path / "run", *TINY]
    line = refused(capsys, *command, "--recipe", "pix2pix")
    assert "horse0 is in only one of a/ and b/" in line
    assert "--recipe cyclegan" in line
    assert not (tmp_path / "run").exists()
    run(*command, "--recipe", "cyclegan")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("pix2pix", ["--size", 30], "use --size 32 or another multiple of 4"),
        ("super-resolution", ["--size", 30], "use --size 28"),
        ("super-resolution", ["--degradation", "camera", "--channels", 4], "use --channels 3"),
        ("cyclegan", ["--size", 30], "use --size 28"),
        ("inpainting", ["--size", 30, "--fourier", 1], "unlike 30 pixels: use --size 28"),
        ("aging", ["--size", 12], "use --size 16 or more"),
        ("pix2pix", ["--pairs", "folders"], "no sub-folders a and b"),
        ("cyclegan", ["--data", "PICTURES"], "no sub-folders a and b"),
        ("segmentation", ["--data", "PICTURES"], "no sub-folders a and b"),
        ("aging", ["--data", "PICTURES"], "no ages"),
        ("video", ["--data", "PICTURES", "--held-out", 0.95], "no clip of 5 frames"),
        ("pix2pix", ["--held-out", 1], "--held-out must be below 1"),
    ],
)
def test_mistakes_get_one_line(name, options, words, tmp_path, few, pictures, capsys):
    options = [pictures if word == "PICTURES" else word for word in options]
    line = refused(capsys, "train", "--recipe", name, "--out", tmp_path / "run", *options)
    assert words in line
    assert not (tmp_path / "run").exists()


def test_masks_that_are_black_and_ages_from_names(tmp_path, capsys):
    for i in range(8):
        save(tmp_path / "seg/a" / f"{i}.png", noise(i, 16, 16, 3))
        save(tmp_path / "seg/b" / f"{i}.png", np.zeros((16, 16), np.uint8))
        save(tmp_path / "faces" / f"{10 * i + 3}_0_0.jpg.png", noise(i, 16, 16, 3))
    line = refused(
        *(capsys, "train", "--recipe", "segmentation", "--data", tmp_path / "seg"),
        *("--out", tmp_path / "run", *TINY),
    )
    assert "are black" in line
    opened = recipes.find("aging")(data=str(tmp_path / "faces"), held_out=0.0).streams()["image"]
    ages = {n: int(k) for n, k in zip(opened.names, opened.array("label"))}
    assert ages["3_0_0.jpg.png"] == 0
    assert ages["13_0_0.jpg.png"] == 1
    assert ages["73_0_0.jpg.png"] == 4


def test_own_faces_with_persons_are_not_taken_for_drawn_ones(tmp_path, monkeypatch):
    """Those are compared with drawings of each person; others as sets."""
    import torch

    from fastgan.metrics import fidelity

    evaluate = importlib.import_module("fastgan.metrics.evaluate")
    arrays = {"labels": np.arange(20) % 2, "identity": np.arange(20)}
    np.savez(tmp_path / "faces.npz", images=noise(0, 20, 16, 16, 3), **arrays)
    made = torch.rand(20, 3, 16, 16)
    monkeypatch.setattr(fidelity, "made_from", lambda run, given, **_: made)
    monkeypatch.setattr(evaluate, "evaluate", lambda images, reals, n, **_: images)
    config = recipes.find("aging")(data=str(tmp_path / "faces.npz"), size=16)
    assert config.measure("run", 20, 0, config.data, False) is made


def test_runs_from_images_say_what_python_needs(tmp_path, pictures):
    out = tmp_path / "run"
    run("train", "--recipe", "pix2pix", "--data", pictures, "--out", out, *TINY)
    with pytest.raises(fastgan.FastganError, match="makes images from images: give data="):
        fastgan.sample(out, 2)


def test_windows_stay_within_clips_and_held_out_clips_are_whole():
    from fastgan.data import Dataset
    from fastgan.data.sets.clips import split_clips, windows

    pixels = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    clip = np.repeat([0, 1, 2], [8, 5, 7])
    frames = Dataset("film", {"image": pixels, "label": clip}, {"image": "image", "label": "label"})
    found = windows(frames, 4)
    runs = np.concatenate([found.array("source"), found.array("image")], 3)[:, 0, 0]
    starts = [0, 1, 2, 3, 8, 13, 14, 15]
    assert runs.tolist() == [list(range(s, s + 5)) for s in starts]
    train, held = split_clips(frames, 0.5)
    assert set(held.array("label")) == {1}
    assert len(train) + len(held) == 20


def test_rendered_faces_keep_the_person_and_change_the_age():
    every = [rendered.faces(4, 16, age=k)["image"].astype(int) for k in range(5)]
    some = rendered.faces(4, 16, age=2, index=np.array([3, 1]))
    assert (some["image"] == every[2][[3, 1]]).all()
    assert some["identity"].tolist() == [3, 1]
    assert all((a != b).any() for a, b in itertools.pairwise(every))
    assert (rendered.faces(4, 16)["image"] == rendered.faces(4, 16)["image"]).all()


def test_forms_are_their_factors():
    made = rendered.forms(300, 16)
    images = made["image"][..., 0].astype(float)
    mass = images.sum((1, 2))
    rows, columns = np.arange(16)[None, :, None], np.arange(16)[None, None]
    for name, place in (("across", columns), ("down", rows)):
        centre = (images * place).sum((1, 2)) / mass
        assert np.corrcoef(centre, made[name])[0, 1] > 0.95, name
    assert np.corrcoef(images.max((1, 2)), made["shade"])[0, 1] > 0.99
    squares = made["label"] == 1
    area = (images > 0).sum((1, 2))[squares]
    assert np.corrcoef(area, made["scale"][squares])[0, 1] > 0.9
    assert set(made["label"]) == {0, 1, 2, 3}
    assert abs(np.corrcoef([made[name] for name in rendered.FACTORS]) - np.eye(4)).max() < 0.2
    dataset = fastgan.data.open("forms", size=8)
    assert dataset.classes == ["circle", "square", "triangle", "cross"]


@pytest.mark.parametrize("name", ["super-resolution", "pix2pix"])
def test_squares_are_trained_on_and_whole_images_sampled(name, tmp_path, pictures):
    out = tmp_path / "run"
    options = ["--size", 32, "--crop", 16, "--width", 4, "--batch-size", 4, "--data", pictures]
    run("train", "--recipe", name, "--steps", 1, "--out", out, *options)
    run("sample", out, "--n", 2, "--out", f"{tmp_path}/made/")
    assert {Image.open(path).size for path in (tmp_path / "made").iterdir()} == {(32, 32)}


@pytest.mark.parametrize(
    ("name", "size", "crop", "said"),
    [
        ("super-resolution", 16, 32, "--crop 32 is no part of images of 16 pixels: from 16 to 16"),
        ("super-resolution", 32, 18, "18 pixels do not divide by --factor 4: use --crop 16"),
        ("pix2pix", 40, 32, "--crop 32 makes networks for sides that divide by 32"),
    ],
)
def test_a_square_that_does_not_fit_is_one_line(name, size, crop, said, pictures, capsys):
    wrong = ["--size", size, "--crop", crop, "--data", pictures, "--dry-run"]
    assert said in refused(capsys, "train", "--recipe", name, *wrong)
