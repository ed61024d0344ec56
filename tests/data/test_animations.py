"""Animations give their first frame, or all of them as a clip; clips that can't be used are named."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fastgan.data as data
from fastgan.data import building, pixels
from fastgan.data.pixels import Unreadable, decode, decode_frames
from fastgan.data.sets.clips import continuations, open_clips, split_clips, windows
from fastgan.errors import FastganError
from fastgan.monitor.pictures import animation, grid

KINDS = {"GIF": "gif", "WEBP": "webp", "PNG": "png"}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))


def shades(count: int, first: int = 0, side: int = 12) -> list[Image.Image]:
    """Frames of one colour each, whose red is 8 more than that of the frame before."""
    return [Image.new("RGB", (side, side), (first + 8 * i, 40, 90)) for i in range(count)]


def animated(frames: list[Image.Image], kind: str = "GIF", **options) -> bytes:
    out = io.BytesIO()
    options |= {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], **options)
    return out.getvalue()


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def reds(images: np.ndarray) -> list[int]:
    return images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_all_frames_of_an_animation_and_the_first_as_ever(kind):
    content = animated(shades(6), kind)
    frames = decode_frames(content)
    assert reds(np.stack(frames)) == [0, 8, 16, 24, 32, 40]
    assert np.array_equal(frames[0], decode(content))
    assert decode_frames(content, (5, 7), 1)[0].shape == (5, 7, 1)
    still = animated(shades(1), kind)
    assert np.array_equal(decode_frames(still), [decode(still)])


def test_frames_are_composited_as_a_viewer_shows_them():
    black, dot = Image.new("RGBA", (8, 8), (0, 0, 0, 255)), Image.new("RGBA", (8, 8))
    dot.paste((255, 0, 0, 255), (0, 0, 2, 2))
    other = Image.new("RGBA", (8, 8))
    other.paste((0, 255, 0, 255), (4, 4, 8, 8))
    kept = decode_frames(animated([black, dot, other], "PNG", disposal=0, blend=1), None, 3)
    assert kept[1][0, 0].tolist() == [255, 0, 0]
    assert kept[1][5, 5].tolist() == [0, 0, 0]
    assert kept[2][0, 0].tolist() == [255, 0, 0], "the dot stays"
    gone = decode_frames(animated([dot, other], "GIF", disposal=2), None, 3)
    assert gone[0][5, 5].tolist() == [255, 255, 255], "what shows nothing is white"
    assert gone[1][0, 0].tolist() == [255, 255, 255], "the dot goes before the next frame"
    assert gone[1][5, 5].tolist() == [0, 255, 0]


def test_a_png_that_stands_for_its_animation_is_no_frame_of_it():
    content = animated(shades(5), "PNG", default_image=True)
    assert reds(np.stack(decode_frames(content))) == [8, 16, 24, 32]
    assert decode(content)[0, 0, 0] == 0


def test_grey_animations_stay_grey_and_a_coloured_frame_makes_colour():
    grey = [Image.new("L", (8, 8), 9 * i) for i in range(4)]
    assert [frame.shape[2] for frame in decode_frames(animated(grey))] == [1] * 4
    assert [frame.shape[2] for frame in decode_frames(animated(grey + shades(1, 200, 8)))] == [
        3
    ] * 5


def test_animations_are_bounded_by_the_pixels_of_all_frames(monkeypatch):
    content = animated(shades(6))
    monkeypatch.setattr(pixels, "MAX_FRAMES_PIXELS", 6 * 144)
    assert len(decode_frames(content)) == 6
    with pytest.raises(Unreadable, match=r"6 frames of 12x12 pixels.*shorter"):
        decode_frames(content, (13, 12))  # they would be larger in memory
    monkeypatch.setattr(pixels, "MAX_FRAMES_PIXELS", 6 * 144 - 1)
    with pytest.raises(Unreadable, match="shorter"):
        decode_frames(content, (2, 2))
    monkeypatch.setattr(pixels, "MAX_PIXELS", 143)
    with pytest.raises(Unreadable, match="bomb"):
        decode_frames(content)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_animations_are_unreadable(kind):
    content = animated(shades(6), kind)
    for cut in (40, len(content) // 2):
        with pytest.raises(Unreadable):
            decode_frames(content[:cut])


def test_a_folder_of_animations_is_clips_and_has_an_entry_of_its_own(tmp_path, monkeypatch):
    for name, first in (("b.gif", 0), ("a/walk.gif", 100)):
        put(tmp_path / "mine" / name, animated(shades(6, first)))
    put(tmp_path / "mine/a.webp", animated(shades(3, 50), "WEBP"))
    for i, frame in enumerate(shades(5, 200)):
        put(tmp_path / "mine/frames" / f"{i}.png", animated([frame], "PNG"))
    put(tmp_path / "mine/bad.gif", animated(shades(6))[:90])
    put(tmp_path / "mine/labels.csv", b"file,label\nb.gif,1\n")
    stills = data.open(tmp_path / "mine")
    assert reds(stills.array("image")) == [50, 100, 0, 0, *range(200, 240, 8)]
    opened = data.open(tmp_path / "mine", frames=True)
    assert opened.names[:4] == ["a.webp#1", "a.webp#2", "a.webp#3", "a/walk.gif#1"]
    assert opened.classes == ["a.webp", "a/walk.gif", "b.gif", "frames"]
    assert opened.array("label").tolist() == [0] * 3 + [1] * 6 + [2] * 6 + [3] * 5
    assert reds(opened.array("image"))[3:9] == list(range(100, 148, 8))
    assert {name for name, _ in opened.skipped} == {"bad.gif", "labels.csv"}
    monkeypatch.setattr(building, "decode_frames", None)
    monkeypatch.setattr(building, "decode", None)  # both are found again
    assert data.open(tmp_path / "mine", frames=True).fingerprint == opened.fingerprint
    assert data.open(tmp_path / "mine").fingerprint == stills.fingerprint
    with pytest.raises(FastganError, match=r"bad\.gif.*--strict"):
        data.open(tmp_path / "mine", frames=True, strict=True)


@pytest.mark.parametrize("name", ["walk.gif", "walk.webp"])
def test_animations_of_samples_that_fastgan_made_are_no_data(name, tmp_path):
    cells = np.random.default_rng(0).random((2, 4, 1, 8, 8))
    animation.save_moving([grid(part) for part in cells], tmp_path / name)
    for read in (decode, decode_frames):
        with pytest.raises(Unreadable, match="that fastgan made"):
            read((tmp_path / name).read_bytes())


def test_one_animation_is_a_clip_and_no_set_of_images(tmp_path):
    put(tmp_path / "walk.gif", animated(shades(6)))
    opened = data.open(tmp_path / "walk.gif", frames=True, size=8)
    assert opened.describe() == "walk.gif: 6 images 8x8x3, 1 classes"
    assert opened.names[5] == "walk.gif#6"
    with pytest.raises(FastganError, match="single image"):
        data.open(tmp_path / "walk.gif")


def test_clips_that_are_too_short_and_stills_beside_animations_are_named(tmp_path):
    put(tmp_path / "mine/long.gif", animated(shades(7)))
    put(tmp_path / "mine/short.gif", animated(shades(3, 99)))
    put(tmp_path / "mine/cover.png", animated(shades(1), "PNG"))
    for i, frame in enumerate(shades(6, 150)):
        put(tmp_path / "mine/frames" / f"{8 + i}.png", animated([frame], "PNG"))
    frames = open_clips(tmp_path / "mine", 5)
    assert reds(frames.array("image")) == [150 + 8 * i for i in (2, 3, 4, 5, 0, 1)] + list(
        range(0, 56, 8)
    )
    assert dict(frames.skipped) == {
        "cover.png": "a still image beside animated ones",
        "short.gif": "3 frames, and a clip needs 5",
    }
    (note,) = frames.notes
    assert "frames/13.png comes before frames/8.png" in note
    with pytest.raises(FastganError, match="no clip of 8 frames, the longest has 7: give animated"):
        open_clips(tmp_path / "mine", 8)
    with pytest.raises(FastganError, match=r"cover\.png: no clip of 5 frames, the longest has 1"):
        open_clips(tmp_path / "mine/cover.png", 5)


def test_of_one_clip_enough_is_held_out_to_be_shown(tmp_path):
    put(tmp_path / "walk.gif", animated(shades(20)))
    frames = open_clips(tmp_path / "walk.gif", 5)
    train, held = split_clips(frames, 0.1, 5)
    assert (len(train), len(held)) == (15, 5)
    assert len(windows(held, 4)) == 1
    assert windows(train, 4).notes == [
        "1 clip of 15 frames",
        "kept from training, for sample and evaluate: 1 clip of 5 frames",
    ]


def test_clips_go_on_from_their_beginnings_or_their_ends():
    image = np.arange(17, dtype=np.uint8).reshape(17, 1, 1, 1)
    label = np.repeat([0, 1, 2], [10, 5, 2])
    frames = data.Dataset(
        "film", {"image": image, "label": label}, dict.fromkeys(("image", "label"), "image")
    )
    found = continuations(frames, 2, 3)
    whole = np.concatenate([found.array("source"), found.array("image")], 3)[:, 0, 0].tolist()
    assert whole == [[0, 1, 2, 3, 4], [10, 11, 12, 13, 14], [5, 6, 7, 8, 9]]
    ends = continuations(frames, 2, 3, at_end=True)
    assert ends.array("source")[:, 0, 0].tolist() == [[8, 9], [13, 14], [15, 16]]
    assert (ends.array("image") == 255).all()
    short = continuations(frames, 4, 5).array("image")[:, 0, 0].tolist()
    assert short[1] == [14, 255, 255, 255, 255], "what is not known is blank"
    with pytest.raises(FastganError, match="no clip of 12 frames"):
        continuations(frames, 11, 3)
