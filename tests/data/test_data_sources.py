"""Whatever people have becomes the same Dataset, or one line that says what to do."""

import gzip
import os
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fastgan.data as data
from fastgan.errors import FastganError
from fastgan.monitor.pictures import formats, grid


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))


def pictures(
    count: int, size: tuple[int, int] = (8, 8), channels: int = 3, seed: int = 0
) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, channels), dtype=np.uint8)


def save(folder: Path, images: np.ndarray, names: list[str] | None = None) -> Path:
    for i, image in enumerate(images):
        path = folder / (names[i] if names else f"{i:04}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(path)
    return folder


def packed(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as out:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                out.write(path, path.relative_to(folder.parent))
    return archive


def as_idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def test_bundled_data_is_the_default():
    dataset = data.open()
    assert len(dataset) == 10_000
    assert dataset.fields["image"].shape == (28, 28, 1)
    assert dataset.fields["image"].kind == "image"
    assert np.array_equal(np.bincount(dataset.array("label")), [1000] * 10)
    assert dataset.classes[9] == "ankle boot"
    assert dataset.describe() == "fashion-mnist: 10,000 images 28x28x1, 10 classes"
    assert dataset.nbytes == 10_000 * (28 * 28 + 8)


def test_a_folder_reads_back_as_it_was_saved(tmp_path):
    images = pictures(11)
    dataset = data.open(save(tmp_path / "mine", images))
    assert np.array_equal(dataset.array("image"), images)
    assert dataset.classes is None
    assert set(dataset.fields) == {"image"}
    assert list(dataset.names) == [f"{i:04}.png" for i in range(11)]
    picked = dataset.read(np.array([3, 3, 0]))
    assert np.array_equal(picked["image"], images[[3, 3, 0]])


def test_the_same_images_have_one_fingerprint_however_they_come(tmp_path):
    images = pictures(6)
    folder = save(tmp_path / "mine", images)
    np.save(tmp_path / "mine.npy", images)
    np.savez_compressed(tmp_path / "mine.npz", images=images)
    sources = [
        folder,
        packed(folder, tmp_path / "mine.zip"),
        tmp_path / "mine.npy",
        tmp_path / "mine.npz",
        images,
        torch.from_numpy(images).permute(0, 3, 1, 2),
        torch.from_numpy(images).permute(0, 3, 1, 2) / 255,
        [Image.fromarray(image) for image in images],
        images / 255.0,
        images / 127.5 - 1,
    ]
    assert len({data.open(source).fingerprint for source in sources}) == 1


def test_the_fingerprint_sees_every_difference(tmp_path):
    images = pictures(6, (9, 8))
    base = data.open(images, labels=[0, 1, 2, 0, 1, 2])
    altered = images.copy()
    altered[5, 8, 7, 2] ^= 1
    others = [
        data.open(altered, labels=[0, 1, 2, 0, 1, 2]),
        data.open(images, labels=[0, 1, 2, 0, 1, 1]),
        data.open(images[::-1].copy(), labels=[0, 1, 2, 0, 1, 2]),
        data.open(images),
        data.open(images, size=8, labels=[0, 1, 2, 0, 1, 2]),
        data.open(images, channels=1, labels=[0, 1, 2, 0, 1, 2]),
        data.open(images.reshape(6, 8, 9, 3), labels=[0, 1, 2, 0, 1, 2]),
    ]
    assert len({d.fingerprint for d in (base, *others)}) == 8


def test_class_folders_become_labels_in_sorted_order(tmp_path):
    names = [
        "train/dog/a.png",
        "train/cat/x/b.png",
        "train/ant/c.png",
        "train/cat/d.png",
        "train/dog/e.png",
    ]
    folder = save(tmp_path / "pets", pictures(5), names)
    for dataset in (data.open(folder), data.open(packed(folder, tmp_path / "pets.zip"))):
        assert dataset.classes == ["ant", "cat", "dog"]
        assert [n.split("train/")[1].split("/")[0] for n in dataset.names] == [
            dataset.classes[i] for i in dataset.array("label")
        ]
    assert data.open(folder, labels=False).classes is None
    assert "label" not in data.open(folder, labels=False).fields


def test_images_beside_the_class_folders_mean_no_labels(tmp_path):
    folder = save(tmp_path / "pets", pictures(3), ["cat/a.png", "dog/b.png", "c.png"])
    assert data.open(folder).classes is None
    with pytest.raises(FastganError, match="no labels"):
        data.open(folder, labels=True)


def test_litter_is_ignored_and_unreadable_files_are_named_counted_and_left_out(tmp_path):
    folder = save(tmp_path / "mine", pictures(4), ["a/1.png", "a/2.png", "b/3.png", "b/4.png"])
    for junk in (".DS_Store", "a/Thumbs.db", "__MACOSX/a/._1.png", ".git/config", "b/.hidden.png"):
        (folder / junk).parent.mkdir(parents=True, exist_ok=True)
        (folder / junk).write_bytes(b"junk")
    (folder / "a" / "0.png").write_bytes(b"")
    (folder / "a" / "cut.png").write_bytes((folder / "a" / "1.png").read_bytes()[:-30])
    (folder / "readme\n.txt").write_text("not an image")
    os.symlink(folder / "nowhere", folder / "b" / "gone.png")
    os.symlink(folder, folder / "b" / "loop")
    for dataset in (data.open(folder), data.open(folder)):  # decoded, then from the cache
        assert len(dataset) == 4
        assert [name for name, _ in dataset.skipped] == [
            "a/0.png",
            "a/cut.png",
            "b/gone.png",
            "readme\n.txt",
        ]
        assert dataset.classes == ["a", "b"]
        line = dataset.describe()
        assert "left out 4: a/0.png (empty file), a/cut.png" in line
        assert "and 1 more" in line
        assert "\n" not in line
    with pytest.raises(FastganError, match=r"a/0\.png"):
        data.open(folder, strict=True)
    with pytest.raises(FastganError, match=r"a/0\.png"):
        data.open(folder, strict=True, cache_dir=tmp_path / "other")


def test_nothing_readable_is_one_clear_line(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    with pytest.raises(FastganError, match="no files in"):
        data.open(folder)
    (folder / "a.png").write_bytes(b"\x89PNG")
    (folder / "b.txt").write_text("hello")
    with pytest.raises(FastganError, match=r"no readable image in .*left out 2: a\.png"):
        data.open(folder)


def test_missing_and_foreign_paths_are_named(tmp_path, monkeypatch):
    with pytest.raises(FastganError, match=r"no data at .*nowhere.*give a folder"):
        data.open(tmp_path / "nowhere")
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(FastganError, match=r"x\.csv is no data"):
        data.open(tmp_path / "x.csv")
    save(tmp_path, pictures(1))
    with pytest.raises(FastganError, match="single image"):
        data.open(tmp_path / "0000.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "home", pictures(2))
    assert len(data.open("~/home")) == 2


def test_sizes_that_differ_ask_for_size(tmp_path):
    folder = save(tmp_path / "mine", pictures(2))
    save(folder, pictures(1, (6, 10)), ["z.png"])
    with pytest.raises(
        FastganError, match=r"differ in size \(0000\.png is 8x8, z\.png 10x6\).*--size 6"
    ):
        data.open(folder)
    assert data.open(folder, size=6).fields["image"].shape == (6, 6, 3)
    assert data.open(folder, size=(4, 6)).fields["image"].shape == (4, 6, 3)


def test_grey_folders_stay_grey_and_one_colour_image_makes_colour(tmp_path):
    grey = pictures(70, channels=1)
    folder = save(tmp_path / "mine", grey)
    assert np.array_equal(data.open(folder).array("image"), grey)
    save(folder, pictures(1), ["z.png"])
    dataset = data.open(folder)
    assert dataset.fields["image"].shape == (8, 8, 3)
    assert np.array_equal(dataset.array("image")[:70], grey.repeat(3, 3))
    assert data.open(folder, channels=1).fields["image"].shape == (8, 8, 1)
    assert data.open(folder, channels=4).fields["image"].shape == (8, 8, 4)


def test_odd_zip_names_are_only_names(tmp_path):
    (png := tmp_path / "a.png").parent.mkdir(exist_ok=True)
    Image.fromarray(pictures(1)[0]).save(png)
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as out:
        for name in (
            "../../escaped.png",
            "/absolute.png",
            "ok/..\\x.png",
            "__MACOSX/._a.png",
            "ok/.DS_Store",
        ):
            out.write(png, name)
    before = set(tmp_path.parent.rglob("*"))
    dataset = data.open(tmp_path / "evil.zip", cache_dir=tmp_path / "cache")
    assert sorted(dataset.names) == ["absolute.png", "escaped.png", "ok/x.png"]
    assert {
        p
        for p in set(tmp_path.parent.rglob("*")) - before
        if (tmp_path / "cache") not in (p, *p.parents)
    } == set()


def test_damaged_zip_members_are_left_out_and_damaged_zips_named(tmp_path):
    archive = packed(save(tmp_path / "mine", pictures(3, (32, 32))), tmp_path / "mine.zip")
    raw = bytearray(archive.read_bytes())
    raw[raw.index(b"IDAT") + 40] ^= 255
    archive.write_bytes(raw)
    dataset = data.open(archive)
    assert len(dataset) == 2
    assert dataset.skipped[0][0] == "mine/0000.png"
    archive.write_bytes(raw[:100])
    with pytest.raises(FastganError, match=r"mine\.zip is not a readable zip"):
        data.open(archive)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_with_the_labels_beside_it(tmp_path, zipped):
    images, labels = pictures(7, channels=1)[..., 0], np.arange(7, dtype=np.uint8) % 3
    end = ".gz" if zipped else ""
    squeeze = gzip.compress if zipped else bytes
    (tmp_path / f"train-images-idx3-ubyte{end}").write_bytes(squeeze(as_idx(images)))
    (tmp_path / f"train-labels-idx1-ubyte{end}").write_bytes(squeeze(as_idx(labels)))
    dataset = data.open(tmp_path / f"train-images-idx3-ubyte{end}")
    assert np.array_equal(dataset.array("image")[..., 0], images)
    assert np.array_equal(dataset.array("label"), labels)
    assert dataset.array("label").dtype == np.int64
    (tmp_path / f"train-images-idx3-ubyte{end}").write_bytes(squeeze(as_idx(images))[:-9])
    with pytest.raises(FastganError, match="truncated"):
        data.open(tmp_path / f"train-images-idx3-ubyte{end}")


def test_npz_finds_images_and_labels_and_names_what_does_not_fit(tmp_path):
    images, labels = pictures(5), np.array([4, 0, 1, 2, 3])
    np.savez(
        tmp_path / "a.npz",
        x_train=images,
        y_train=labels,
        x_test=images[:2],
        weight=np.ones((5, 3), np.float32),
    )
    dataset = data.open(tmp_path / "a.npz")
    assert np.array_equal(dataset.array("image"), images)
    assert np.array_equal(dataset.array("label"), labels)
    assert dataset.fields["weight"].kind == "tensor"
    assert dataset.skipped == [("a.npz:x_test", "shape 2x8x8x3, not one row an image")]
    np.savez(tmp_path / "b.npz", one=images, two=images)
    with pytest.raises(FastganError, match="which of one, two"):
        data.open(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", images=np.array([{}], dtype=object))
    with pytest.raises(FastganError, match=r"c\.npz"):
        data.open(tmp_path / "c.npz")


def test_array_layouts_and_value_ranges():
    images = pictures(5, (6, 8))
    first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    for source in (
        images,
        first,
        torch.from_numpy(first),
        torch.from_numpy(images),
        images.astype(np.int64),
    ):
        assert np.array_equal(data.open(source).array("image"), images)
    assert (
        data.open(images).array("image").base is images
        or data.open(images).array("image") is images
    )  # no copy
    assert np.array_equal(data.open(images[..., 0]).array("image"), images[..., :1])
    assert np.array_equal(data.open(images[:, ::-1]).array("image"), images[:, ::-1])
    assert set(np.unique(data.open(images > 99).array("image"))) == {0, 255}
    assert np.array_equal(data.open(images.astype(np.uint16) * 257).array("image"), images)
    assert np.array_equal(
        data.open(torch.from_numpy(images).to(torch.bfloat16)).array("image").shape, images.shape
    )
    with pytest.raises(FastganError, match=r"\[0, 1\], \[-1, 1\] or \[0, 255\]"):
        data.open(images * 10.0)
    with pytest.raises(FastganError, match="finite"):
        data.open(np.full((3, 4, 4, 1), np.nan))
    with pytest.raises(FastganError, match="no samples"):
        data.open(images[:0])


def test_arrays_that_are_no_images_come_through_as_tensors():
    points = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    dataset = data.open(points)
    assert dataset.fields["image"].kind == "tensor"
    assert np.array_equal(dataset.array("image"), points)
    assert data.open(pictures(3), labels=np.full((3, 3), 1 / 3)).fields["label"].kind == "tensor"


def test_labels_may_be_given_as_numbers_names_or_a_file(tmp_path):
    images = pictures(4)
    assert data.open(images, labels=torch.tensor([0, 1, 1, 2])).classes == ["0", "1", "2"]
    named = data.open(images, labels=["dog", "cat", "cat", "ant"])
    assert named.classes == ["ant", "cat", "dog"]
    assert named.array("label").tolist() == [2, 1, 1, 0]
    np.save(tmp_path / "y.npy", [1, 0, 1, 0])
    assert data.open(images, labels=tmp_path / "y.npy").array("label").tolist() == [1, 0, 1, 0]
    with pytest.raises(FastganError, match="image has 4, label has 3"):
        data.open(images, labels=[0, 1, 2])


def test_array_files_of_many_images_are_resized_once(tmp_path, monkeypatch):
    monkeypatch.setattr("fastgan.data.from_rows._QUICK", 10)
    images = pictures(50, (16, 16))
    np.save(tmp_path / "a.npy", images)
    dataset = data.open(tmp_path / "a.npy", size=8)
    assert isinstance(dataset.array("image"), np.memmap)
    monkeypatch.setattr("fastgan.data.arrays.fit_array", None)
    assert data.open(tmp_path / "a.npy", size=8).fingerprint == dataset.fingerprint
    monkeypatch.undo()
    assert data.open(images, size=8).fingerprint == dataset.fingerprint


def test_large_array_files_are_converted_once_into_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("fastgan.data.from_rows.MEMORY_BYTES", 100)
    images = pictures(50)
    np.savez_compressed(
        tmp_path / "a.npz", images=images.astype(np.float32) / 255, labels=np.arange(50) % 4
    )
    dataset = data.open(tmp_path / "a.npz")
    assert isinstance(dataset.array("image"), np.memmap)
    assert np.array_equal(dataset.array("image"), images)
    assert np.array_equal(dataset.array("label"), np.arange(50) % 4)
    assert (
        data.open(tmp_path / "a.npz").fingerprint
        == dataset.fingerprint
        == data.open(images, labels=np.arange(50) % 4).fingerprint
    )
    assert len(list((tmp_path / "cache").glob("*.fgdata"))) == 1


class Items(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        if isinstance(self.items[i], Exception):
            raise self.items[i]
        return self.items[i]


def test_torch_datasets_of_images_pairs_and_dicts(monkeypatch, tmp_path):
    images = pictures(6)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2)
    signed = [t / 127.5 - 1 for t in tensors]
    signed[0] = torch.zeros(3, 8, 8)  # alone, it could mean [0, 1]
    expected = images.copy()
    expected[0] = 128
    assert np.array_equal(data.open(Items(signed)).array("image"), expected)
    pairs = data.open(torch.utils.data.TensorDataset(tensors, torch.tensor([0, 1, 2, 0, 1, 2])))
    assert pairs.array("label").tolist() == [0, 1, 2, 0, 1, 2]
    rows = [
        {"img": Image.fromarray(x), "label": 1, "text": torch.full((4,), float(i)), "path": "x"}
        for i, x in enumerate(images)
    ]
    named = data.open(Items(rows))
    assert {key: field.kind for key, field in named.fields.items()} == {
        "image": "image",
        "label": "label",
        "text": "tensor",
    }
    assert np.array_equal(named.array("image"), images)
    monkeypatch.setattr("fastgan.data.mapstyle.MEMORY_BYTES", 10)
    scratch = data.open(Items(rows))
    assert isinstance(scratch.array("image"), np.memmap)
    assert scratch.fingerprint == named.fingerprint
    assert list((tmp_path / "cache").iterdir()) == []
    assert data.open(Items(rows), workers=2).fingerprint == named.fingerprint
    assert data.open(Items(rows), size=5, channels=1).fields["image"].shape == (5, 5, 1)


def test_a_list_of_paths_reads_those_files(tmp_path):
    images = pictures(3)
    folder = save(tmp_path / "mine", images)
    paths = [folder / "0002.png", str(folder / "0000.png"), folder / "gone.png"]
    dataset = data.open([(path, 1) for path in paths])
    assert np.array_equal(dataset.array("image"), images[[2, 0]])
    assert dataset.skipped == [("item 2", f"{folder}/gone.png: No such file or directory")]
    assert len(data.open(paths)) == 2


def test_items_that_fail_or_differ_are_named():
    images = pictures(3)
    dataset = data.open(Items([images[0], ValueError("no such file"), images[2]]))
    assert dataset.skipped == [("item 1", "ValueError: no such file")]
    with pytest.raises(FastganError, match="item 1"):
        data.open(Items([images[0], ValueError("x"), images[2]]), strict=True)
    with pytest.raises(FastganError, match="no readable image in Items: left out 1"):
        data.open(Items([KeyError("x")]))
    with pytest.raises(
        FastganError,
        match=r"item 1 differs in image \(4x4x3 uint8, before 8x8x3 uint8\): give size=",
    ):
        data.open(Items([images[0], images[1][:4, :4]]))
    with pytest.raises(FastganError, match="3 parts"):
        data.open(Items([(images[0], 1, 2)]))


def test_aligned_sources_are_read_in_step(tmp_path):
    photos, edges = pictures(5), pictures(5, channels=1, seed=1)
    a = save(tmp_path / "photos", photos)
    b = save(tmp_path / "edges", edges)
    dataset = data.open(
        data.Aligned(image=a, source=b, text=np.arange(20.0, dtype=np.float32).reshape(5, 4))
    )
    assert np.array_equal(dataset.array("image"), photos)
    assert np.array_equal(dataset.array("source"), edges)
    assert {key: field.kind for key, field in dataset.fields.items()} == {
        "image": "image",
        "source": "image",
        "text": "tensor",
    }
    for labels in ([0, 1, 2, 0, 1], np.array(["a", "b", "c", "a", "b"])):
        given = data.open(data.Aligned(image=photos, label=labels))
        assert given.fields["label"].kind == "label"
        assert given.array("label").tolist() == [0, 1, 2, 0, 1]
        assert len(given.classes) == 3
    assert given.classes == ["a", "b", "c"]
    texts = data.open(data.Aligned(image=photos, text=np.random.default_rng(0).random((5, 7, 9))))
    assert (
        texts.fields["text"].kind == "tensor"
    )  # three axes of floats are an image only where they are the image
    labelled = data.open(data.Aligned(image="fashion-mnist", source="fashion-mnist"))
    assert set(labelled.fields) == {"image", "label", "source", "source_label"}
    with pytest.raises(FastganError, match="same number"):
        data.open(data.Aligned(image=photos, source=edges[:4]))


def test_a_bad_half_takes_its_partner_out(tmp_path):
    photos, edges = pictures(5), pictures(5, seed=1)
    a, b = save(tmp_path / "photos", photos), save(tmp_path / "edges", edges)
    (a / "0001.png").write_bytes(b"")
    (b / "0003.png").write_bytes(b"bad")
    dataset = data.open(data.Aligned(image=a, source=b))
    assert np.array_equal(dataset.array("image"), photos[[0, 2, 4]])
    assert np.array_equal(dataset.array("source"), edges[[0, 2, 4]])
    assert [name for name, _ in dataset.skipped] == ["photos/0001.png", "edges/0003.png"]
    (b / "0003.png").unlink()
    (b / "0009.png").write_bytes((b / "0000.png").read_bytes())
    with pytest.raises(FastganError, match=r"has no partner"):
        data.open(data.Aligned(image=a, source=b))
    with pytest.raises(FastganError, match="pairs no longer match"):
        data.open(data.Aligned(image=a, source=edges))


def test_an_open_dataset_is_returned_as_it_is():
    dataset = data.open(pictures(3))
    assert data.open(dataset) is dataset
    assert data.open(dataset, size=8, channels=3) is dataset
    with pytest.raises(FastganError, match="open as 8x8x3, not 16x16x3"):
        data.open(dataset, size=16)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ({"image": 1}, {}, "Aligned"),
        (7, {}, "cannot read images from int"),
        (iter([]), {}, "no random access"),
        (None, {}, "cannot read images from NoneType"),
        ("fashion-mnist", {"channels": 2}, "channels must be"),
        ("fashion-mnist", {"size": 0}, "size must be"),
        ("fashion-mnist", {"size": (1, 2, 3)}, "size must be"),
    ],
)
def test_requests_that_make_no_sense_are_one_line(source, options, words):
    with pytest.raises(FastganError, match=words) as caught:
        data.open(source, **options)
    assert "\n" not in str(caught.value)


def test_importing_the_package_needs_neither_torch_nor_pillow():
    import subprocess

    code = (
        "import fastgan.data, sys; assert not {'torch', 'PIL'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_fastgan_made_itself_is_left_out_and_said(tmp_path):
    folder = save(tmp_path / "mine", images := pictures(6))
    before = data.open(folder).fingerprint
    for run in ("run", "deep/er/run"):
        (folder / run / "checkpoints" / "step-00000000").mkdir(parents=True)
        (folder / run / "checkpoints" / "step-00000000" / "nets.safetensors").write_bytes(b"x")
        (folder / run / "run.json").write_text("{}")
        save(folder / run, images)
    many = torch.zeros(4, 3, 8, 8)
    for end in ("png", "jpg", "jpeg", "webp"):
        formats.save_still(grid(many), folder / f"grid.{end}")
    formats.save_still(formats.labelled_grid(many, ["a"] * 4), folder / "labelled.png")
    packed(folder, tmp_path / "mine.zip")
    for source in (folder, tmp_path / "mine.zip"):
        dataset = data.open(source)
        reasons = [reason for _, reason in dataset.skipped]
        assert len(dataset) == 6
        assert reasons.count("a run of fastgan") == 2
        assert reasons.count("a grid of samples that fastgan made") == 5
    assert data.open(folder).fingerprint == before
    with pytest.raises(FastganError, match="is a run of fastgan, not data"):
        data.open(folder / "run")


def test_folders_that_link_to_each_other_and_deep_ones_are_walked_once(tmp_path, monkeypatch):
    names = [f"d{i}" for i in range(9)]
    for name in names:
        (tmp_path / "web" / name).mkdir(parents=True)
        for other in names:
            os.symlink(tmp_path / "web" / other, tmp_path / "web" / name / f"a link {other}")
    save(tmp_path / "web" / "d4", pictures(2))
    assert list(data.open(tmp_path / "web").names) == ["d4/0000.png", "d4/0001.png"]
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    save(tmp_path / "deep", pictures(2))
    assert len(data.open(tmp_path / "deep")) == 2
    monkeypatch.chdir(tmp_path)
    while (tmp_path / "deep" / "d").exists():  # too deep for shutil's recursion
        depth = 0
        os.chdir(tmp_path / "deep")
        while os.path.isdir("d"):
            os.chdir("d")
            depth += 1
        for _ in range(depth):
            os.chdir("..")
            os.rmdir("d")
    os.chdir(tmp_path)
