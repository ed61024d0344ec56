"""What a kill leaves at the ends of a run of any recipe: before it has begun, and after its last
checkpoint. `soak.py` kills them anywhere."""

import sys
from pathlib import Path

import pytest
from run_support import assert_same_run, in_a_hurry, leftovers
from stand_ins import Eye

from fastgan import recipes
from fastgan.cli.main import main
from fastgan.data import rendered
from fastgan.models.frozen import projected
from fastgan.runs.run_folder import RunFolder
from fastgan.trainer import pictures

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import kills  # noqa: E402

QUICK = ("gan", "infogan", "lapgan", "pix2pix")
"""One stage, pictures by other names, several stages, images from images."""


class Kill(BaseException):
    """Ends all at once."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(projected, "eye", Eye)
    for name, (draw, _) in rendered.RENDERED.items():
        monkeypatch.setitem(rendered.RENDERED, name, (draw, 12 if name == "sprites" else 40))
    in_a_hurry(monkeypatch)
    kills.pictures(tmp_path)
    return tmp_path


def killed(monkeypatch, owner, name, argv, step):
    """`argv` until `name` is called after `step` steps, without what would be tidied up then."""
    real = getattr(owner, name)

    def kill(first, *rest):
        if getattr(first, "step", step) == step:
            raise Kill
        real(first, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, kill)
        patch.setattr(RunFolder, "abandon", RunFolder.close)
        with pytest.raises(Kill):
            main(argv)


def run(argv):
    with pytest.raises(SystemExit) as done:
        main(argv)
    assert not done.value.code


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        recipe if recipe in QUICK else pytest.param(recipe, marks=pytest.mark.long)
        for recipe in recipes.RECIPES
    ],
)
def test_a_run_that_was_killed_at_either_end_is_the_one_that_was_not(recipe, place, monkeypatch):
    argv = ["train", "--recipe", recipe, *kills.start_of(recipe, place), "--device", "cpu"]
    argv += ["--steps", "2", "--log-every", "2", "--no-progress", "--out"]
    out, straight = place / "run", place / "straight"
    run([*argv, str(straight)])
    killed(monkeypatch, RunFolder, "begun", [*argv, str(out)], 0)
    assert not RunFolder(out).exists(), "what such a start has left is in the way of the next one"
    killed(monkeypatch, pictures, "draw_samples", [*argv, str(out)], 2)
    run(["train", "--resume", str(out)])
    assert leftovers(out) == []
    assert_same_run(straight, out)
    assert kills.contents(straight) == kills.contents(out)
