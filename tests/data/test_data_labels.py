"""Labels in every usual form are the same labels; what is guessed is said; nothing is trained that
has no image."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fastgan
from fastgan import data
from fastgan.data.listing import class_labels
from fastgan.errors import FastganError

NUMBERS = np.array([0, 1, 2, 1] * 5)
FORMS = {
    "int64": NUMBERS,
    "uint8": NUMBERS.astype(np.uint8),
    "float32": NUMBERS.astype(np.float32),
    "float64 of the other byte order": NUMBERS.astype(">f8"),
    "a column": NUMBERS[:, None],
    "a column of floats": NUMBERS[:, None].astype(float),
    "one-hot": np.eye(3, dtype=int)[NUMBERS],
    "one-hot bool": np.eye(3, dtype=bool)[NUMBERS],
    "one-hot float": np.eye(3)[NUMBERS],
    "a list": NUMBERS.tolist(),
    "a tensor": torch.tensor(NUMBERS),
    "texts": np.array(["0", "1", "2"])[NUMBERS],
    "a column of texts": np.array(["0", "1", "2"])[NUMBERS][:, None],
}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))


def images(count=20, side=8):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 1), np.uint8)


class Items:
    """A torch-like data set of (image, label)."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return {"image": images()[i], "label": self.labels[i]}


@pytest.mark.parametrize("form", FORMS)
def test_labels_in_every_usual_form_are_the_same(form, tmp_path):
    given = FORMS[form]
    np.savez(tmp_path / "x.npz", images=images(), labels=np.asarray(given))
    np.save(tmp_path / "labels.npy", np.asarray(given))
    opened = {
        "labels=": data.open(images(), labels=given),
        "a file": data.open(images(), labels=tmp_path / "labels.npy"),
        ".npz": data.open(tmp_path / "x.npz"),
        "aligned": data.open(data.Aligned(image=images(), label=np.asarray(given))),
        "items": data.open(Items([v[0] if np.shape(v) == (1,) else v for v in given])),
    }
    for how, dataset in opened.items():
        assert dataset.array("label").dtype == np.int64, how
        assert dataset.array("label").tolist() == NUMBERS.tolist(), how
        assert dataset.classes == ["0", "1", "2"], how
    assert len({dataset.fingerprint for dataset in opened.values()}) == 1


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0.5, 1, 2, 1], "label scalar float64, no whole number for each image"),
        ([0, 1, -1, -1], "labels, 2 of 4 unlabelled (-1)"),
        ([-5, 1, 2, 3], "labels from -5 to 3, which are no numbers of classes"),
        ([10**6, 1, 2, 3], "labels from 1 to 1000000, which are no numbers of classes"),
        ([[0, 1, 1]] * 4, "label 3 int64, no whole number for each image"),
        ([np.nan, 1, 2, 3], "label scalar float64, no whole number for each image"),
        ([1, 2, 3, 2], "4 classes, 1 of them without an image (0)"),
        ([1, 5, 9, 5], "10 classes, 7 of them without an image (0, 2, 3, 4, 6, 7 and 1 more)"),
        ([0, 1, 2, 1], "3 classes"),
    ],
)
def test_what_the_labels_are_is_said(labels, said):
    assert data.open(images(4), labels=np.array(labels)).describe().endswith(f", {said}")


def test_a_recipe_that_needs_labels_says_what_was_found(tmp_path):
    from fastgan.recipes.cgan import Cgan
    from fastgan.recipes.training import make_trainer

    np.savez(tmp_path / "x.npz", images=images(4), labels=[0, 1, -1, 1])
    with pytest.raises(FastganError, match=r"needs labels.*1 of 4 unlabelled \(-1\)"):
        make_trainer(Cgan(data=str(tmp_path / "x.npz")), resume=False, log=None, out=None)


