"""Everything the documents show is executed."""

import ast
import contextlib
import importlib
import itertools
import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastgan.cli import main as cli
from fastgan.cli import reference

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


def commands(path):
    lines = [
        line.split("  #")[0].strip()
        for block in blocks(path, "sh")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [line for line in lines if line and not line.startswith("#")]


def run(arguments, cwd):
    with contextlib.chdir(cwd), pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0, arguments


@pytest.mark.slow
def test_readme_commands(tmp_path):
    folder = tmp_path / "my_images"
    folder.mkdir()
    for i in range(70):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8)).save(
            folder / f"{i}.png"
        )
    shown = [shlex.split(line) for line in commands("README.md")]
    names = [
        "train",
        "train",
        "sample",
        "interpolate",
        "evaluate",
        "report",
        "export",
        "ui",
        "info",
        "verify",
        "verify",
    ]
    assert [line[1] for line in shown] == names
    tiny = {"--for": "1s", "--n": "4"}
    for line in shown[:-2]:
        arguments = [tiny.get(before, word) for before, word in itertools.pairwise(line)]
        extra = {
            "train": ["--base-width", "2", "--batch-size", "4"] if "--data" in line else [],
            "interpolate": ["--keys", "2", "--frames", "2"],
            "evaluate": ["--help"],
            "ui": ["--help"],
        }
        run([*arguments, *extra.get(line[1], [])], tmp_path)
    assert (tmp_path / "runs/mine/report.html").is_file()
    for made in ("grid.png", "walk.gif", "mine.html"):
        assert (tmp_path / made).stat().st_size > 0


def test_the_readme_names_every_recipe():
    """Each once at least, linked to its page or, where it has none, to its options."""
    from fastgan.recipes import RECIPES

    text = (ROOT / "README.md").read_text()
    table = text.split("<!-- recipes:begin -->")[1].split("<!-- recipes:end -->")[0]
    links = dict(re.findall(r"\[`([a-z0-9-]+)`\]\(([^)]+)\)", table))
    assert set(links) == {"auto", *RECIPES}
    for name in RECIPES:
        page = f"docs/kinds/{name}.md"
        assert links[name] == (page if (ROOT / page).is_file() else f"docs/configuration.md#{name}")


@pytest.mark.slow
def test_readme_program(tmp_path):
    (program,) = blocks("README.md", "python")
    program = program.replace("steps=2000", "steps=2").replace("batch_size=64", "batch_size=8")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
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


def test_exported_files_are_read_as_the_page_says(tmp_path):
    import torch

    import fastgan

    small = ["--recipe=dcgan", "--size=16", "--base-width=2", "--batch-size=4", "--steps=2"]
    run(["train", *small, "--out=run"], tmp_path)
    run(["export", "run", "--out=my-generator"], tmp_path)
    run(["export", "run", "--format=torch", "--out=clothes.pt2"], tmp_path)
    G, z = fastgan.load(tmp_path / "run"), torch.randn(2, 100, 1, 1)
    for program in blocks("docs/looking.md", "python")[:2]:
        namespace: dict = {}
        with contextlib.chdir(tmp_path):
            exec(program, namespace)
        assert namespace["images"].shape == (16, 1, 16, 16)
        torch.testing.assert_close(namespace["G"](z), G(z))


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs" / "howto").glob("*.md")), ids=lambda page: page.stem
)
def test_howto_programs_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": page.stem}
    for program in blocks(page, "python"):
        exec(program, namespace)


