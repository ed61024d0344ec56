"""Captions in the layouts that people have, in a folder and in a zip of it; one line for each
mistake."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from fastgan.data.sets.captions import open_captioned
from fastgan.errors import FastganError

SHADES = {"a.png": 10, "b.png": 90, "in/c.png": 170}
SAID = {"a.png": "a dark tile", "b.png": "a tile, half dark", "in/c.png": "a bright tile"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "tiles"
    for name, shade in SHADES.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(made / name)
    return made


def put(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def told(source, **options):
    """{mean of the pixels: caption}."""
    data = open_captioned(str(source), size=8, channels=3, **options)
    means = data.array("image").mean((1, 2, 3)).round().astype(int).tolist()
    return dict(zip(means, data.captions, strict=True))


RIGHT = {SHADES[name]: caption for name, caption in SAID.items()}
OBJECTS = [{"file_name": name, "text": caption} for name, caption in SAID.items()]
LINES = "\n".join(map(json.dumps, OBJECTS))
ROWS = "".join(f'{name},"{caption}"\n' for name, caption in SAID.items())
COCO = {
    "info": {},
    "images": [{"id": i, "file_name": name} for i, name in enumerate(SAID)],
    "annotations": [
        *({"id": 9 - i, "image_id": i, "caption": c} for i, c in enumerate(SAID.values())),
        {"id": 20, "image_id": 0, "caption": "another"},
    ],
}
LAYOUTS = {
    "a csv": {"captions.csv": f"file,caption\n{ROWS}"},
    "without a header": {"captions.csv": ROWS},
    "a csv of a spreadsheet": {
        "captions.csv": "\ufeffFilename;Caption\r\n" + ROWS.replace(',"', ';"')
    },
    "a csv of pandas": {
        "metadata.csv": ",image,prompt\n"
        + "".join(f"{i},{row}\n" for i, row in enumerate(ROWS.splitlines()))
    },
    "a tsv": {"captions.tsv": "path\ttext\n" + ROWS.replace(',"', "\t").replace('"', "")},
    "other names, one table": {
        "my tiles.csv": f"image,label,description\n{ROWS}".replace(',"', ',1,"')
    },
    "beside a table of something else": {
        "captions.csv": f"file,caption\n{ROWS}",
        "labels.csv": "file,label\na.png,1\n",
    },
    "Hugging Face": {"metadata.jsonl": f"{LINES}\n"},
    "Hugging Face, a table a folder": {
        "metadata.csv": "file_name,text\n" + "\n".join(ROWS.splitlines()[:2]),
        "in/metadata.csv": "file_name,text\nc.png,a bright tile\nb.png,no\n",
    },
    "a dict": {"captions.json": json.dumps(SAID)},
    "several captions": {"captions.json": json.dumps({n: ["", c, "no"] for n, c in SAID.items()})},
    "a dict of objects": {"tiles.json": json.dumps({n: {"caption": c} for n, c in SAID.items()})},
    "a list of objects": {"captions.json": json.dumps(OBJECTS)},
    "names without folder or extension": {
        "captions.json": json.dumps({n[-5:-4]: c for n, c in SAID.items()})
    },
    "COCO": {"annotations/captions_train2017.json": json.dumps(COCO)},
    "a .txt each": {f"{name[:-4]}.txt": f"{caption}\n" for name, caption in SAID.items()},
    "a .json each": {f"{n[:-4]}.json": json.dumps({"caption": c}) for n, c in SAID.items()},
    "a .txt each, and tables of something else": {
        **{f"{name[:-4]}.txt": f"{caption}\n" for name, caption in SAID.items()},
        **{f"{name[:-4]}.json": '{"width": 8}' for name in SAID},
        "metadata.csv": "file,label\na.png,1\n",
    },
    "a table, and a .json of something else each": {
        **{f"{name[:-4]}.json": '{"width": 8}' for name in SAID},
        "tiles.csv": f"file,caption\n{ROWS}",
    },
    "Tux Paint's stamps": {
        f"{name[:-4]}.txt": f"{caption}\nfr.utf8=Un carré.\npt_BR.utf8=Um.\nsr@latin.utf8=Plo.\n"
        for name, caption in SAID.items()
    },
    "several lines": {
        f"{name[:-4]}.txt": "\n".join(caption.split()) for name, caption in SAID.items()
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_says_the_same(layout, folder, tmp_path):
    put(folder, LAYOUTS[layout])
    assert told(folder, strict=True) == RIGHT
    with zipfile.ZipFile(tmp_path / "tiles.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, f"tiles/{path.relative_to(folder).as_posix()}")
    assert told(tmp_path / "tiles.zip", strict=True) == RIGHT


def test_the_column_is_chosen(folder):
    put(folder, {"captions.csv": "file,text,Words\n" + ROWS.replace(',"', ',no,"')})
    assert told(folder, column="words") == RIGHT
    put(folder, {f"{name[:-4]}.txt": "no" for name in SAID})
    assert told(folder, column="Words") == RIGHT


def test_a_list_of_emoji(folder):
    objects = [
        {"name": "DARK TILE", "text": None, "image": "a.png", "category": "x"},
        {
            "name": "TILE",
            "text": ":)",
            "image": "b.png",
            "skin_variations": {"1F3FB": {"image": "c.png"}},
        },
    ]
    put(folder, {"emoji.json": json.dumps(objects), "package.json": '{"name": "emoji"}'})
    with pytest.raises(
        FastganError, match=r"1 of 3 .* no caption in 'name' of .*, such as in/c.png"
    ):
        told(folder, column="name")
    assert told(folder, column="name", only_captioned=True) == {10: "DARK TILE", 90: "TILE"}
    data = open_captioned(str(folder), size=8, channels=3, column="name", only_captioned=True)
    assert data.skipped == [("in/c.png", "no caption")]
    assert data.names == ["a.png", "b.png"]
    assert data.notes[0].startswith("captions are those of 'name' of emoji.json")


def test_what_is_left_out_is_still_said(folder):
    put(folder, {"captions.json": json.dumps(SAID), "in/torn.png": "no", "notes.txt": "no"})
    data = open_captioned(str(folder), size=8, channels=3)
    assert [name for name, _ in data.skipped] == ["in/torn.png"]
    with pytest.raises(FastganError, match=r"in/torn.png .*run without --strict"):
        told(folder, strict=True)


def test_a_table_of_a_folder_is_its_own(folder):
    above = {"a.png": "dark", "c.png": "no"}
    put(folder, {"in/captions.json": '{"c.png": "bright"}', "x/captions.json": json.dumps(above)})
    with pytest.raises(FastganError, match="1 of 3 images have no caption"):
        told(folder)
    put(folder, {"x/captions.json": json.dumps({**above, "b.png": "grey"})})
    assert told(folder) == {10: "dark", 90: "grey", 170: "bright"}


MISTAKES = {
    "nothing": (
        {},
        r"has no captions: put a .txt .* a captions.txt .* a captions.csv, .tsv, .json",
    ),
    "a column of no known name": (
        {"captions.csv": "file,words\na.png,x\n"},
        r"captions.csv has no column of captions \(caption, .*it has file, words; choose one with",
    ),
    "no column of files": (
        {"captions.csv": "a,b,caption\nx,y,z\n"},
        "no column of file names .*it has a, b, caption; call one of them file_name",
    ),
    "commas without quotes": (
        {"captions.csv": "file,caption\na.png,a dark, dark tile\n"},
        "captions.csv, line 2: 3 values for 2 columns: a value with ',' in it stands in quotes",
    ),
    "other files": (
        {"captions.csv": "file,caption\n/home/x/1.png,a tile\n"},
        r"'caption' of captions.csv has captions of other files \(/home/x/1.png\) than the images",
    ),
    "some only": (
        {"metadata.csv": "file,caption\na.png,a tile\n"},
        "2 of 3 images have no caption in 'caption' of metadata.csv, such as b.png",
    ),
    "torn JSON": (
        {"captions.json": '{"a.png": "x",\n"b.png" "y"}'},
        "captions.json, line 2: Expecting ':' delimiter: this is no JSON, mend it there",
    ),
    "torn JSON lines": (
        {"metadata.jsonl": '{"file_name": "a.png", "text": "x"}\n\n{"file_name": "b.png",\n'},
        "metadata.jsonl, line 3: .* this is no JSON",
    ),
    "a list of texts": ({"captions.json": '["a tile"]'}, 'write {"cat.png": "a sleeping cat"}'),
    "a list a line": (
        {"captions.jsonl": '["a.png", "x"]'},
        "captions.jsonl, line 1: no JSON object",
    ),
    "an empty list": ({"captions.json": "[]"}, "captions.json has no entry"),
    "an empty file": ({"captions.json": ""}, "captions.json, line 1: "),
    "too deep": ({"captions.json": "[" * 100_000}, "captions.json.*: write it anew|no JSON"),
    "a number beside": ({"a.json": "3"}, "a.json is no JSON object"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake, folder):
    files, message = MISTAKES[mistake]
    put(folder, files)
    with pytest.raises(FastganError, match=message) as raised:
        told(folder)
    assert "\n" not in str(raised.value)


def test_a_column_that_is_not_there(folder):
    with pytest.raises(FastganError, match=r"no table or \.json with a 'words'"):
        told(folder, column="words")
    put(folder, {"captions.csv": f"file,caption\n{ROWS}"})
    with pytest.raises(FastganError, match=r"captions.csv has no 'words', it has file, caption"):
        told(folder, column="words")