def test_classes_without_an_image_are_not_drawn(tmp_path):
    """By the pictures of a run, by `sample` and by those who measure it."""
    from fastgan.recipes.cgan import Cgan
    from fastgan.recipes.training import make_trainer
    from fastgan.trainer import sampling
    from fastgan.trainer.reuse import load

    np.savez(tmp_path / "x.npz", images=images(8), labels=[1, 3, 3, 1] * 2)
    out = str(tmp_path / "run")
    config = Cgan(data=str(tmp_path / "x.npz"), base_width=2, latent=2, batch_size=4, device="cpu")
    with make_trainer(config, resume=False, log=None, out=out) as trainer:
        batch = sampling.conditions(trainer.datasets, 0, 1, 5, torch.device("cpu"))
        assert batch["label"].tolist() == [3, 1, 3, 1, 3]
    made = fastgan.sample(out, 4, device="cpu")
    assert torch.equal(made, fastgan.sample(out, 4, labels=[1, 3, 1, 3], device="cpu"))
    assert load.samples_of(out, 4)[1].shape == made.shape


LAYOUTS = {
    ("cat", "dog"): (["cat", "dog"], None),
    ("train/cat", "train/dog"): (["cat", "dog"], None),
    ("train", "val", "test"): (None, "parts of one set, not as classes"),
    ("Train", "Validation"): (None, "name one folder (Train)"),
    ("train/cat", "train/dog", "val/cat"): (["cat", "dog"], "parts of one set"),
    ("x/train", "x/test"): (None, "parts of one set"),
    ("00000", "01000", "02000"): (None, "shards of one set"),
    ("00000/cat", "01000/dog"): (["cat", "dog"], "shards of one set"),
    ("part1", "part2", "part10"): (None, "shards of one set"),
    ("shard-000", "shard-001"): (None, "shards of one set"),
    ("0", "1", "2"): (["0", "1", "2"], "3 numbered folders 0, 1, 2 are read as classes"),
    ("00000", "00001"): (["00000", "00001"], "numbered folders"),
    ("train", "test", "cat"): (["cat", "test", "train"], "may be parts of the set"),
    ("TRAIN/cat", "TEST/cat", "TRAIN/dog"): (["cat", "dog"], "parts of one set"),
    ("train2017", "val2017"): (None, "parts of one set"),
    ("test_images", "train_images"): (None, "parts of one set"),
    ("trainA", "trainB", "testA"): (None, "name one folder (trainA)"),
    ("fold1", "fold2"): (None, "shards of one set"),
    ("images", "masks"): (["images", "masks"], "belong together as pairs"),
    ("trainer", "tester"): (["tester", "trainer"], None),
    ("test",): (None, None),
    (): (None, None),
}


@pytest.mark.parametrize("folders", LAYOUTS, ids=" ".join)
def test_folders_are_classes_splits_or_shards_and_a_guess_is_said(folders, tmp_path):
    classes, note = LAYOUTS[folders]
    names = [f"{folder}/{i}.png" for folder in folders for i in range(2)] or ["0.png", "1.png"]
    found, said = class_labels(names)
    assert (found[1] if found else None) == classes
    assert (said is None) if note is None else (note in said)
    for name, picture in zip(names, images(len(names)), strict=True):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[:, :, 0]).save(tmp_path / "set" / name)
    for _ in range(2):  # decoded, and from the cache
        dataset = data.open(tmp_path / "set")
        assert (dataset.classes, dataset.notes) == (classes, [said] if said else [])
    assert data.open(tmp_path / "set", labels=False).notes == []