@pytest.mark.slow
def test_tutorial(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))
    pictures, own_loss = blocks("docs/tutorial.md", "python")
    subprocess.run([sys.executable, "-c", pictures], cwd=tmp_path, check=True, timeout=60)
    shown = [shlex.split(line) for line in commands("docs/tutorial.md")]
    assert [line[:2] for line in shown] == [
        ["fastgan", name] for name in ("data", "train", "train", "sample", "evaluate")
    ]
    tiny = {"--steps": iter(("2", "3")), "--base-width": iter(("2",))}
    for line in shown:
        run(
            [
                next(tiny[previous]) if previous in tiny else word
                for previous, word in itertools.pairwise(line)
            ],
            tmp_path,
        )
    assert (tmp_path / "grid.png").stat().st_size > 0
    own_loss = own_loss.replace("steps=300", "steps=2").replace("base_width=16", "base_width=2")
    done = subprocess.run(
        [sys.executable, "-c", own_loss], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "(16, 3, 32, 32) torch.float32", done.stderr[-2000:]


@pytest.mark.slow
def test_the_notebook(tmp_path):
    book = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text())
    texts = {kind: [] for kind in ("code", "markdown")}
    for cell in book["cells"]:
        texts[cell["cell_type"]].append("".join(cell["source"]))
    for link in re.findall(r"\]\(([^)#]+)\)", "\n".join(texts["markdown"])):
        assert (ROOT / "docs" / link).exists(), link
    program = "\n".join(texts["code"])
    for steps, few in (("300", "1"), ("1000", "2"), ("100", "1")):
        assert f"steps={steps})" in program
        program = program.replace(f"steps={steps})", f"steps={few})")
    program = program.replace("base_width=32", "base_width=2")
    namespace: dict = {"__name__": "notebook"}
    with contextlib.chdir(tmp_path):
        exec(program, namespace)
    assert namespace["images"].shape == (8, 3, 32, 32)
    assert (tmp_path / "runs/notebook/report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["non-saturating", "relativistic"])
def test_plain_dcgan_trains_on_the_bundled_images(loss, tmp_path):
    options = [
        "--steps=3",
        "--base_width=2",
        "--size=16",
        "--log_every=1",
        f"--loss={loss}",
        "--device=cpu",
    ]
    program = [sys.executable, ROOT / "docs" / "examples" / "plain_dcgan.py", *options]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("loss D") == 3
    out = tmp_path / "runs" / "plain-dcgan"
    assert {path.name for path in out.iterdir()} == {
        "reals.png",
        "000003.png",
        "generator.safetensors",
    }


def test_plain_dcgan_refuses_an_unknown_option(tmp_path):
    program = [sys.executable, ROOT / "docs" / "examples" / "plain_dcgan.py", "--stesp=3"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "--stesp=3" in done.stderr


def test_configuration_page_is_current():
    assert (ROOT / "docs" / "configuration.md").read_text() == reference.page(), (
        "run: python -m fastgan.cli.reference > docs/configuration.md"
    )


def test_links_lead_somewhere():
    for page in PAGES:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
        text = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
        for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_map_of_the_rooms_names_files_that_are_there():
    text = (ROOT / "docs" / "internals" / "architecture.md").read_text()
    where = text.split("## Where to look")[1].split("\n## ")[0]
    named = re.findall(r"`([a-z_/]+(?:\.py|/))`", where)
    assert len(named) > 20
    assert not [n for n in named if not any((ROOT / d / n).exists() for d in ("fastgan", "."))]


def test_the_reference_documents_packages_that_can_be_imported():
    (named,) = re.findall(r"^PUBLIC = (\(.*\))$", (ROOT / "docs" / "build.py").read_text(), re.M)
    for name in ast.literal_eval(named):
        importlib.import_module(f"fastgan.{name}")


def test_documents_name_no_machine():
    here = {str(ROOT), str(Path.home()), tempfile.gettempdir()} - {"/"}
    for page in PAGES:
        assert not [path for path in here if f"{path}/" in page.read_text()], page.name


def test_lines_have_100_columns():
    for page in PAGES:
        long = [
            n
            for n, line in enumerate(page.read_text().splitlines(), 1)
            if len(line) > 100 and not line.startswith("|")
        ]
        assert not long, f"{page.relative_to(ROOT)}: lines {long}"


KINDS = sorted((ROOT / "docs" / "kinds").glob("*.md"), key=lambda page: page.stem)


@pytest.mark.parametrize("page", KINDS, ids=lambda page: page.stem)
def test_pages_of_kinds_begin_with_three_commands(page):
    """Train, sample, evaluate, options that there are; each kind has a row in the gallery."""
    from fastgan import recipes

    first, second, third = commands(page.relative_to(ROOT))[:3]
    run = f"runs/{page.stem}"
    assert first.startswith(f"fastgan train --recipe {page.stem}")
    assert second.startswith(f"fastgan sample {run} ")
    assert third.startswith(f"fastgan evaluate {run}")
    known = reference.page() + " ".join(
        ["--input", "--mask", "--label", "--text", "--traverse", "--out", "--network", "--n"]
        + ["--every-class"]
    )
    for flag in re.findall(r"--[a-z][a-z0-9-]+", page.read_text()):
        assert flag in known or flag.removeprefix("--").replace("-", "_") in known, flag
    assert page.stem in recipes.RECIPES
    assert f"[{page.stem}](kinds/{page.stem}.md)" in (ROOT / "docs" / "gallery.md").read_text()
    assert f"(kinds/{page.stem}.md)" in (ROOT / "docs" / "index.md").read_text()


def test_the_table_of_messages_is_that_of_the_code(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import errors

    assert (ROOT / "docs" / "internals" / "errors.md").read_text() == errors.page(), (
        "run: python docs/errors.py > docs/internals/errors.md"
    )


def test_no_message_is_written_in_two_places(monkeypatch):
    """What several places refuse is worded once, in a function that all of them call."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import errors

    found = errors.messages()
    assert len(found) > 300
    assert {text: places for text, places in found.items() if len(places) > 1} == {}


JOBS = {
    "slurm.sh": re.compile(r"-m fastgan train (.*)$", re.M),
    "kubernetes.yaml": re.compile(r"- train\n((?: +- --.*\n)+)"),
}


@pytest.mark.parametrize("name", JOBS)
def test_job_files_say_what_the_command_takes(name, tmp_path, monkeypatch):
    """Their shells parse, and their options are options."""
    from fastgan.cli import options
    from fastgan.recipes.auto import Auto

    text = (ROOT / "docs" / "examples" / name).read_text()
    if name.endswith(".sh"):
        done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
    (typed,) = JOBS[name].findall(text)
    known = {flag for option in options.flags(Auto) for flag in option.opts}
    found = set(re.findall(r"--[a-z-]+", typed))
    assert {"--out", "--data", "--batch-size"} <= found <= known
    for agent in ("--nnodes", "--nproc-per-node", "--max-restarts", "--rdzv-id", "--rdzv-endpoint"):
        assert agent in text
