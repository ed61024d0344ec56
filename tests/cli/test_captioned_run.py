"""A run of images with captions, from a zip with a table to what evaluate says."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_recipes import flags

from fastgan.cli.main import main as cli
from fastgan.data.sets import captions
from fastgan.judges import classifier
from fastgan.metrics.captions import retrieval


@pytest.fixture(autouse=True)
def few(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "EPOCHS", 1)
    monkeypatch.setattr(classifier, "MIN_STEPS", 20)
    fit = retrieval.fit
    monkeypatch.setattr(retrieval, "fit", lambda *a, **options: fit(*a, **options, steps=5))


def command(capsys, *words, code=0):
    with pytest.raises(SystemExit) as done:
        cli([*words])
    out, err = capsys.readouterr()
    assert (done.value.code or 0) == code, err
    return err if code else out


def tiles(path, captioned, bare):
    """Red and blue tiles, each with a word of its own in the caption, but for the last ones."""
    rows = ["file,caption,words"]
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(captioned + bare):
            image = io.BytesIO()
            pixels = np.full((8, 8, 3), ((200, 0, 0), (0, 0, 200))[i % 2], np.uint8)
            Image.fromarray(pixels).save(image, "png")
            archive.writestr(f"in/{i:03}.png", image.getvalue())
            if i < captioned:
                rows.append(f"{i:03}.png,no,{('red', 'blue')[i % 2]} tile n{i}")
        archive.writestr("in/captions.csv", "\n".join(rows))


def test_a_zip_with_a_table_of_captions(capsys, monkeypatch):
    monkeypatch.setattr(captions, "MOST", 3)  # so that the numbers of the tiles are not known
    tiles("tiles.zip", 240, 1)
    options = ["--caption-column=words", "--size=8", "--batch-size=4", "--steps=1", "--no-watch"]
    options += [*flags("text-to-image"), "--no-progress", "--device=cpu", "--out=run"]
    train = ["train", "--recipe=text-to-image", "--data=tiles.zip", *options]
    told = command(capsys, *train, code=2)
    assert "1 of 241 images have no caption in 'words' of in/captions.csv, such as in/240" in told
    assert not Path("run").exists()
    command(capsys, *train, "--only-captioned")
    told = command(capsys, "sample", "run", "--text=a red tile", "--out=some.png", code=2)
    assert "no word 'a': it knows tile, red, blue" in told
    command(capsys, "sample", "run", "--out=some.png")
    out = command(capsys, "evaluate", "run", "--n=100", "--json")
    found = json.loads(out[out.index("{") :])["measures"]
    assert [name for name in found if "samples" in name] == [
        "R-precision of samples, 1 of 2",
        "colour as told, samples",
        "colour swapped, samples",
    ]
    assert found["colour as told, chance"] >= 0.5
