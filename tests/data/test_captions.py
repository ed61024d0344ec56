"""Captions: where they are read from, what is said where they are missing, and shapes that are what
they are called."""

import numpy as np
import pytest
from PIL import Image

from fastgan.data.rendered import shapes
from fastgan.data.sets.captions import open_captioned, split
from fastgan.errors import FastganError


def pictures(folder, *names):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)).save(folder / name)


def opened(folder):
    return open_captioned(str(folder), size=8, channels=3)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))


def test_captions_beside_images_and_in_a_list(tmp_path):
    folder = tmp_path / "pets"
    folder.mkdir()
    pictures(folder, "a.png", "b.png", "in/c.png", "d.png")
    (folder / "b.txt").write_text("A black\n cat.\n")
    (folder / "captions.txt").write_text(
        "a.png\ta red, RED dog\nin/c.png#0|a cat\nin/c.png#1|no\nd.png, a cat, asleep\n"
    )
    data = opened(folder)
    assert sorted(data.captions) == ["A black cat.", "a cat", "a cat, asleep", "a red, RED dog"]
    assert data.words[:2] == ("a", "cat")
    row = data.array("tokens")[data.captions.index("a red, RED dog")]
    assert [data.words[t - 1] for t in row if t] == ["a", "red", "red", "dog"]
    assert split("It's a 2nd_test") == ["it", "s", "a", "2nd", "test"]


def test_missing_captions_are_one_line(tmp_path):
    folder = tmp_path / "pets"
    folder.mkdir()
    pictures(folder, "a.png", "b.png")
    with pytest.raises(FastganError, match=r"has no captions: put a .txt of the same name"):
        opened(folder)
    (folder / "a.txt").write_text("a dog")
    with pytest.raises(
        FastganError, match=r"1 of 2 images have no caption in a .txt .* b.png: add"
    ):
        opened(folder)
    with pytest.raises(FastganError, match="a single image: give the folder"):
        opened(folder / "a.png")
    for captionless in ("fashion-mnist", "galaxies"):
        with pytest.raises(FastganError, match="holds no files with captions"):
            open_captioned(captionless, size=8, channels=None)
    with pytest.raises(FastganError, match="leave --caption-column out"):
        open_captioned("shapes", size=8, channels=3, column="text")


def test_shapes_are_what_they_are_called():
    images, captions = shapes.draw(60, 32)
    again, _ = shapes.draw(60, 32)
    assert np.array_equal(images, again)
    areas = {}
    for image, caption in zip(images, captions):
        _, size, colour, form = caption.split()
        tint = np.array(shapes.COLOURS[colour]) / max(shapes.COLOURS[colour])
        inside = np.abs(image / image.max() - tint).max(2) < 0.1
        areas.setdefault((form, size), []).append(inside.sum())
    for form in shapes.FORMS:
        assert 0 < max(areas[form, "small"]) < min(areas[form, "large"])
    assert len(set(captions)) > 30
