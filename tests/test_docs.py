"""Everything the documents show is executed."""

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastgan.cli import reference

ROOT = Path(__file__).parent.parent


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


def commands(path):
    lines = [line.split("  #")[0].strip() for block in blocks(path, "sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def run(arguments, cwd):
    done = subprocess.run([sys.executable, "-m", "fastgan", *arguments], cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{arguments}: {done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
def test_readme_commands(tmp_path):
    folder = tmp_path / "my_images"
    folder.mkdir()
    for i in range(70):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{i}.png")
    shown = [shlex.split(line) for line in commands("README.md")]
    assert [line[1] for line in shown[:5]] == ["train", "train", "sample", "evaluate", "info"]
    tiny = {"--steps": iter(("2", "3")), "--n": iter(("4",))}
    for line in shown[:3] + shown[4:5]:
        arguments = [next(tiny[previous]) if previous in tiny else word for previous, word in zip(["", *line], line)]
        extra = ["--base-width", "2", "--batch-size", "4"] if "--recipe" in arguments else []
        run([*arguments[1:], *extra], tmp_path)
    assert (tmp_path / "grid.png").stat().st_size > 0
    run(["evaluate", "--help"], tmp_path)


@pytest.mark.slow
def test_readme_program(tmp_path):
    (program,) = blocks("README.md", "python")
    program = program.replace("steps=2000", "steps=2").replace("batch_size=64", "batch_size=8")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_objectives_page(tmp_path):
    import fastgan

    namespace: dict = {}
    (program,) = blocks("docs/objectives.md", "python")
    exec(program, namespace)
    from fastgan.models.dcgan import Discriminator, Generator

    images = np.zeros((8, 16, 16, 1), np.uint8)
    trainer = fastgan.Trainer(
        Generator(16, 1, 100, 2),
        Discriminator(16, 1, 2),
        objective=namespace["Hinge"](),
        data=images,
        batch_size=4,
        progress=False,
    )
    trainer.fit(1)


def test_configuration_page_is_current():
    assert (ROOT / "docs" / "configuration.md").read_text() == reference.page(), (
        "run: python -m fastgan.cli.reference > docs/configuration.md"
    )


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
        text = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
        for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_documents_name_no_machine():
    here = {str(ROOT), str(Path.home()), tempfile.gettempdir()} - {"/"}
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        assert not [path for path in here if f"{path}/" in page.read_text()], page.name
