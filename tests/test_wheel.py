"""What somebody gets who installs the wheel: every kind trains, samples and goes on by its name
alone, in an empty folder and without a network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fastgan import recipes

ROOT = Path(__file__).parent.parent
SERVER = Path(__file__).parent / "support" / "wheel_server.py"
SECONDS = 120
QUICK = ("dcgan", "semi-supervised", "pix2pix")
"""One from noise, one with data of its own kind, one from images; the rest take ten minutes.
Recipe projected needs an extra."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """wheel(folder, arguments...) -> what the installed command answers there."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    alone = ["--no-deps", "--no-index", "--quiet"]
    # not in the tree, where two processes would build into one folder
    (folder / "build.cfg").write_text(f"[build]\nbuild_base={folder / 'build'}\n")
    apart = {**os.environ, "DIST_EXTRA_CONFIG": str(folder / "build.cfg")}
    for command in (
        [*pip, "wheel", "--no-build-isolation", *alone, "--wheel-dir", folder, ROOT],
        [*pip, "install", *alone, "--target", folder / "site", folder],
    ):
        if command[3] == "install":
            command[-1] = next(folder.glob("*.whl"))
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=apart)
        assert done.returncode == 0, done.stderr[-2000:]
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "site"),
        "FASTGAN_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-P", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
    ) as server:
        assert Path(json.loads(server.stdout.readline())).is_relative_to(folder / "site")

        def answered(*request):
            print(json.dumps([str(word) for word in request]), file=server.stdin, flush=True)
            return json.loads(server.stdout.readline())

        yield answered
        server.stdin.close()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in QUICK else pytest.mark.long)
        for name in (*(n for n in recipes.RECIPES if n != "projected"), "auto")
    ],
)
def test_each_kind_trains_samples_and_goes_on_by_its_name_alone(name, wheel, tmp_path):
    answers = [wheel(tmp_path, "train", "--recipe", name, "--steps", 3)]
    assert answers[-1]["code"] == 0, answers[-1]["printed"]
    (run,) = (tmp_path / "runs").iterdir()
    for arguments in (["sample", run], ["train", "--resume", run, "--steps", 4]):
        answers.append(wheel(tmp_path, *arguments))
        assert answers[-1]["code"] == 0, answers[-1]["printed"]
    if name == "auto" or recipes.find(name).makes == "images":
        assert Image.open(tmp_path / "samples.png").width >= 16
    assert "going on at step 3" in answers[-1]["printed"]
    assert sum(answer["seconds"] for answer in answers) < SECONDS
