"""What `--recipe auto` sees and chooses."""

import zipfile

import numpy as np
import pytest
from PIL import Image
from run_support import images

import fastgan
from fastgan import recipes
from fastgan.data.glance import Glance, glance
from fastgan.recipes.auto import choose
from fastgan.recipes.config import ImageSpec

FEW = Glance(images=500, side=96, channels=3, classes=0)


def folder(path, count, size=(40, 30), classes=0, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(count):
        where = path / str(i % classes) if classes else path
        where.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(where / f"{i:03d}.png")
    return path


def test_a_glance_at_a_folder_reads_a_few_files_and_decodes_no_cache(tmp_path, monkeypatch):
    data = folder(tmp_path / "data", 70, classes=2)
    folder(data / "1", 3, size=(300, 500), seed=1)
    (data / "notes.txt").write_text("no image")
    (data / "cut.png").write_bytes(b"\x89PNG")
    monkeypatch.setattr("fastgan.data.glance.open_dataset", None)
    assert glance(data) == Glance(images=73, side=30, channels=3, classes=0)
    (data / "cut.png").unlink()
    assert glance(str(data)) == Glance(images=72, side=30, channels=3, classes=2)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in sorted(data.rglob("*.png")):
            archive.write(path, path.relative_to(data))
    assert glance(tmp_path / "data.zip") == glance(data)


def test_a_glance_at_what_is_no_folder(tmp_path):
    np.save(tmp_path / "a.npy", images(30, size=9))
    assert glance(tmp_path / "a.npy") == Glance(images=30, side=9, channels=1, classes=0)
    assert glance("fashion-mnist") == Glance(images=10_000, side=28, channels=1, classes=10)
    (tmp_path / "empty").mkdir()
    with pytest.raises(fastgan.FastganError, match="no files in"):
        glance(tmp_path / "empty")


SEEN = {
    "few": (FEW, "fastgan", {"size": 64}),
    "few, of odd sides": (Glance(500, 47, 3, 0), "fastgan", {"size": 32}),
    "tiny": (Glance(500, 12, 3, 0), "fastgan", {"size": 32}),
    "many": (Glance(9000, 256, 3, 0), "dcgan", {"size": 64}),
    "many of 28 pixels": (Glance(9000, 28, 1, 0), "dcgan", {"size": 28}),
    "many of each class": (Glance(9000, 64, 3, 3), "cgan", {"size": 64}),
    "few of each class": (Glance(900, 64, 3, 9), "fastgan", {"size": 64}),
}


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("seconds", [None, 300.0, 7200.0])
@pytest.mark.parametrize("name", SEEN)
def test_a_choice_builds_and_says_so_in_five_lines(name, gpu, seconds):
    seen, recipe, values = SEEN[name]
    choice = choose(seen, {}, gpu=gpu, seconds=seconds)
    if not gpu and seconds == 300.0 and recipe == "fastgan":
        recipe = "dcgan"
    assert choice.recipe == recipe
    if not gpu and seconds != 300.0:
        assert values.items() <= choice.values.items()
    config = recipes.find(recipe)(**choice.values)
    narrow = {"base_width": 2} if recipe != "fastgan" else {"width": 1}
    type(config)(**{**choice.values, **narrow}).build(
        ImageSpec(choice.values["size"], seen.channels, seen.classes)
    )
    assert len(choice.why) == 5
    assert all(len(line) <= 100 for line in choice.why)
    short = not gpu and seconds == 300.0
    assert (config.augment == "none") == (seen.images >= 5000 or short)
    assert ("--for" in choice.command()) == (seconds is not None)


def test_less_time_and_no_gpu_mean_less_work():
    little, much = (choose(FEW, {}, gpu=False, seconds=s).values for s in (120.0, 7200.0))
    large = choose(FEW, {}, gpu=True).values
    assert (little["size"], much["size"], large["size"]) == (32, 64, 64)
    assert choose(Glance(500, 300, 3, 0), {}, gpu=True).values["size"] == 128
    assert little["ema_decay"] < much.get("ema_decay", 0.999)
    ten = choose(FEW, {}, gpu=False, seconds=600.0).values  # thousands of steps of narrow networks
    assert ten.get("ema_decay", 0.999) > little["ema_decay"]
    assert (ten["size"], ten["base_width"], little["base_width"]) == (64, 16, 32)
    assert choose(FEW, {"size": 32}, gpu=False, seconds=600.0).values["base_width"] == 32


def test_what_is_given_stays_and_decides():
    choice = choose(FEW, {"size": 32, "augment": "none", "flip": True}, gpu=False)
    assert {"size": 32, "augment": "none", "flip": True}.items() <= choice.values.items()
    assert "--augment none" in choice.command()
    assert choose(FEW, {"base_width": 16}, gpu=False).recipe == "dcgan"
    assert choose(FEW, {"reconstruction": 2.0}, gpu=False).recipe == "fastgan"
    assert choose(FEW, {"model": "my:nets"}, gpu=False).recipe == "dcgan"
    assert choose(FEW, {"size": 48}, gpu=False).recipe == "dcgan"
    with pytest.raises(fastgan.FastganError, match="has --width and --base-width"):
        choose(FEW, {"width": 8, "base_width": 8, "data": "x"}, gpu=False)