@pytest.mark.parametrize(
    ("values", "narrow"),
    [
        ("12 bits in 16", True),
        ("0 and 1", True),
        ("all of one value", True),
        ("16 bits", False),
        ("8 bits", False),
        ("floats", False),
        ("bool", False),
        ("dark, but one", False),
    ],
)
def test_a_range_that_is_too_narrow_is_said(values, narrow, tmp_path):
    full = images()
    array = {
        "12 bits in 16": full.astype(np.uint16) * 16,
        "0 and 1": (full > 128).astype(np.int64),
        "all of one value": np.full_like(full, 77),
        "16 bits": full.astype(np.uint16) * 257,
        "8 bits": full,
        "floats": full / 255,
        "bool": full > 128,
        "dark, but one": np.concatenate([np.zeros_like(full), full[:1]]),
    }[values]
    assert bool(data.open(array).notes) == narrow
    if array.dtype in (np.uint8, np.uint16):
        (tmp_path / "set").mkdir()
        for i, picture in enumerate(array):
            Image.fromarray(picture[:, :, 0]).save(tmp_path / "set" / f"{i:02}.png")
        notes = data.open(tmp_path / "set").notes
        assert bool(notes) == narrow
        assert all("less than an eighth of the scale" in note for note in notes)


TABLES = {
    "dataset.json": ('{"labels": [["a/0.png", 1], ["a/1.png", 0]]}', ["0", "1"], [1, 0]),
    "a/dataset.json": ('{"labels": {"0.png": [0, 1], "1.png": [1, 0]}}', ["0", "1"], [1, 0]),
    "labels.csv": ("file,label\na/0.png,dog\na/1.png,cat\n", ["cat", "dog"], [1, 0]),
    "labels.tsv": ("0.png\tdog\r\n1.png\tcat\r\n", ["cat", "dog"], [1, 0]),
    "metadata.csv": ("\ufeffid,size,class\n0,9,dog\n1,9,cat\n", ["cat", "dog"], [1, 0]),
    "classes.csv": ("file,label\na/0.png,dog\n", None, "no class for 1 of 2 images"),
    "dataset.json ": ('{"labels": null}', None, None),
    "dataset.json  ": ("[" * 9999, None, "no file and class a line"),
    " labels.csv": ("one,two,three\n1,2,3\n", None, "no file and class a line"),
}


@pytest.mark.parametrize("table", TABLES)
def test_classes_of_a_table_beside_the_images_are_read_and_said(table, tmp_path):
    content, classes, rest = TABLES[table]
    (tmp_path / "set" / "a").mkdir(parents=True)
    for i, picture in enumerate(images(2)):
        Image.fromarray(picture[:, :, 0]).save(tmp_path / "set" / "a" / f"{i}.png")
    file = tmp_path / "set" / table.strip()
    file.write_text(content)
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "set"))
    for source in (tmp_path / "set", tmp_path / "set", packed):
        dataset = data.open(source)
        assert dataset.classes == classes
        assert dataset.skipped == []
        if classes is not None:
            assert dataset.array("label").tolist() == rest
            assert "classes are those of" in dataset.notes[0]
        else:
            assert dataset.notes == [] if rest is None else rest in dataset.notes[0]
    if classes == ["cat", "dog"]:  # a changed table is another data set
        file.write_text(content.replace("cat", "bird"))
        assert data.open(tmp_path / "set").classes == ["bird", "dog"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_table_that_cannot_be_read_is_said_and_refused_when_strict(packed, tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    for i, picture in enumerate(images(2)):
        Image.fromarray(picture[:, :, 0]).save(tmp_path / "set" / f"{i}.png")
    (tmp_path / "set" / "labels.csv").write_text("0.png,dog\n1.png,cat\n" + 99 * "1.png,cat\n")
    monkeypatch.setattr("fastgan.data.building.LARGEST", 100)
    made = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "set")
    source = Path(made) if packed else tmp_path / "set"
    dataset = data.open(source)
    assert (len(dataset), dataset.classes, dataset.skipped) == (2, None, [])
    assert "labels.csv is left out: larger than" in dataset.notes[0]
    with pytest.raises(FastganError, match=r"labels\.csv: larger than"):
        data.open(source, strict=True)


def test_without_its_labels_a_set_has_no_classes():
    dataset = data.open("fashion-mnist", labels=False)
    assert (dataset.classes, dataset.present.tolist()) == (None, [])
    assert "classes" not in dataset.describe()
