"""Everything docs/data.md and `fastgan data` promise, done as shown."""

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fastgan.cli.data import command
from fastgan.errors import FastganError


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder in ("my_images/cat", "my_images/dog", "photos", "sketches"):
        Path(folder).mkdir(parents=True)
        for i in range(30):
            Image.fromarray(rng.integers(0, 256, (70, 80, 3), dtype=np.uint8)).save(
                f"{folder}/{i}.png"
            )
    Path("my_gifs").mkdir()
    walk = [Image.new("RGB", (70, 70), (8 * i, 0, 0)) for i in range(12)]
    walk[0].save("my_gifs/walk.gif", save_all=True, append_images=walk[1:])
    Path("my_images/cat/cut.png").write_bytes(Path("my_images/cat/0.png").read_bytes()[:200])


def test_the_snippets_of_the_documentation_run():
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    names: dict = {}
    for snippet in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(snippet, names)
    assert names["images"].shape == (60, 64, 64, 3)
    assert isinstance(names["images"], np.memmap)
    assert names["dataset"].classes == ["cat", "dog"]
    assert names["clips"].names[11] == "walk.gif#12"
    assert names["clips"].classes == ["walk.gif"]
    assert set(names["pairs"].fields) == {"image", "source"}
    assert tuple(names["batch"]["image"].shape) == (64, 3, 32, 32)
    assert names["batch"]["label"].shape == (64,)


def test_the_command_shows_what_a_network_will_see():
    result = CliRunner().invoke(
        command, ["my_images", "--size", "64", "--preview", "seen.png"], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert "my_images: 60 images 64x64x3, 2 classes; left out 1: cat/cut.png" in result.output
    assert "class cat: 30" in result.output
    assert "left out cat/cut.png: " in result.output
    assert Image.open("seen.png").size[0] > 8 * 64
    with pytest.raises(FastganError, match=r"cut\.png"):
        CliRunner().invoke(
            command, ["my_images", "--size", "64", "--strict"], catch_exceptions=False
        )
    cleared = CliRunner().invoke(command, ["--clear-cache"], catch_exceptions=False)
    assert "removed 1 decoded data sets" in cleared.output
    assert not list(Path("cache").iterdir())
